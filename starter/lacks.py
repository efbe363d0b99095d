"""What an app lacks to be released by Slipway, each with what mends it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from starter.guess import SOURCES, Guess

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
    place = shlex.quote(str(guess.root))
    if guess.repository is None:
        yield Lack(
            "it is in no git repository, and what is packed is a commit",
            f"cd {place} && git init && git add --all && git commit -m 'The app'",
        )
    if not guess.locked:
        yield Lack("it has no requirements with a hash for each, and a host installs no others", _lock(guess))
    if "python" in guess.values and not _allows(guess.values["python"]):
        yield Lack(
            f"it wants Python {guess.values['python']} ({guess.sources['python']}), and hosts have {PYTHON}",
            f"try it under {PYTHON}, and say there that {PYTHON} will do",
        )


def _lock(guess: Guess) -> str:
    place = shlex.quote(str(guess.root))
    if (guess.root / "uv.lock").is_file():
        command = "uv export --frozen --no-dev --no-emit-project --format requirements-txt -o requirements.lock"
    elif (guess.root / "poetry.lock").is_file():
        command = "poetry export --format requirements.txt --output requirements.lock"
    else:
        source = next((name for name in SOURCES if (guess.root / name).is_file()), "requirements.in")
        command = f"uv pip compile --generate-hashes --python-version {PYTHON} {source} -o requirements.lock"
    return f"cd {place} && {command}"


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
        yield Lack("celery is among its requirements, and no Celery app was found", "name it: --celery-app mysite")


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

    if "STATIC_ROOT" not in found.reads:
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
