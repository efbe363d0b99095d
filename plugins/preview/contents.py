"""What an artifact holds, read without unpacking it and without running any of it."""

from __future__ import annotations

import ast
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

TEXT_MOST = 4 << 20  # bytes of one file that are read
MIGRATION = re.compile(r"(?:.*/)?(?P<package>[^/]+)/migrations/(?P<name>[^_/][^/]*)\.py")
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


def read(path: Path, requirements: str) -> Contents:
    """Read the tar archive at ``path``, whose lock file is called ``requirements``."""
    found = Contents(packed=path.stat().st_size)
    sources: dict[str, tuple[str, str, str]] = {}
    labels: dict[str, str] = {}
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
            wanted = name in ("REVISION", str(PurePosixPath(requirements))) or migration or place.name == "apps.py"
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
                found.requirements = text
    found.migrations = {
        f"{labels.get(where, package)}.{name}": found.migrations[path]
        for path, (where, package, name) in sources.items()
    }
    return found
