"""What an artifact holds, read without unpacking it and without running any of it."""

from __future__ import annotations

import ast
import re
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from releasectl import guess, needs
from releasectl.errors import Refusal

TEXT_MOST = 4 << 20  # bytes of one file that are read
MIGRATION = re.compile(r"(?:.*/)?(?P<package>[^/]+)/migrations/(?P<name>[^_/][^/]*)\.py")
HOOKS = PurePosixPath(".slipway/hooks")
# What the host looks at to find the requirements, where they are not named.
TELLING = {"manage.py", *guess.LOCKS, *guess.LISTS}


@dataclass
class Contents:
    """Sizes in bytes; ``migrations`` are sources by ``app.name``; ``requirements`` is what ``requirements_file`` says,
    None when there is no such file.
    """

    packed: int = 0
    bytes: int = 0
    entries: int = 0
    revision: str = ""
    requirements: str | None = None
    requirements_file: str = ""
    migrations: dict[str, str] = field(default_factory=dict)
    hooks: list[str] = field(default_factory=list)
    # The names of the settings that it says it needs.
    settings: list[str] = field(default_factory=list)


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


def _guessed(files: dict[str, str]) -> str:
    """Which of them the host would take for the requirements; empty where it would not know."""
    with tempfile.TemporaryDirectory() as place:
        top = Path(place)
        for name, text in files.items():
            (top / name).parent.mkdir(parents=True, exist_ok=True)
            (top / name).write_text(text, encoding="utf-8")
        try:
            found = guess.requirements(top / guess.directory(top).value, top)
        except Refusal:
            return ""
    return found.value if found else ""


def _tells(place: PurePosixPath) -> bool:
    """Whether a file is looked at to find the requirements, and lies in the artifact."""
    if place.is_absolute() or ".." in place.parts:
        return False
    return any(str(place) == name or str(place).endswith(f"/{name}") for name in TELLING)


def read(path: Path, requirements: str) -> Contents:
    """Read the tar archive at ``path``; ``requirements`` is the file that says what it needs, empty to guess it."""
    found = Contents(packed=path.stat().st_size)
    telling: dict[str, str] = {}
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
            tells = name == str(PurePosixPath(requirements)) if requirements else _tells(place)
            wanted = name in ("REVISION", str(needs.FILE)) or migration or place.name == "apps.py" or tells
            if is_hook:
                found.hooks.append(place.name)
            if not wanted or member.size > TEXT_MOST:
                continue
            stream = tar.extractfile(member)
            text = stream.read().decode(errors="replace") if stream is not None else ""
            if name == "REVISION":
                found.revision = text.strip()[:64]
            elif name == str(needs.FILE):
                found.settings = needs.parse(text)
            elif migration:
                sources[name] = str(place.parent.parent), migration["package"], migration["name"]
                found.migrations[name] = text
            elif place.name == "apps.py":
                labels |= {str(place.parent): label} if (label := _label(text)) else {}
            else:
                telling[name] = text
    found.requirements_file = str(PurePosixPath(requirements)) if requirements else _guessed(telling)
    found.requirements = telling.get(found.requirements_file)
    found.migrations = {
        f"{labels.get(where, package)}.{name}": found.migrations[path]
        for path, (where, package, name) in sources.items()
    }
    return found
