"""What an artifact holds, read without unpacking it and without running any of it."""

from __future__ import annotations

import ast
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from releasectl import guess

TEXT_MOST = 4 << 20  # bytes of one file that are read
MIGRATION = re.compile(r"(?:.*/)?(?P<package>[^/]+)/migrations/(?P<name>[^_/][^/]*)\.py")
# Where a project may be in an artifact, with requirements/ in it.
DEPTH = 4
LISTED = tuple(f"/{name}" for name in guess.FILES_OF_REQUIREMENTS)
HOOKS = PurePosixPath(".slipway/hooks")


@dataclass
class Contents:
    """Sizes in bytes; ``migrations`` are sources by ``app.name``; ``requirements`` is None when there is no lock."""

    packed: int = 0
    bytes: int = 0
    entries: int = 0
    revision: str = ""
    requirements: str | None = None
    migrations: dict[str, str] = field(default_factory=dict)
    hooks: list[str] = field(default_factory=list)


def _label(source: str) -> str | None:
    """The label that an app's own configuration gives it, where that is written out."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for line in node.body:
                if (
                    isinstance(line, ast.Assign)
                    and any(isinstance(target, ast.Name) and target.id == "label" for target in line.targets)
                    and isinstance(line.value, ast.Constant)
                    and isinstance(line.value.value, str)
                ):
                    return line.value.value
    return None


def _guessed(found: dict[str, str]) -> str | None:
    """Of the files of requirements that there are, that which hosts take: by hashes, then by name, then by place."""
    ranks = {
        path: (
            not (path.endswith("uv.lock") or guess.hashed(text)),
            guess.FILES_OF_REQUIREMENTS.index(name),
            -len(path),
        )
        for path, text in found.items()
        for name in guess.FILES_OF_REQUIREMENTS
        if f"/{path}".endswith(f"/{name}")
    }
    return found[min(ranks, key=ranks.__getitem__)] if ranks else None


def read(path: Path, requirements: str) -> Contents:
    """Read the tar archive at ``path``, with the file of requirements of that name; empty: as hosts guess it."""
    found = Contents(packed=path.stat().st_size)
    sources: dict[str, tuple[str, str, str]] = {}
    labels: dict[str, str] = {}
    lists: dict[str, str] = {}
    with tarfile.open(path, "r:gz") as tar:
        for member in tar:
            found.entries += 1
            if not member.isreg():
                continue
            found.bytes += member.size
            place = PurePosixPath(member.name)
            name = str(place)
            migration = MIGRATION.fullmatch(name)
            is_hook = place.parent == HOOKS
            listing = (
                name == str(PurePosixPath(requirements))
                if requirements
                else len(place.parts) <= DEPTH and f"/{name}".endswith(LISTED)
            )
            wanted = name == "REVISION" or listing or migration or place.name == "apps.py"
            if is_hook:
                found.hooks.append(place.name)
            if not wanted or member.size > TEXT_MOST:
                continue
            stream = tar.extractfile(member)
            text = stream.read().decode(errors="replace") if stream is not None else ""
            if name == "REVISION":
                found.revision = text.strip()[:64]
            elif migration:
                sources[name] = str(place.parent.parent), migration["package"], migration["name"]
                found.migrations[name] = text
            elif place.name == "apps.py":
                labels |= {str(place.parent): label} if (label := _label(text)) else {}
            else:
                lists[name] = text
    found.requirements = next(iter(lists.values()), None) if requirements else _guessed(lists)
    found.migrations = {
        f"{labels.get(where, package)}.{name}": found.migrations[path]
        for path, (where, package, name) in sources.items()
    }
    return found
