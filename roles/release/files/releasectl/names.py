"""Release ids and generations: strict patterns, because arguments are hostile input."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from .errors import UsageError

RELEASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
GENERATION = re.compile(r"(?P<release>[A-Za-z0-9][A-Za-z0-9._-]{0,63})\.(?P<number>[0-9]{1,9})")
ARTIFACT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
APP_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
MIGRATION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,199}")
SHA256 = re.compile(r"[0-9a-f]{64}")


def shorten(text: str, limit: int = 80) -> str:
    """What a person typed, fit for a sentence: printable and not longer than ``limit`` characters."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return repr(shown if len(shown) <= limit else shown[: limit - 1] + "…")


def release_id(text: str) -> str:
    """Return ``text`` when it is a release id, refuse it otherwise."""
    if not RELEASE_ID.fullmatch(text) or ".." in text:
        raise UsageError(
            f"{shorten(text)} is not a release id: 1 to 64 letters, digits, '.', '_' or '-',"
            " beginning with a letter or a digit and without '..'; run 'releasectl status' for those that exist."
        )
    return text


def artifact_name(text: str) -> str:
    """Return ``text`` when it is a plain file name, refuse anything that could name another directory."""
    if not ARTIFACT.fullmatch(text) or ".." in text:
        raise UsageError(
            f"{shorten(text)} is not the name of an uploaded artifact: give the plain file name inside the incoming"
            " directory."
        )
    return text


def sha256(text: str) -> str:
    """Return ``text`` when it is a SHA-256 digest in lower-case hexadecimal."""
    if not SHA256.fullmatch(text):
        raise UsageError(f"{shorten(text)} is not a SHA-256 digest: 64 lower-case hexadecimal digits are needed.")
    return text


def app_label(text: str) -> str:
    """Return ``text`` when it is the label of a Django app."""
    if not APP_LABEL.fullmatch(text):
        raise UsageError(f"{shorten(text)} is not the label of an app: letters, digits and '_' are.")
    return text


def migration(text: str) -> str:
    """Return ``text`` when it is the name of a migration inside its app, or ``zero``."""
    if not MIGRATION.fullmatch(text):
        raise UsageError(f"{shorten(text)} is not the name of a migration, as 0003_isbn is, or zero.")
    return text


def migrations(text: str) -> list[str]:
    """Split names of migrations, ``app.name`` each, at commas."""
    found = text.split(",")
    for item in found:
        app, _dot, name = item.partition(".")
        if len(found) > 5000 or not (APP_LABEL.fullmatch(app) and MIGRATION.fullmatch(name)):
            raise UsageError(f"{shorten(text)} are not names of migrations, as shop.0003_isbn is, with commas between.")
    return found


class Generation(NamedTuple):
    """One start of a release with one version of the settings: ``<release>.<number>``."""

    release: str
    number: int

    def __str__(self) -> str:
        return f"{self.release}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> Generation:
        """Split at the last dot: ids may hold dots themselves."""
        match = GENERATION.fullmatch(text)
        if not match or ".." in text:
            raise UsageError(f"{shorten(text)} is not a generation: '<release id>.<number>' is needed.")
        return cls(match["release"], int(match["number"]))


def number(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole numbers within bounds."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,16}", value) or not low <= int(value) <= high:
            raise UsageError(f"{shorten(value)} is not a whole number from {low} to {high}.")
        return int(value)

    return parse
