"""What each migration of an app does to the release that still runs, and to the data. Runs in the app's own Python.

Django's operations are matched by the names of their classes, so that what an app subclasses is known as well, and what
it does not have installed need not be imported. What the levels mean is told in docs/ops/migrations.md.
"""

from __future__ import annotations

import re

COMPATIBLE, UNKNOWN, LOCKS, INCOMPATIBLE, DESTRUCTIVE = LEVELS = (
    "compatible", "unknown", "locks", "incompatible", "destructive",
)  # fmt: skip
MARKS = (COMPATIBLE, INCOMPATIBLE)

# What of a field no database sees.
PYTHON_ONLY = {
    "auto_now", "auto_now_add", "blank", "choices", "db_comment", "default", "editable", "error_messages", "help_text",
    "limit_choices_to", "on_delete", "path", "match", "recursive", "allow_files", "allow_folders", "protocol",
    "related_name", "related_query_name", "storage", "unpack_ipv4", "upload_to", "validators", "verbose_name",
    "height_field", "width_field", "encoder", "decoder", "unique_for_date", "unique_for_month", "unique_for_year",
    "serialize", "auto_created", "parent_link", "swappable", "symmetrical", "allow_unicode",
}  # fmt: skip
# Kinds of columns that PostgreSQL makes of Django's types; what is not here is a kind of its own.
KINDS = {
    **dict.fromkeys(("CharField", "SlugField", "FileField", "FilePathField"), "varchar"),
    **dict.fromkeys(("SmallIntegerField", "PositiveSmallIntegerField", "SmallAutoField"), "smallint"),
    **dict.fromkeys(("IntegerField", "PositiveIntegerField", "AutoField"), "integer"),
    **dict.fromkeys(("BigIntegerField", "PositiveBigIntegerField", "BigAutoField"), "bigint"),
    **dict.fromkeys(("ForeignKey", "OneToOneField"), "reference"),
}
WIDER = {("smallint", "integer"), ("smallint", "bigint"), ("integer", "bigint")}

# By the first that is found; the comments and the literals of a statement are taken out before.
SQL = [
    (re.compile(r"\bDROP\s+(TABLE|COLUMN|SCHEMA|MATERIALIZED)\b|\bTRUNCATE\b", re.I), DESTRUCTIVE, "drops or empties"),
    (re.compile(r"\bDELETE\s+FROM\b", re.I), DESTRUCTIVE, "deletes rows"),
    (re.compile(r"\bRENAME\s+(TO|COLUMN|\w+\s+TO)\b", re.I), INCOMPATIBLE, "renames"),
    (re.compile(r"\bSET\s+NOT\s+NULL\b|\bALTER\s+(COLUMN\s+)?\S+\s+(SET\s+DATA\s+)?TYPE\b", re.I), INCOMPATIBLE,
     "makes a column NOT NULL or of another type"),
    (re.compile(r"\bCREATE\s+(UNIQUE\s+)?INDEX\b(?!\s+CONCURRENTLY)|\bVACUUM\s+FULL\b|\bCLUSTER\b", re.I), LOCKS,
     "locks a table while it works"),
]  # fmt: skip
NOT_READ = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.S)


def worst(levels):
    """The worst of some levels; of none, compatible."""
    return max(levels, key=LEVELS.index, default=COMPATIBLE)


def harms(record, big):
    """Whether the release that still runs would feel it: ``big`` is from how many rows on a long lock counts."""
    if record["level"] != LOCKS:
        return record["level"] in (INCOMPATIBLE, DESTRUCTIVE)
    return any((found.get("rows") or 0) >= big for found in record["findings"] if found["level"] == LOCKS)


class Lint:
    """Goes through migrations in the order in which Django applies them, with the models as they are before each."""

    def __init__(self, state):
        self.state = state
        self.found = []
        self.created = set()

    def migration(self, migration):
        """The record of one migration; the state is then as after it."""
        self.found, self.created = [], set()
        for operation in migration.operations:
            self.operation(migration.app_label, operation, self.state)
            operation.state_forwards(migration.app_label, self.state)
        found = [item for item in self.found if item["model"] not in self.created]
        mark = getattr(migration, "slipway", None)
        level = mark if mark in MARKS else worst(item["level"] for item in found)
        return {
            "name": f"{migration.app_label}.{migration.name}",
            "level": level,
            "mark": mark if mark in MARKS else None,
            "loses": any(item["level"] == DESTRUCTIVE for item in found),
            "atomic": bool(migration.atomic),
            "creates": sorted(self.created),
            "replaces": [f"{app}.{name}" for app, name in migration.replaces],
            "findings": found,
        }

    def note(self, level, what, model=None, state=None):
        table = None
        if model is not None:
            known = (state or self.state).models.get(tuple(model.split(".", 1)))
            if known is not None:
                table = known.options.get("db_table") or model.replace(".", "_")
        if level != COMPATIBLE:
            self.found.append({"level": level, "what": what, "model": model, "table": table})

    def operation(self, app, operation, state):
        """Look at one operation: by the first of its class's ancestors that is known here."""
        for ancestor in type(operation).__mro__:
            look = getattr(self, f"on_{ancestor.__name__}", None)
            if look is not None:
                try:
                    look(app, operation, state)
                except Exception as error:
                    # What fields of an app's own answer is theirs; what cannot be told stops no deploy.
                    what = f"{type(operation).__name__} cannot be judged ({type(error).__name__}: {error})"
                    self.note(UNKNOWN, what)
                return
            if ancestor.__name__ in HARMLESS:
                return
        self.note(UNKNOWN, f"{type(operation).__name__} is not known to the lint")

    def managed(self, app, model, state):
        """Whether Django keeps the table of that model."""
        known = state.models.get((app, model.lower()))
        return known is None or (known.options.get("managed", True) and not known.options.get("proxy", False))

    # Tables

    def on_CreateModel(self, app, operation, _state):
        self.created.add(f"{app}.{operation.name.lower()}")

    def on_DeleteModel(self, app, operation, state):
        if self.managed(app, operation.name, state):
            self.note(DESTRUCTIVE, f"drops the table of {operation.name}", key(app, operation.name), state)

    def on_RenameModel(self, app, operation, state):
        old, new = key(app, operation.old_name), key(app, operation.new_name)
        if old in self.created:
            self.created.add(new)
        known = state.models.get((app, operation.old_name.lower()))
        if known is not None and known.options.get("db_table"):
            return
        if self.managed(app, operation.old_name, state):
            self.note(INCOMPATIBLE, f"renames the table of {operation.old_name} to {operation.new_name}", old, state)

    def on_AlterModelTable(self, app, operation, state):
        known = state.models.get((app, operation.name.lower()))
        if known is not None and known.options.get("db_table") == operation.table:
            return
        if self.managed(app, operation.name, state):
            self.note(INCOMPATIBLE, f"renames the table of {operation.name}", key(app, operation.name), state)

    def on_AlterOrderWithRespectTo(self, app, operation, state):
        level, what = (
            (INCOMPATIBLE, "adds the column _order, NOT NULL and without a default")
            if operation.order_with_respect_to
            else (DESTRUCTIVE, "drops the column _order")
        )
        self.note(level, f"{what}, of {operation.name}", key(app, operation.name), state)

    # Columns

    def on_AddField(self, app, operation, state):
        field, model = operation.field, key(app, operation.model_name)
        name = f"{operation.model_name}.{operation.name}"
        if field.many_to_many or not self.managed(app, operation.model_name, state):
            return
        if getattr(field, "generated", False):
            if getattr(field, "db_persist", True):
                self.note(LOCKS, f"computes {name} for every row", model, state)
            return
        if not field.null and not has_db_default(field):
            self.note(
                INCOMPATIBLE,
                f"adds {name}, NOT NULL without a default in the database: what the running release inserts is refused",
                model,
                state,
            )
        if field.unique or field.db_index or references(field):
            self.note(LOCKS, f"adds {name} with an index or a constraint", model, state)

    def on_RemoveField(self, app, operation, state):
        model = key(app, operation.model_name)
        field = field_of(state, app, operation.model_name, operation.name)
        if not self.managed(app, operation.model_name, state):
            return
        if field is not None and field.many_to_many and made_by_hand(field):
            return
        name = f"{operation.model_name}.{operation.name}"
        if field is not None and getattr(field, "generated", False):
            self.note(INCOMPATIBLE, f"drops {name}, which is computed", model, state)
        else:
            self.note(DESTRUCTIVE, f"drops {name}", model, state)

    def on_RenameField(self, app, operation, state):
        field = field_of(state, app, operation.model_name, operation.old_name)
        if not self.managed(app, operation.model_name, state) or (field is not None and field.db_column):
            return
        name = f"{operation.model_name}.{operation.old_name}"
        self.note(INCOMPATIBLE, f"renames {name} to {operation.new_name}", key(app, operation.model_name), state)

    def on_AlterField(self, app, operation, state):
        model = key(app, operation.model_name)
        old, new = field_of(state, app, operation.model_name, operation.name), operation.field
        if not self.managed(app, operation.model_name, state):
            return
        name = f"{operation.model_name}.{operation.name}"
        if old is None:
            self.note(UNKNOWN, f"alters {name}, of which nothing is known", model, state)
            return
        if not (old.many_to_many or new.many_to_many):
            for level, what in changes(old, new):
                self.note(level, f"{what} {name}", model, state)

    # Indexes and constraints

    def on_AddIndex(self, app, operation, state):
        model = key(app, operation.model_name)
        self.note(LOCKS, f"builds an index of {operation.model_name}: nobody can write meanwhile", model, state)

    def on_AddConstraint(self, app, operation, state):
        what = f"adds a constraint to {operation.model_name}: all rows are read under a lock, and the running release"
        self.note(LOCKS, f"{what} may not keep to it", key(app, operation.model_name), state)

    def on_AlterTogetherOptionOperation(self, app, operation, state):
        model = state.models.get((app, operation.name.lower()))
        before = set(model.options.get(operation.option_name) or ()) if model is not None else set()
        if set(map(tuple, operation.option_value or ())) - set(map(tuple, before)):
            self.note(LOCKS, f"builds an index of {operation.name}", key(app, operation.name), state)

    # What is written by hand

    def on_RunSQL(self, _app, operation, _state):
        text = sql_text(operation.sql)
        if not text.strip():
            return
        for pattern, level, what in SQL:
            if pattern.search(text):
                self.note(level, f"RunSQL {what}")
                return
        self.note(UNKNOWN, "RunSQL is not judged")

    def on_RunPython(self, _app, operation, _state):
        if operation.code is not type(operation).noop:
            name = getattr(operation.code, "__name__", "a function")
            self.note(UNKNOWN, f"RunPython ({name}) is not judged")

    def on_SeparateDatabaseAndState(self, app, operation, state):
        mine = state.clone() if operation.database_operations else state
        for inner in operation.database_operations:
            self.operation(app, inner, mine)
            inner.state_forwards(app, mine)


HARMLESS = {
    "AddConstraintNotValid", "AddIndexConcurrently", "AlterConstraint", "AlterModelManagers", "AlterModelOptions",
    "AlterModelTableComment", "CreateCollation", "CreateExtension", "RemoveCollation", "RemoveConstraint",
    "RemoveIndex", "RemoveIndexConcurrently", "RenameIndex", "ValidateConstraint",
}  # fmt: skip


def key(app, model):
    return f"{app}.{model.lower()}"


def field_of(state, app, model, name):
    known = state.models.get((app, model.lower()))
    return None if known is None else dict(known.fields).get(name)


def has_db_default(field):
    """Whether the database itself knows a default (Django 5.0 and later)."""
    return bool(field.has_db_default()) if hasattr(field, "has_db_default") else _given(field)


def _given(field):
    default = getattr(field, "db_default", None)
    return default is not None and getattr(default, "__name__", "") != "NOT_PROVIDED"


def references(field):
    return bool(field.remote_field) and getattr(field, "db_constraint", False)


def made_by_hand(field):
    """Whether a many-to-many field goes through a model of its own, whose table is not this field's."""
    through = getattr(field.remote_field, "through", None)
    return through is not None and not getattr(getattr(through, "_meta", None), "auto_created", False)


def sql_text(sql):
    """All statements of a RunSQL, without what is not executed."""
    parts = [sql] if isinstance(sql, str) else [part[0] if isinstance(part, (list, tuple)) else part for part in sql]
    return NOT_READ.sub(" ", ";\n".join(str(part) for part in parts))


def changes(old, new):
    """What altering a field means, as (level, words)."""
    _, old_path, old_args, before = old.deconstruct()
    _, new_path, new_args, after = new.deconstruct()
    differ = {n for n in {**before, **after} if n not in PYTHON_ONLY and before.get(n) != after.get(n)}
    if old.db_column != new.db_column:
        yield INCOMPATIBLE, "renames the column of"
    if old.null and not new.null:
        yield INCOMPATIBLE, "makes NOT NULL, which the running release may not keep to,"
    if has_db_default(old) and not has_db_default(new) and not new.null:
        yield INCOMPATIBLE, "takes the database's default from"
    if not old.unique and new.unique:
        yield LOCKS, "makes unique, which the running release may not keep to,"
    elif not old.db_index and new.db_index and not old.unique:
        yield LOCKS, "builds an index of"
    if before.get("db_collation") != after.get("db_collation"):
        yield LOCKS, "changes the collation of"
    yield from type_changes(old, new)
    known = {
        "db_column", "null", "db_default", "unique", "db_index", "db_collation", "primary_key", "max_length", "to",
        "max_digits", "decimal_places", "db_constraint", "db_tablespace", "to_field",
    }  # fmt: skip
    if old_path == new_path and (differ - known or old_args != new_args):
        yield UNKNOWN, f"changes {', '.join(sorted(differ - known)) or 'the type'} of"


def type_changes(old, new):
    """What becomes of the column's type."""
    was, now = (KINDS.get(field.get_internal_type(), field.get_internal_type()) for field in (old, new))
    if was == now == "varchar":
        least = _length(new)
        if least is not None and (_length(old) is None or least < _length(old)):
            yield INCOMPATIBLE, "makes shorter"
    elif was == now == "reference":
        if _target(old) != _target(new):
            yield INCOMPATIBLE, "points elsewhere with"
        elif not references(old) and references(new):
            yield LOCKS, "adds a constraint to"
    elif was == now == "DecimalField":
        if old.decimal_places != new.decimal_places or (new.max_digits or 0) < (old.max_digits or 0):
            yield INCOMPATIBLE, "makes of another precision"
    elif was == now:
        if "Positive" in new.get_internal_type() and "Positive" not in old.get_internal_type():
            yield LOCKS, "refuses negative values, which the running release may not keep to, in"
    elif (was, now) in WIDER:
        yield LOCKS, "rewrites the table to widen"
    elif (was, now) != ("varchar", "TextField"):
        yield INCOMPATIBLE, "changes the type of"


def _length(field):
    """A column's length; Django takes digits as well, and hands them to the database as they are."""
    return None if field.max_length is None else int(field.max_length)


def _target(field):
    to = field.remote_field.model
    return (to if isinstance(to, str) else to._meta.label).lower()
