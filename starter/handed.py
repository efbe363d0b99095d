"""What the host hands the app in its environment: the names that its settings read, with values."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from starter.environment import Environment, Read

# The names that an app is told to read where it reads none of its own.
USUAL = {"SECRET_KEY": "DJANGO_SECRET_KEY", "ALLOWED_HOSTS": "DJANGO_ALLOWED_HOSTS",
         "CSRF_TRUSTED_ORIGINS": "DJANGO_CSRF_TRUSTED_ORIGINS"}  # fmt: skip
REDIS = re.compile(r"(^|_)(REDIS_URL|REDIS_TLS_URL|BROKER_URL|CACHE_URL|RESULT_BACKEND)$")
DATABASE = re.compile(r"(^|_)(DATABASE|POSTGRES|POSTGRESQL|DB)_(URL|URI)$")
# Parts of an address, where an app wants them one by one.
PART = re.compile(
    r"(^|_)(DATABASE|POSTGRES|POSTGRESQL|DB|PG)_?(NAME|DB|DATABASE|USER|USERNAME|PASSWORD|PASS|HOST|PORT)$"
)
KINDS = {"NAME": "name", "DB": "name", "DATABASE": "name", "USER": "username", "USERNAME": "username",
         "PASSWORD": "password", "PASS": "password", "HOST": "hostname", "PORT": "port"}  # fmt: skip
# What the host sets by itself, or what says which settings to read.
OWN = {"STATIC_ROOT", "RELEASE_ID", "RELEASE_GENERATION", "DJANGO_SETTINGS_MODULE", "PATH", "HOME"}
LOCAL = {"name": "app", "username": "app", "password": "{{ secrets.postgres_app_password }}", "hostname": "localhost",
         "port": "5432"}  # fmt: skip
LOCAL_DATABASE = (
    "postgres://app:{{ secrets.postgres_app_password | urlencode }}@localhost:5432/app"
    "?sslmode=verify-full&sslrootcert={{ app_ca_file }}"
)
LOCAL_REDIS = (
    "rediss://app:{{ secrets.redis_app_password | urlencode }}@localhost:6379/0"
    "?ssl_cert_reqs=required&ssl_ca_certs={{ app_ca_file }}"
)


@dataclass
class Handed:
    """The values of app_settings and of app_build_settings, by name, and what only the user knows."""

    settings: dict[str, str] = field(default_factory=dict)
    build: dict[str, str] = field(default_factory=dict)
    # Names of secrets that are made here, and kept with the other secrets.
    made: list[str] = field(default_factory=list)
    unknown: list[Read] = field(default_factory=list)
    # Names that the app reads and would start without: what they may be set to is the user's business.
    optional: list[str] = field(default_factory=list)

    def add(self, name: str, value: str, build: str) -> None:
        self.settings[name], self.build[name] = value, build


def hand(found: Environment, redis: bool, database_url: bool, redis_url: bool) -> Handed:
    """Work out what to hand over; whether the database's and Redis' URLs were given, or both are on the host itself."""
    handed = Handed()
    _django(found, handed)
    _database(found, handed, database_url)
    names = [name for name in found.reads if REDIS.search(name)]
    if redis:
        for name in names or ["REDIS_URL"]:
            handed.add(name, "{{ secrets.redis_url }}" if redis_url else LOCAL_REDIS, "redis://localhost:1/0")
    for read in found.reads.values():
        if read.name in handed.settings or read.name in handed.made or read.name in OWN:
            continue
        if read.required:
            handed.unknown.append(read)
            hint = f"set {read.name}: {read.place} reads it and has no default"
            handed.add(read.name, "{{ undef(hint='" + hint + "') }}", "not-used-while-building")
        else:
            handed.optional.append(read.name)
    return handed


def _django(found: Environment, handed: Handed) -> None:
    values = {
        "SECRET_KEY": ("", "not-a-secret-used-while-building-only"),
        "ALLOWED_HOSTS": ("{{ app_domain }}", "localhost"),
        "CSRF_TRUSTED_ORIGINS": ("https://{{ app_domain }}", "https://localhost"),
    }
    for setting, (value, build) in values.items():
        read = found.of_setting(setting) or [name for name in found.reads if name in (setting, USUAL[setting])]
        for name in read[:1] or [USUAL[setting]]:
            if value:
                handed.add(name, value, build)
            else:
                handed.made.append(name)
                handed.build[name] = build
    for name in found.of_setting("DEBUG"):
        handed.add(name, "0", "0")


def _database(found: Environment, handed: Handed, url: bool) -> None:
    parts = {name: PART.search(name) for name in found.reads if not DATABASE.search(name)}
    wanted = {name: KINDS[match[3]] for name, match in parts.items() if match}
    urls = [name for name in found.reads if DATABASE.search(name)]
    if wanted and not urls:
        for name, kind in wanted.items():
            handed.add(name, _part(kind) if url else LOCAL[kind], "5432" if kind == "port" else "none")
        if not url:
            # libpq reads these by itself.
            handed.settings |= {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "{{ app_ca_file }}"}
        return
    for name in urls or ["DATABASE_URL"]:
        handed.add(name, "{{ secrets.database_url }}" if url else LOCAL_DATABASE, "sqlite:///:memory:")


def _part(kind: str) -> str:
    if kind == "name":
        return "{{ secrets.database_url | urlsplit('path') | regex_replace('^/', '') }}"
    return "{{ secrets.database_url | urlsplit('" + kind + "') }}"
