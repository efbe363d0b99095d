"""Which environment variables a Django app's settings read, and what for: from the source, nothing is run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
# Files beside the settings that are for other machines.
ELSEWHERE = re.compile(r"(^|_)(local|dev|devel|development|test|tests|testing|ci)($|_)")
# Called without a default, these refuse to start where the variable is missing: django-environ's and decouple's.
STRICT = {"env", "config", "Env"}
# Methods of theirs that are for one kind each, and the name that they read when none is given.
NAMELESS = {("env", "db"): "DATABASE_URL", ("env", "cache"): "CACHE_URL", ("dj_database_url", "config"): "DATABASE_URL"}


@dataclass(frozen=True)
class Read:
    """A variable that is read: where, whether the app starts without it, and which setting it becomes."""

    name: str
    place: str
    required: bool
    setting: str


@dataclass
class Environment:
    """What the settings read and what they hold themselves."""

    reads: dict[str, Read] = field(default_factory=dict)
    # Settings that are assigned: their place, and the value as text where it is a plain one.
    assigned: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def of_setting(self, setting: str) -> list[str]:
        return [read.name for read in self.reads.values() if read.setting == setting]


def files(root: Path, module: str) -> list[Path]:
    """The file of the settings and what lies beside it: they import from there."""
    base = root.joinpath(*module.split("."))
    own = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    if not own.is_file():
        return []
    beside = sorted(path for path in own.parent.glob("*.py") if not ELSEWHERE.search(path.stem) and path != own)
    return [own, *beside]


def read(root: Path, module: str) -> Environment:
    found = Environment()
    for path in files(root, module):
        place = re.sub(r"[^\w./-]", "?", str(path.relative_to(root)))
        try:
            tree = ast.parse(path.read_text(errors="replace"))
        except SyntaxError as error:
            found.unreadable.append(f"{place}:{error.lineno or 1}")
            continue
        spared = {*_env_defaults(tree), *_conditional(tree)}
        for statement in tree.body:
            _look(statement, place, spared, found)
    return found


def _look(statement: ast.stmt, place: str, spared: set[str], found: Environment) -> None:
    """Add what a statement reads; none of ``spared`` has to be there."""
    for node in ast.walk(statement):
        setting = _target(node)
        if setting and isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            value = node.value
            text = str(value.value) if isinstance(value, ast.Constant) else None
            found.assigned.setdefault(setting, (f"{place}:{node.lineno}", text))
            for name, required, line in _variables(value):
                _add(found, Read(name, f"{place}:{line}", required and name not in spared, setting))
    for name, required, line in _variables(statement):
        _add(found, Read(name, f"{place}:{line}", required and name not in spared, ""))


def _add(found: Environment, read: Read) -> None:
    known = found.reads.get(read.name)
    if known is None:
        found.reads[read.name] = read
    elif read.setting and not known.setting:
        found.reads[read.name] = Read(read.name, known.place, known.required or read.required, read.setting)


def _target(node: ast.AST) -> str:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    for target in targets:
        if isinstance(target, ast.Subscript):
            target = target.value
        if isinstance(target, ast.Name) and target.id.isupper():
            return target.id
    return ""


def _variables(node: ast.AST) -> Iterator[tuple[str, bool, int]]:
    for part in ast.walk(node):
        if isinstance(part, ast.Subscript):
            name = _text(part.slice)
            if name and _dotted(part.value).endswith("environ"):
                yield name, True, part.lineno
        elif isinstance(part, ast.Call):
            yield from _called(part)


def _called(call: ast.Call) -> Iterator[tuple[str, bool, int]]:
    words = _dotted(call.func).split(".")
    if not call.args:
        if len(words) >= 2 and (words[-2], words[-1]) in NAMELESS:
            default = any(keyword.arg == "default" for keyword in call.keywords)
            yield NAMELESS[words[-2], words[-1]], words[-2] == "env" and not default, call.lineno
        return
    name = _text(call.args[0])
    if not name or words[-1] == "setdefault":
        return
    strict = words[0] in STRICT and words[-1] not in {"get", "getenv"}
    given = len(call.args) > 1 or any(keyword.arg == "default" for keyword in call.keywords)
    yield name, strict and not given, call.lineno


def _env_defaults(tree: ast.AST) -> Iterator[str]:
    """What ``environ.Env(DEBUG=(bool, False))`` gives a default."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _dotted(node.func).endswith("Env"):
            yield from (keyword.arg for keyword in node.keywords if keyword.arg)


def _conditional(tree: ast.AST) -> Iterator[str]:
    """What is read only where another variable says so, or this one itself: ``if os.environ.get("EMAIL_HOST"):``"""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and any(True for _ in _variables(node.test)):
            yield from (name for part in node.body for name, _, _ in _variables(part))


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and VARIABLE.fullmatch(node.value):
        return node.value
    return ""


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
