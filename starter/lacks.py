"""What an app lacks to be released by Slipway, each with what mends it."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from releasectl import guess as code
from starter.guess import LOCK, SOURCES, Guess

# What hosts have: see roles/runtime.
PYTHON = "3.11"
DRIVERS = {"psycopg", "psycopg2", "psycopg2-binary", "psycopg-binary"}
HEALTH = """\
# in urls.py, among urlpatterns (with `from django.http import HttpResponse`):
path("healthz", lambda request: HttpResponse("ok")),"""


@dataclass(frozen=True)
class Lack:
    """What is missing and why that matters, and what to type or to write."""

    what: str
    mend: str


def lacks(guess: Guess) -> list[Lack]:
    return [*_source(guess), *_packages(guess), *_code(guess), *_settings(guess)]


def _source(guess: Guess) -> Iterator[Lack]:
    if guess.repository is None:
        yield Lack(
            "it is in no git repository, and what is packed is a commit",
            f"cd {shlex.quote(str(guess.root))} && git init && git add --all && git commit -m 'The app'",
        )
    if not guess.locked:
        yield Lack(
            "its requirements have no hashes, so another day would install other code",
            f"{_lock(guess)}\n# or take what the index has on the day, by app_requirements_unhashed: true in main.yml",
        )
    if "python" in guess.values and not _allows(guess.values["python"]):
        yield Lack(
            f"it wants Python {guess.values['python']} ({guess.sources['python']}), and hosts have {PYTHON}",
            f"try it under {PYTHON}, and say there that {PYTHON} will do",
        )


def _lock(guess: Guess) -> str:
    if (guess.lists / "uv.lock").is_file():
        command = "uv lock"
    elif (guess.lists / "poetry.lock").is_file():
        command = f"poetry export --format requirements.txt --output {LOCK}"
    else:
        source = next((name for name in SOURCES if code.lists(guess.lists / name)), SOURCES[0])
        command = f"uv pip compile --generate-hashes --python-version {PYTHON} {source} -o {LOCK}"
    return f"cd {shlex.quote(str(guess.lists))} && {command}"


def _allows(specifier: str) -> bool:
    try:
        return SpecifierSet(specifier).contains(f"{PYTHON}.9")
    except InvalidSpecifier:
        return True


def _packages(guess: Guess) -> Iterator[Lack]:
    def add(name: str) -> str:
        return f"add {name} to its requirements, then {_lock(guess)}"

    if "gunicorn" not in guess.packages:
        yield Lack("gunicorn is not among its requirements, and it is what serves it", add("gunicorn"))
    if not DRIVERS & guess.packages:
        yield Lack("no PostgreSQL driver is among its requirements", add("'psycopg[binary]'"))
    if "app_celery_app" in guess.values and "celery" not in guess.packages:
        yield Lack("it has a Celery app, and celery is not among its requirements", add("'celery[redis]'"))
    if "celery" in guess.packages and "app_celery_app" not in guess.values:
        yield Lack(
            "celery is among its requirements, and no Celery app was found", "name it: --celery-app mysite, or none"
        )


def _code(guess: Guess) -> Iterator[Lack]:
    if "app_django_settings_module" not in guess.values:
        yield Lack("neither wsgi.py nor manage.py names its settings", "name them: --settings-module mysite.settings")
    if "app_wsgi" not in guess.values:
        yield Lack("no WSGI application was found", "name it: --wsgi mysite.wsgi:application")
    if "app_health_path" not in guess.values:
        yield Lack("no path was found that answers 200 when it can serve: any answer of / would count", HEALTH)


def _settings(guess: Guess) -> Iterator[Lack]:
    found = guess.environment
    for place in found.unreadable:
        yield Lack(f"{place} cannot be read as Python", "mend what `python -m py_compile` says of it")

    def fixed(setting: str) -> str:
        place = found.assigned.get(setting, ("the settings", None))[0]
        return "" if found.of_setting(setting) else place

    if "STATIC_ROOT" not in found.reads and not found.of_setting("STATIC_ROOT"):
        yield Lack(
            f"{fixed('STATIC_ROOT') or 'the settings'}: static files are to be collected where the host says",
            'STATIC_ROOT = os.environ.get("STATIC_ROOT", BASE_DIR / "staticfiles")',
        )
    plain = found.assigned.get("SECRET_KEY", ("", None))
    if plain[1] and not found.of_setting("SECRET_KEY"):
        yield Lack(f"{plain[0]}: the secret key stands in the source", 'SECRET_KEY = os.environ["DJANGO_SECRET_KEY"]')
    if (place := fixed("ALLOWED_HOSTS")) and not {"ALLOWED_HOSTS", "DJANGO_ALLOWED_HOSTS"} & set(found.reads):
        yield Lack(
            f"{place}: the host's name is not taken from the environment",
            'ALLOWED_HOSTS = os.environ.get("DJANGO_ALLOWED_HOSTS", "localhost").split(",")',
        )
    if (place := fixed("DATABASES")) and not any(re.search(r"DATABASE|POSTGRES|DB_|PG", name) for name in found.reads):
        yield Lack(
            f"{place}: the database is not taken from the environment",
            'add dj-database-url, and DATABASES = {"default": dj_database_url.config()}, which reads DATABASE_URL',
        )
    place, root = found.assigned.get("MEDIA_ROOT", ("", None))
    if place and not found.of_setting("MEDIA_ROOT"):
        yield Lack(f"{place}: uploads go where it may not write", _media(root or ""))
    if found.assigned.get("DEBUG", ("", None))[1] == "True":
        yield Lack(
            f"{found.assigned['DEBUG'][0]}: DEBUG is on, which shows settings to visitors",
            'DEBUG = os.environ.get("DJANGO_DEBUG") == "1"',
        )
    if "SECURE_PROXY_SSL_HEADER" not in found.assigned:
        yield Lack(
            "the settings do not say how the proxy tells that a request came over HTTPS",
            'SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")',
        )


def _media(root: str) -> str:
    data = posixpath.dirname(root.rstrip("/"))
    if data.startswith("/") and data != "/":
        return f"app_data_dir: {data} and app_media_root: {root.rstrip('/')} in main.yml"
    return (
        'MEDIA_ROOT = os.environ.get("MEDIA_ROOT", BASE_DIR / "media")\n'
        "# and in main.yml app_data_dir: /var/www/app/data, app_media_root: /var/www/app/data/media and, among"
        " app_settings, that as MEDIA_ROOT"
    )
