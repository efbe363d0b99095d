"""`.no-secrets.yml`: what looks like a secret and is none, each with its reason."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from plugins.leaks.kinds import KINDS, Finding

FILE = ".no-secrets.yml"
KEYS = {"files", "kind", "values", "reason"}
# These are never allowed: there is no use of them in the clear.
NEVER = {"age", "clear"}


class Misread(Exception):
    """One sentence: what is wrong in the file."""


@dataclass(frozen=True)
class Entry:
    """``files`` are patterns (``tests/*``: all below it); ``values`` a regular expression of the whole value."""

    files: tuple[str, ...]
    kind: str
    values: str
    reason: str

    def covers(self, finding: Finding) -> bool:
        return (
            finding.kind == self.kind
            and any(fnmatch.fnmatchcase(finding.path, pattern) for pattern in self.files)
            and (not self.values or bool(re.fullmatch(self.values, finding.value, re.DOTALL)))
        )


def entries(root: Path) -> list[Entry]:
    """The entries of a repository; none where it has no such file. Raises ``Misread``."""
    path = root / FILE
    if not path.is_file():
        return []
    try:
        given = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError):
        raise Misread(f"{FILE} is no YAML: correct it.") from None
    if not isinstance(given, list):
        raise Misread(f"{FILE} is to be a list of {{files, kind, values, reason}}: correct it.")
    return [_entry(number, one) for number, one in enumerate(given, 1)]


def _entry(number: int, given: Any) -> Entry:
    where = f"entry {number} of {FILE}"
    if not isinstance(given, dict) or set(given) - KEYS or not isinstance(given.get("files"), list):
        raise Misread(
            f"{where} is to have files (a list), kind, reason, and values where not all are meant: correct it."
        )
    if not str(given.get("reason") or "").strip():
        raise Misread(f"{where} gives no reason: say why that is no secret.")
    kind, values = given.get("kind"), given.get("values", "")
    if kind not in KINDS or kind in NEVER:
        raise Misread(f"{where} has the kind {kind}: one can be allowed of {', '.join(sorted(set(KINDS) - NEVER))}.")
    try:
        re.compile(values)
    except (re.error, TypeError):
        raise Misread(f"{where}: its values is no regular expression of Python's: correct it.") from None
    return Entry(tuple(map(str, given["files"])), kind, values, given["reason"])


def left(findings: Iterable[Finding], known: Collection[Entry]) -> tuple[list[Finding], list[Entry]]:
    """The findings that nothing allows, and the entries that allow nothing."""
    remaining, used = [], set()
    for finding in findings:
        covering = [entry for entry in known if entry.covers(finding)]
        used.update(covering)
        if not covering:
            remaining.append(finding)
    return remaining, [entry for entry in known if entry not in used]
