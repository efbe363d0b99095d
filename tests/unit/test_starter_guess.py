"""`make init`: what is found in an app's checkout, what it lacks, and what its settings are handed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from starter import cli, environment, guess, handed, lacks
from starter.answers import Wrong
from tests import newcomer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return newcomer.write_app(tmp_path / "ledger")


def test_the_newcomers_app_is_found_out(app: Path) -> None:
    found = guess.look(app, {})
    assert found.path == "web"
    assert found.values == {
        "app_name": "ledger",
        # wsgi.py's, and not manage.py's, which is for its author's machine.
        "app_django_settings_module": "ledger.base",
        "app_wsgi": "ledger.wsgi:application",
        "app_requirements": "requirements.txt",
        "app_health_path": "/health/",
        "app_liveness_path": "/health/",
    }
    assert found.sources["app_health_path"].startswith("from ledger/urls.py:")
    assert lacks.lacks(found) == []


def test_the_bookshop_is_found_out() -> None:
    """What is guessed of it is what its own variables say."""
    found = guess.look(ROOT / "examples/bookshop", {})
    written = yaml.safe_load((ROOT / "group_vars/lab/main.yml").read_text())
    for name in set(cli.OVERRIDES) - {"app_name"}:
        assert found.values[name] == written[name]
    assert found.path == "examples/bookshop"
    assert lacks.lacks(found) == []


def test_a_flag_comes_before_what_is_found(app: Path) -> None:
    found = guess.look(app, {"app_wsgi": "other.wsgi:app", "app_health_path": "/up"})
    assert (found.values["app_wsgi"], found.values["app_health_path"]) == ("other.wsgi:app", "/up")
    assert found.sources["app_wsgi"] == "as you said"


@pytest.mark.parametrize(
    ("name", "old", "new", "said", "mends"),
    [
        ("requirements.txt", "--hash=sha256:", "# ", "have no hashes", "--generate-hashes"),
        ("requirements.txt", "gunicorn==", "granian==", "gunicorn is not among", "gunicorn"),
        ("requirements.txt", "psycopg", "mysql", "no PostgreSQL driver", "psycopg"),
        ("ledger/urls.py", '"health/"', '"sickness/"', "answers 200 when it can serve", "urls.py"),
        (
            "ledger/base.py",
            'os.environ.get("STATIC_ROOT", BASE_DIR / "staticfiles")',
            '"/srv"',
            "base.py:18",
            "STATIC_ROOT",
        ),
        (
            "ledger/base.py",
            'os.environ["SECRET_KEY"]',
            '"django-insecure-x"',
            "secret key stands in the source",
            "environ",
        ),
        ("ledger/base.py", 'os.environ.get("HOSTS", "localhost").split(",")', '["*"]', "host's name is not", "ALLOWED"),
        (
            "ledger/base.py",
            "dj_database_url.config(default=f",
            "dict(ENGINE=f",
            "database is not taken",
            "DATABASE_URL",
        ),
        ("ledger/base.py", 'os.environ.get("LEDGER_DEBUG", "") == "1"', "True", "DEBUG is on", "DJANGO_DEBUG"),
        ("ledger/base.py", "SECURE_PROXY_SSL_HEADER", "PROXY", "came over HTTPS", "SECURE_PROXY"),
        (
            "ledger/base.py",
            "STATIC_URL =",
            "MEDIA_ROOT = BASE_DIR / 'up'\nSTATIC_URL =",
            "base.py:17: uploads",
            "MEDIA_ROOT",
        ),
        (
            "ledger/base.py",
            "STATIC_URL =",
            "MEDIA_ROOT = '/data/up/'\nSTATIC_URL =",
            "uploads",
            "app_data_dir: /data and",
        ),
        ("ledger/base.py", "SECRET_KEY =", "SECRET_KEY ==", "cannot be read", "py_compile"),
    ],
)
def test_what_an_app_lacks_is_said_with_what_mends_it(
    app: Path, name: str, old: str, new: str, said: str, mends: str
) -> None:
    path = app / "web" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new) if new != "SECRET_KEY ==" else text.replace(old, "SECRET_KEY = ="))
    missing = lacks.lacks(guess.look(app, {}))
    assert [lack.mend for lack in missing if said in lack.what and mends in lack.mend], missing


def test_a_project_that_is_a_package_is_packed_with_what_is_above_it(app: Path) -> None:
    """As settings name it: ``site.config.settings``, with manage.py in site/ and other packages beside that."""
    web = app / "web"
    (web / "ledger").rename(web / "config")
    for path in (web / "config").glob("*.py"):
        path.write_text(path.read_text().replace("ledger.", "web.config."))
    found = guess.look(web, {})
    assert (found.path, found.values["app_directory"]) == ("", "web")
    assert found.values["app_django_settings_module"] == "web.config.base"
    assert found.values["app_wsgi"] == "web.config.wsgi:application"
    assert found.values["app_requirements"] == "web/requirements.txt"
    assert "SECRET_KEY" in found.environment.reads
    assert lacks.lacks(found) == []


def test_what_says_above_what_it_needs_is_packed_with_it(app: Path) -> None:
    (app / "web/requirements.txt").rename(app / "requirements.txt")
    found = guess.look(app, {})
    assert (found.path, found.values["app_directory"], found.values["app_requirements"]) == (
        "", "web", "requirements.txt",
    )  # fmt: skip
    assert lacks.lacks(found) == []


def test_a_lock_of_uvs_is_one(app: Path) -> None:
    (app / "web/requirements.txt").unlink()
    (app / "web/uv.lock").write_text('[[package]]\nname = "gunicorn"\n\n[[package]]\nname = "psycopg-binary"\n')
    found = guess.look(app, {})
    assert found.values["app_requirements"] == "uv.lock"
    assert lacks.lacks(found) == []


def test_a_project_file_that_is_for_tools_lists_nothing(app: Path) -> None:
    path = app / "web/requirements.txt"
    path.write_text(path.read_text().replace("--hash=sha256:", "# "))
    (app / "web/pyproject.toml").write_text("[tool.ruff]\n")
    (lack,) = lacks.lacks(guess.look(app, {}))
    assert "3.11 requirements.txt -o requirements.lock" in lack.mend


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("pyproject.toml", '[project]\nname = "x"\nrequires-python = ">=3.12"\n', False),
        (".python-version", "3.11.4\n", True),
    ],
)
def test_the_python_that_it_wants_is_compared_with_the_hosts(app: Path, name: str, text: str, allowed: bool) -> None:
    (app / "web" / name).write_text(text)
    said = [lack for lack in lacks.lacks(guess.look(app, {})) if "wants Python" in lack.what]
    assert bool(said) != allowed


def test_a_directory_that_is_no_project_is_explained(tmp_path: Path, app: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Wrong, match=r"no manage\.py"):
        guess.project(tmp_path / "empty")
    (app / "other").mkdir()
    (app / "other/manage.py").write_text("")
    with pytest.raises(Wrong, match=r"more than one manage\.py \(other, web\)"):
        guess.project(app)


SETTINGS = """
import os
import environ
from decouple import config
from .helpers import text
env = environ.Env(DEBUG=(bool, False))
SECRET_KEY = env("APP_KEY")
DEBUG = env("DEBUG")
ALLOWED_HOSTS = env.list("HOSTNAMES", default=[])
DATABASES = {"default": {"NAME": os.environ["DB_NAME"], "PASSWORD": config("DB_PASSWORD"), "HOST": text("DB_HOST")}}
CACHES = {"default": env.cache("CACHE_URL")}
STRIPE = os.environ["STRIPE_KEY"]
SENTRY = os.environ.get("SENTRY_DSN")
MAIL = config("MAIL_HOST", default="localhost")
NOT = {"ASSIGNED": 1}
if os.environ.get("SMTP_HOST"):
    EMAIL_PORT = os.environ["SMTP_PORT"]
if "CI" in os.environ:
    os.environ.setdefault("SOMETHING", "1")
"""


@pytest.fixture
def settings(tmp_path: Path) -> environment.Environment:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/settings.py").write_text(SETTINGS)
    (tmp_path / "site/settings_local.py").write_text('import os\nX = os.environ["ONLY_AT_HOME"]\n')
    return environment.read(tmp_path, "site.settings")


def test_the_settings_are_read_and_not_run(settings: environment.Environment) -> None:
    required = {name for name, read in settings.reads.items() if read.required}
    assert set(settings.reads) == {
        "APP_KEY", "DEBUG", "HOSTNAMES", "DB_NAME", "DB_PASSWORD", "DB_HOST", "CACHE_URL", "STRIPE_KEY", "SENTRY_DSN",
        "MAIL_HOST", "SMTP_HOST", "SMTP_PORT",
    }  # fmt: skip
    assert required == {"APP_KEY", "DB_NAME", "DB_PASSWORD", "CACHE_URL", "STRIPE_KEY"}
    assert settings.reads["STRIPE_KEY"].place == "site/settings.py:12"


def test_each_name_is_handed_what_it_is_for(settings: environment.Environment) -> None:
    hands = handed.hand(settings, redis=True, database_url=False, redis_url=False)
    assert hands.made == ["APP_KEY"]
    assert "APP_KEY" not in hands.settings
    assert hands.settings["HOSTNAMES"] == "{{ app_domain }}"
    assert hands.settings["DEBUG"] == "0"
    assert hands.settings["DB_NAME"] == "app"
    assert hands.settings["DB_PASSWORD"] == "{{ secrets.postgres_app_password }}"
    assert hands.settings["DB_HOST"] == "localhost"
    # What has no address of its own to say so in is verified all the same.
    assert hands.settings["PGSSLMODE"] == "verify-full"
    assert hands.settings["CACHE_URL"].startswith("rediss://")
    assert [read.name for read in hands.unknown] == ["STRIPE_KEY"]
    assert (
        hands.settings["STRIPE_KEY"]
        == "{{ undef(hint='set STRIPE_KEY: site/settings.py:12 reads it and has no default') }}"
    )
    assert sorted(hands.optional) == ["MAIL_HOST", "SENTRY_DSN", "SMTP_HOST", "SMTP_PORT"]
    assert not any("secrets" in value for value in hands.build.values())


def test_what_an_apps_author_wrote_is_never_a_template(app: Path) -> None:
    base = app / "web/ledger/base.py"
    text = base.read_text().replace("ledger.wsgi.application", "{{ lookup('pipe', 'id') }}.x")
    base.write_text(text + 'import os\nos.environ["TOKEN"]\n')
    (app / "web/ledger/ba' ~ 1 }}.py").write_text('import os\nos.environ["OTHER"]\n')
    found = guess.look(app, {})
    hands = handed.hand(found.environment, redis=False, database_url=False, redis_url=False)
    assert "app_wsgi" not in found.values
    assert {read.name for read in hands.unknown} == {"TOKEN", "OTHER"}
    for name in ("TOKEN", "OTHER"):
        assert re.fullmatch(r"{{ undef\(hint='[^'{}]*'\) }}", hands.settings[name])
