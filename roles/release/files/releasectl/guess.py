"""What a Django app's code says about how it is built and run. It is read, and nothing of it is run or imported."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .errors import Refusal

IGNORED = {"node_modules", "__pycache__", "migrations", "tests", "test", "site-packages", "build", "dist", "docs"}
LOCKS = ("requirements.lock", "requirements.txt", "requirements/production.txt", "requirements/prod.txt")
# In this order, once none of the above has hashes: a lock of uv's, then what only lists.
LISTS = ("uv.lock", *LOCKS[1:], "requirements/base.txt", "pyproject.toml")
SETTINGS = re.compile(r"""DJANGO_SETTINGS_MODULE['"]\s*[,\]]\s*(?:=\s*)?['"]([A-Za-z_][\w.]*)['"]""")
CELERY = re.compile(r"^(\w+)\s*(?::\s*\w+\s*)?=\s*(?:celery\.)?Celery\(", re.MULTILINE)
APPLICATION = re.compile(r"^(?:application\s*=|(?:async\s+)?def application\()", re.MULTILINE)
PROJECT = re.compile(r"^\[project\]", re.MULTILINE)
# A path of its own that is about health, as urls.py or a middleware write it; the first of these is the best guess.
READY = ("readyz", "ready", "readiness", "health/ready", "healthz", "health", "healthcheck", "health-check",
         "health_check", "ht", "status", "ping", "up")  # fmt: skip
ALIVE = ("healthz", "livez", "live", "liveness", "health/live", "alive", "ping", "up")
# Bounds for what nobody has looked at yet: files that are read, and bytes of each.
FILES = 5000
BYTES = 512 * 1024

Sources = Mapping[Path, str]


class Found(NamedTuple):
    """A value, and where it is from."""

    value: str
    source: str


def projects(top: Path) -> list[Path]:
    """The directories that have a manage.py: ``top`` alone when it has one, otherwise those one or two below it."""
    if (top / "manage.py").is_file():
        return [top]
    return [
        path.parent
        for pattern in ("*/manage.py", "*/*/manage.py")
        for path in sorted(top.glob(pattern))
        if not IGNORED & set(path.relative_to(top).parts) and not path.parent.name.startswith(".")
    ]


def directory(top: Path) -> Found:
    """The project's directory in an artifact."""
    found = projects(top)
    if len(found) > 1:
        places = ", ".join(str(path.relative_to(top)) for path in found[:5])
        raise Refusal(f"The artifact has more than one manage.py, in {places}: set app_directory to the one to run.")
    if not found:
        return Found(".", "no manage.py below it")
    name = str(found[0].relative_to(top))
    return Found(name, "manage.py is there")


def python(root: Path) -> dict[Path, str]:
    """The project's own Python files, in a fixed order."""
    found: dict[Path, str] = {}
    for parent, names, files in os.walk(root):
        here = Path(parent)
        names[:] = sorted(
            name
            for name in names
            if name not in IGNORED and not name.startswith(".") and not (here / name / "pyvenv.cfg").is_file()
        )
        for name in sorted(files):
            path = here / name
            # A link out of it means something else on a host than in an image.
            here_alone = not path.is_symlink() or path.resolve().is_relative_to(root.resolve())
            if len(found) < FILES and name.endswith(".py") and here_alone and path.is_file():
                with path.open("rb") as stream:
                    found[path] = stream.read(BYTES).decode(errors="replace")
    return found


def python_path(root: Path, top: Path, settings_module: str) -> Found | None:
    """From where else than manage.py's directory it imports, seen from there: from ``src``, where packages lie in that,
    or from above, when its settings are named as those of a package that manage.py itself lies in.
    """
    src = root / "src"
    if src.is_dir() and not (src / "__init__.py").is_file() and any(src.glob("*/__init__.py")):
        return Found("src", "packages are there")
    below = (root / root.name).exists() or (root / f"{root.name}.py").exists()
    if root != top and not below and settings_module.partition(".")[0] == root.name:
        return Found("..", f"{settings_module} is seen from there")
    return None


def module(root: Path, path: Path, above: bool = False) -> str:
    """The name under which a file is imported, from ``above`` the project's directory where it is a package; what lies
    below ``src`` is imported from there.
    """
    base = root.parent if above else root
    parts = list(path.relative_to(base).with_suffix("").parts)
    if parts[0] == "src" and not (base / "src" / "__init__.py").is_file():
        parts = parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def settings(root: Path, sources: Sources) -> Found | None:
    """wsgi.py says what a server runs with; manage.py often what its author's machine does."""
    candidates = [path for path in sources if path.name in ("wsgi.py", "asgi.py")]
    for path in (*candidates, root / "manage.py"):
        text = sources.get(path)
        match = SETTINGS.search(text) if text else None
        if match:
            return Found(match[1], f"from {path.relative_to(root)}")
    return None


def application(root: Path, sources: Sources, kind: str, above: bool = False) -> Found | None:
    """The WSGI or ASGI application: ``kind`` is wsgi or asgi."""
    for path, text in sources.items():
        if path.name == f"{kind}.py" and APPLICATION.search(text):
            return Found(f"{module(root, path, above)}:application", f"from {path.relative_to(root)}")
    return None


def celery(root: Path, sources: Sources, above: bool = False) -> Found | None:
    """The Celery application."""
    for path, text in sources.items():
        match = CELERY.search(text)
        if match:
            name = module(root, path, above)
            # `celery --app shop` finds the one in shop/celery.py by itself.
            short = path.name == "celery.py" and match[1] in ("app", "celery") and path.parent != root
            return Found(name.rpartition(".")[0] if short else f"{name}:{match[1]}", f"from {path.relative_to(root)}")
    return None


def health(root: Path, sources: Sources, order: tuple[str, ...]) -> Found | None:
    """A path that is about health, by the words that people use for it."""
    words = "|".join(sorted({*READY, *ALIVE}, key=len, reverse=True))
    pattern = re.compile(rf"""['"]\^?(/?(?:[\w-]+/)*(?:{words})/?)\$?['"]""")
    found: dict[str, Found] = {}
    for path, text in sources.items():
        if not re.search(r"urls?\.py$|middleware|health", str(path.relative_to(root))):
            continue
        for match in pattern.finditer(text):
            place = f"{path.relative_to(root)}:{text.count(chr(10), 0, match.start()) + 1}"
            target = "/" + match[1].strip("/") + ("/" if match[1].endswith("/") else "")
            found.setdefault(match[1].strip("/"), Found(target, f"from {place}"))
    for word in order:
        hits = [entry for key, entry in found.items() if key == word or key.endswith(f"/{word}")]
        if hits:
            return hits[0]
    return None


def hashed(text: str) -> bool:
    """Whether each requirement has a hash: pip and uv refuse a file where one has and another has not."""
    logical = re.sub(r"\\\n", " ", text).splitlines()
    entries = [line for line in logical if re.match(r"\s*[A-Za-z0-9]", line)]
    return bool(entries) and all("--hash=sha256:" in entry for entry in entries)


def lists(path: Path) -> bool:
    """Whether it is a file of requirements; a pyproject.toml may be for tools alone."""
    return path.is_file() and (path.name != "pyproject.toml" or bool(PROJECT.search(path.read_text(errors="replace"))))


def requirements(root: Path, top: Path) -> Found | None:
    """The file that says what the app needs, relative to ``top``: beside manage.py or above it, with hashes first."""
    places = [place for place in (root, *root.parents) if place == top or place.is_relative_to(top)]
    for place in places:
        for name in LOCKS:
            path = place / name
            if path.is_file() and hashed(path.read_text(errors="replace")):
                return Found(str(path.relative_to(top)), "locked with hashes")
    for place in places:
        for name in LISTS:
            path = place / name
            if lists(path):
                said = "locked with hashes" if name == "uv.lock" else "it is there"
                return Found(str(path.relative_to(top)), said)
    return None
