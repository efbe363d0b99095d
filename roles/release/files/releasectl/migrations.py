"""What is known of migrations: what each does to a release that runs, which a release has, which a database was given.

All of it comes from programs that ran an app's code, so nothing in it is believed to be of any form: see `parse`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .files import write_json

LEVELS = ("compatible", "unknown", "locks", "incompatible", "destructive")
HARMFUL = ("incompatible", "destructive")
KNOWN = "migrations.json"
NAME = re.compile(r"\w{1,100}\.[\w-]{1,250}")
MOST = 5000  # migrations, of one app with all that it has installed
FINDINGS = 50  # of one migration
TEXT = 300  # characters


@dataclass(frozen=True)
class Finding:
    """One thing that a migration does; ``model`` is what it does it to, ``rows`` how big that is, where it is known."""

    level: str
    what: str
    model: str | None = None
    rows: int | None = None


@dataclass(frozen=True)
class Record:
    """One migration: the level is that of its worst finding, or as the app has marked it."""

    name: str
    level: str
    mark: str | None = None
    loses: bool = False
    atomic: bool = True
    backwards: bool = False
    creates: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    def told(self) -> str:
        """As a sentence names it: with what it does, where that is worth a word."""
        if self.mark:
            return f"{self.name} (marked {self.mark})"
        said = [found.what for found in self.findings if found.level == self.level] or [self.level]
        return self.name if self.level == "compatible" else f"{self.name} ({'; '.join(said[:3])})"


class Malformed(ValueError):
    """What a program of the app's said is not of the form that was asked for."""


def printable(value: object, limit: int = TEXT) -> str:
    """A text for a sentence."""
    if not isinstance(value, str):
        raise Malformed("a text is none")
    return "".join(c if c.isprintable() else "?" for c in value[:limit])


def name(value: object) -> str:
    """The name of a migration, ``app.0001_name``."""
    if not isinstance(value, str) or not NAME.fullmatch(value) or not value.isprintable():
        raise Malformed("a name is no migration's")
    return value


def names(value: object) -> tuple[str, ...]:
    """A list of names of migrations."""
    if not isinstance(value, list) or len(value) > MOST:
        raise Malformed("a list of migrations is none")
    return tuple(name(item) for item in value)


def _level(value: object) -> str:
    if value not in LEVELS:
        raise Malformed("a level is none")
    return str(value)


def _finding(raw: object) -> Finding:
    if not isinstance(raw, dict):
        raise Malformed("a finding is none")
    rows, model = raw.get("rows"), raw.get("model")
    if rows is not None and (type(rows) is not int or not 0 <= rows < 10**15):
        raise Malformed("a number of rows is none")
    where = None if model is None else printable(model)
    return Finding(_level(raw.get("level")), printable(raw.get("what")), where, rows)


def _flag(raw: dict[str, object], key: str, default: bool) -> bool:
    value = raw.get(key, default)
    if not isinstance(value, bool):
        raise Malformed(f"{key} is neither true nor false")
    return value


def record(raw: object) -> Record:
    """One record from JSON."""
    if not isinstance(raw, dict):
        raise Malformed("a record is none")
    findings, creates = raw.get("findings", []), raw.get("creates", [])
    if not (isinstance(findings, list) and isinstance(creates, list)) or len(creates) > MOST:
        raise Malformed("a record holds no lists")
    mark = raw.get("mark")
    if mark not in (None, "compatible", "incompatible"):
        raise Malformed("a mark is none")
    return Record(
        name(raw.get("name")),
        _level(raw.get("level")),
        None if mark is None else str(mark),
        _flag(raw, "loses", False),
        _flag(raw, "atomic", True),
        _flag(raw, "backwards", False),
        tuple(printable(item) for item in creates),
        names(raw.get("replaces", [])),
        tuple(_finding(item) for item in findings[:FINDINGS]),
    )


def records(raw: object) -> tuple[Record, ...]:
    """A list of records from JSON."""
    if not isinstance(raw, list) or len(raw) > MOST:
        raise Malformed("a list of records is none")
    return tuple(record(item) for item in raw)


def _read(path: Path) -> dict[str, Record] | None:
    try:
        raw = json.loads(path.read_text())["migrations"]
        return None if raw is None else {item.name: item for item in records(raw)}
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError):
        return None


def _write(path: Path, known: Iterable[Record] | None, mode: int) -> None:
    write_json(path, {"migrations": None if known is None else [asdict(item) for item in known]}, mode)


def keep(directory: Path, known: Iterable[Record] | None) -> None:
    """Keep with a release which migrations it has; None when that cannot be told."""
    _write(directory / KNOWN, known, 0o644)


def of_release(directory: Path) -> dict[str, Record] | None:
    """The migrations that a release has, in their order; None when that is not known."""
    return _read(directory / KNOWN)


class Schema:
    """Which migrations the database was given, as far as this host took part: /var/lib/app/schema.json."""

    def __init__(self, state: Path) -> None:
        self.path = state / "schema.json"

    def read(self) -> dict[str, Record]:
        """By name, in the order in which they came."""
        return _read(self.path) or {}

    def add(self, given: Iterable[Record]) -> None:
        """Remember those that are applied by now."""
        known = self.read()
        new = {item.name: replace(item, backwards=False) for item in given if item.name not in known}
        if new:
            _write(self.path, {**known, **new}.values(), 0o600)

    def settle(self, applied: Collection[str], given: Iterable[Record]) -> None:
        """Remember exactly what the database says is applied."""
        known = {**{item.name: replace(item, backwards=False) for item in given}, **self.read()}
        order = {item: place for place, item in enumerate(known)}
        now = [known.get(item) or Record(item, "unknown") for item in sorted(applied, key=lambda i: order.get(i, MOST))]
        if {item.name for item in now} != set(self.read()):
            _write(self.path, now, 0o600)


def judged(given: Iterable[Record]) -> list[Record]:
    """Migrations that come together: what one does to a table that one before it made, no running release feels."""
    created: set[str] = set()
    found = []
    for item in given:
        findings = tuple(f for f in item.findings if f.model not in created)
        if len(findings) < len(item.findings) and not item.mark:
            level = max((f.level for f in findings), key=LEVELS.index, default="compatible")
            item = replace(item, findings=findings, level=level)
        created |= set(item.creates)
        found.append(item)
    return found


def harms(item: Record, big: int) -> bool:
    """Whether a release that runs without this migration would feel it; a lock counts from ``big`` rows on."""
    if item.level == "locks":
        return any((found.rows or 0) >= big for found in item.findings if found.level == "locks")
    return item.level in HARMFUL


def between(applied: dict[str, Record], target: dict[str, Record]) -> list[Record]:
    """Which of the applied migrations a release does not have; one that stands for some that it has is none."""
    missing = [
        item
        for item in applied.values()
        if item.name not in target and not (item.replaces and all(old in target for old in item.replaces))
    ]
    squashed = {old for item in target.values() for old in item.replaces}
    return judged(item for item in missing if item.name not in squashed)


def listed(items: Iterable[str], most: int = 5) -> str:
    """Names for a sentence: the first few, and how many more there are."""
    all_of_them = list(items)
    more = len(all_of_them) - most
    return ", ".join(all_of_them[:most]) + (f" and {more} more" if more > 0 else "")
