"""Migrations as they are written, without Django: enough of its operations, fields and models for slipway_lint.

What an expression would come to cannot be known without running it. It stands as `Unread`, which is its source, and
what depends on it the lint does not know either.
"""

from __future__ import annotations

import ast
import copy
import functools
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LINT = ROOT / "roles/release/files/inside/slipway_lint.py"

# What the operations take by position; others are known to the lint by their name alone.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "CreateModel": ("name", "fields", "options"),
    "DeleteModel": ("name",),
    "RenameModel": ("old_name", "new_name"),
    "AlterModelTable": ("name", "table"),
    "AlterModelOptions": ("name", "options"),
    "AlterOrderWithRespectTo": ("name", "order_with_respect_to"),
    "AlterUniqueTogether": ("name", "unique_together"),
    "AlterIndexTogether": ("name", "index_together"),
    "AddField": ("model_name", "name", "field"),
    "RemoveField": ("model_name", "name"),
    "RenameField": ("model_name", "old_name", "new_name"),
    "AlterField": ("model_name", "name", "field"),
    "AddIndex": ("model_name", "index"),
    "AddConstraint": ("model_name", "constraint"),
    "RunSQL": ("sql", "reverse_sql"),
    "RunPython": ("code", "reverse_code"),
    "SeparateDatabaseAndState": ("database_operations", "state_operations"),
}
TOGETHER = {"AlterUniqueTogether": "unique_together", "AlterIndexTogether": "index_together"}
REFERENCES = ("ForeignKey", "OneToOneField")
# What Django's fields are in the database, where their name does not say it, and how long unless they say so.
INTERNAL = {"EmailField": "CharField", "URLField": "CharField", "ImageField": "FileField"}
LENGTHS = {"EmailField": 254, "URLField": 200, "SlugField": 50, "FileField": 100, "ImageField": 100}


class Unread(str):
    """The source of what cannot be read as a value."""

    __slots__ = ()


class Noop:
    """RunPython.noop."""


class Function:
    """What a RunPython calls."""

    def __init__(self, name: str) -> None:
        self.__name__ = name


class Remote:
    """Where a relation points."""

    def __init__(self, model: str, through: object) -> None:
        self.model, self.through = model, through


class Field:
    """A field as a migration writes it down."""

    def __init__(self, kind: str, words: dict[str, Any]) -> None:
        self.kind, self.words = kind, words
        self.many_to_many = kind == "ManyToManyField"
        self.generated = kind == "GeneratedField"
        self.db_persist = words.get("db_persist", True) is not False
        self.null = words.get("null") is True
        self.primary_key = words.get("primary_key") is True
        self.unique = words.get("unique") is True or self.primary_key or kind == "OneToOneField"
        self.db_index = bool(words.get("db_index", kind in (*REFERENCES, "SlugField")))
        self.db_constraint = words.get("db_constraint", True) is not False
        self.db_column = words.get("db_column")
        relation = kind in REFERENCES or self.many_to_many
        through = type("Through", (), {})() if words.get("through") is not None else None
        self.remote_field = Remote(str(words.get("to", "")), through) if relation else None
        self.max_length = self._number("max_length", LENGTHS.get(kind))
        self.max_digits = self._number("max_digits", None)
        self.decimal_places = self._number("decimal_places", None)

    def _number(self, name: str, default: int | None) -> int | None:
        value = self.words.get(name, default)
        return value if isinstance(value, int) else default

    def has_db_default(self) -> bool:
        return "db_default" in self.words

    def get_internal_type(self) -> str:
        return INTERNAL.get(self.kind, self.kind)

    def deconstruct(self) -> tuple[str, str, list[Any], dict[str, Any]]:
        return "", self.kind, [], self.words


class Model:
    """A model as it stands between two migrations."""

    def __init__(self, fields: dict[str, Any], options: dict[str, Any]) -> None:
        self.fields, self.options = fields, options


class State:
    """All models, by app and lower-case name."""

    def __init__(self) -> None:
        self.models: dict[tuple[str, str], Model] = {}

    def clone(self) -> State:
        other = State()
        other.models = copy.deepcopy(self.models)
        return other


class Operation:
    """Every stand-in; its class has the name of Django's, by which the lint knows it."""

    noop = Noop
    sql: Any = ""

    def state_forwards(self, app: str, state: State) -> None:
        """What it makes of the models."""
        move = getattr(Moves, type(self).__name__, None)
        if move is not None:
            move(self, app, state.models)


class AlterTogetherOptionOperation(Operation):
    """Of AlterUniqueTogether and its sibling."""


class Moves:
    """What the operations do to the models, by name."""

    @staticmethod
    def CreateModel(op: Any, app: str, models: dict[tuple[str, str], Model]) -> None:
        models[app, op.name.lower()] = Model(dict(op.fields), dict(op.options))

    @staticmethod
    def DeleteModel(op: Any, app: str, models: dict[tuple[str, str], Model]) -> None:
        models.pop((app, op.name.lower()), None)

    @staticmethod
    def RenameModel(op: Any, app: str, models: dict[tuple[str, str], Model]) -> None:
        if model := models.pop((app, op.old_name.lower()), None):
            models[app, op.new_name.lower()] = model

    @staticmethod
    def _option(app: str, name: str, key: str, value: Any, models: dict[tuple[str, str], Model]) -> None:
        if model := models.get((app, name.lower())):
            model.options[key] = value

    @staticmethod
    def AlterModelTable(op: Any, app: str, models: dict[tuple[str, str], Model]) -> None:
        Moves._option(app, op.name, "db_table", op.table, models)

    @staticmethod
    def AlterModelOptions(op: Any, app: str, models: dict[tuple[str, str], Model]) -> None:
        for key, value in (op.options or {}).items():
            Moves._option(app, op.name, key, value, models)

    @staticmethod
    def AlterUniqueTogether(op: Any, app: str, models: dict[tuple[str, str], Model]) -> None:
        Moves._option(app, op.name, op.option_name, op.option_value, models)

    AlterIndexTogether = AlterUniqueTogether

    @staticmethod
    def AddField(op: Any, app: str, models: dict[tuple[str, str], Model]) -> None:
        if model := models.get((app, op.model_name.lower())):
            model.fields[op.name] = op.field

    AlterField = AddField

    @staticmethod
    def RemoveField(op: Any, app: str, models: dict[tuple[str, str], Model]) -> None:
        if model := models.get((app, op.model_name.lower())):
            model.fields.pop(op.name, None)

    @staticmethod
    def RenameField(op: Any, app: str, models: dict[tuple[str, str], Model]) -> None:
        model = models.get((app, op.model_name.lower()))
        if model is not None and op.old_name in model.fields:
            model.fields[op.new_name] = model.fields.pop(op.old_name)

    @staticmethod
    def SeparateDatabaseAndState(op: Any, app: str, models: dict[tuple[str, str], Model]) -> None:
        state = State()
        state.models = models
        for inner in op.state_operations:
            inner.state_forwards(app, state)


class Migration:
    """One file, read; ``problem`` says what of it could not be."""

    def __init__(self, name: str, source: str) -> None:
        self.app_label, _, self.name = name.partition(".")
        self.operations: list[Operation] = []
        self.dependencies: list[str] = []
        self.replaces: list[tuple[str, str]] = []
        self.atomic = True
        self.slipway: Any = None
        self.problem: str | None = None
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            self.problem = "is no Python that can be read here"
            return
        made = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Migration"), None)
        if made is None:
            self.problem = "holds no class Migration"
            return
        for line in made.body:
            if isinstance(line, ast.Assign) and len(line.targets) == 1 and isinstance(line.targets[0], ast.Name):
                self._take(line.targets[0].id, line.value)
            elif isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is not None:
                self._take(line.target.id, line.value)

    def _take(self, name: str, node: ast.expr) -> None:
        if name == "operations":
            if isinstance(node, (ast.List, ast.Tuple)):
                self.operations = operations(node)
            else:
                self.problem = "does not list its operations in one place"
        elif name in ("dependencies", "replaces"):
            pairs = [tuple(pair) for pair in value(node) if isinstance(pair, (tuple, list)) and len(pair) == 2]
            if name == "replaces":
                self.replaces = [(str(app), str(other)) for app, other in pairs]
            else:
                self.dependencies = [f"{app}.{other}" for app, other in pairs]
        elif name == "atomic":
            self.atomic = value(node) is not False
        elif name == "slipway":
            self.slipway = value(node)


def value(node: ast.expr) -> Any:
    """What an expression comes to, as far as that is written there."""
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return [value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {value(key): value(item) for key, item in zip(node.keys, node.values, strict=True) if key is not None}
    return Unread(ast.unparse(node))


def _called(node: ast.expr) -> str:
    """The last part of what is called."""
    if isinstance(node, ast.Call):
        node = node.func
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _field(node: ast.expr) -> Field:
    words = {word.arg: value(word.value) for word in node.keywords if word.arg} if isinstance(node, ast.Call) else {}
    kind = _called(node)
    if kind in (*REFERENCES, "ManyToManyField") and isinstance(node, ast.Call) and node.args:
        words.setdefault("to", value(node.args[0]))
    return Field(kind, words)


def _fields(node: ast.expr) -> list[tuple[str, Field]]:
    pairs = node.elts if isinstance(node, (ast.List, ast.Tuple)) else []
    return [(str(value(p.elts[0])), _field(p.elts[1])) for p in pairs if isinstance(p, ast.Tuple) and len(p.elts) == 2]


def operations(node: ast.expr) -> list[Operation]:
    """The operations of a list."""
    return [_operation(item) for item in node.elts] if isinstance(node, (ast.List, ast.Tuple)) else []


def _operation(node: ast.expr) -> Operation:
    kind = _called(node) or "An operation"
    order = OPERATIONS.get(kind, ())
    base = AlterTogetherOptionOperation if kind in TOGETHER else Operation
    made = type(kind, (base,), {})()
    given: dict[str, ast.expr] = {}
    if isinstance(node, ast.Call):
        given = {**dict(zip(order, node.args, strict=False)), **{k.arg: k.value for k in node.keywords if k.arg}}
    defaults: dict[str, Any] = dict.fromkeys(order, "")
    defaults |= {name: [] for name in ("fields", "database_operations", "state_operations") if name in order}
    read: dict[str, Any] = {name: _argument(kind, name, item) for name, item in given.items()}
    for name, known in {**defaults, **read}.items():
        setattr(made, name, known)
    if "options" in order and not isinstance(made.options, dict):
        made.options = {}
    if kind in ("AddField", "AlterField") and "field" not in given:
        made.field = Field("", {})
    if kind in TOGETHER:
        made.option_name = TOGETHER[kind]
        together = getattr(made, TOGETHER[kind])
        made.option_value = [] if isinstance(together, str) else together
    return made


def _argument(kind: str, name: str, node: ast.expr) -> Any:
    if name == "fields" and kind == "CreateModel":
        return _fields(node)
    if name == "field":
        return _field(node)
    if name in ("database_operations", "state_operations"):
        return operations(node)
    if name == "code":
        text = ast.unparse(node)
        return Noop if text.endswith("RunPython.noop") else Function(text.rpartition(".")[2][:80])
    return value(node)


@functools.cache
def lint() -> Any:
    """The module that hosts judge migrations with."""
    spec = importlib.util.spec_from_file_location("slipway_lint", LINT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def ordered(found: dict[str, Migration]) -> list[Migration]:
    """Those that others build on first, as far as they are here."""
    done: dict[str, Migration] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        if name in done or name in above or name not in found:
            return
        for other in found[name].dependencies:
            visit(other, (*above, name))
        done[name] = found[name]

    for name in sorted(found):
        visit(name, ())
    return list(done.values())


def judge(sources: dict[str, str]) -> list[dict[str, Any]]:
    """A raw record of each migration, as hosts make them; ``sources`` are by ``app.name``."""
    module = lint()
    found = {name: Migration(name, source) for name, source in sources.items()}
    replaced = {f"{app}.{other}" for item in found.values() for app, other in item.replaces}
    judging = module.Lint(State())
    raw = []
    for item in ordered({name: item for name, item in found.items() if name not in replaced}):
        try:
            record = judging.migration(item)
        except (AttributeError, TypeError, ValueError, KeyError, RecursionError):
            item.problem = item.problem or "is written in a way that cannot be judged here"
            record = _unknown(item)
        raw.append(_unknown(item) if item.problem and not record["mark"] else record)
    return raw


def _unknown(item: Migration) -> dict[str, Any]:
    finding = {"level": "unknown", "what": item.problem, "model": None}
    return {
        "name": f"{item.app_label}.{item.name}", "level": "unknown", "mark": None, "loses": False, "creates": [],
        "atomic": item.atomic, "replaces": [f"{app}.{other}" for app, other in item.replaces], "findings": [finding],
    }  # fmt: skip


def pending(records: Iterable[Any], applied: set[str]) -> list[Any]:
    """Those that a database with ``applied`` lacks; one that stands for some that are all there is not among them."""
    return [
        item
        for item in records
        if item.name not in applied and not (item.replaces and all(old in applied for old in item.replaces))
    ]
