"""Plans, applies and checks an app's migrations, or says what each of them does. Runs in the app's own Python, as the
app's user or as the one that builds, and asks nothing of the app but that it is Django.

    python slipway_migrations.py '{"mode": "describe" | "plan" | "migrate", …}'

Every line of its own begins with MARK and is a JSON object: {"event": …, …}. It ends with 0 whenever it could say how
it went, be that well ("checked") or badly ("failed", "busy", "refused").
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time
import traceback

MARK = "@slipway "
HOLDERS = """
SELECT a.application_name, coalesce(host(a.client_addr), 'the same host'), to_char(a.backend_start, 'HH24:MI:SS')
FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint << 32 | l.objid::bigint) = %s
"""


class Refused(Exception):
    """What was asked for cannot be done; nothing was."""


class Busy(Exception):
    """Another migration of this app is at work in the same database."""


def say(event, **words):
    """Tell releasectl; the app may have led sys.stdout elsewhere."""
    sys.stdout.flush()
    print(f"\n{MARK}{json.dumps({'event': event, **words})}", file=sys.__stdout__, flush=True)


def lint_module():
    """What lies beside this file. Afterwards modules are found as `python manage.py` finds them, and ours are not."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [here, *(place for place in sys.path if place != here)]
    import slipway_lint

    sys.path[0] = os.getcwd()
    return slipway_lint


def records(lint, loader):
    """A record of every migration on disk, by its name, in the order in which Django would apply them."""
    from django.db.migrations.state import ProjectState

    order = {}
    for leaf in sorted(loader.graph.leaf_nodes()):
        order.update(dict.fromkeys(loader.graph.forwards_plan(leaf)))
    judge = lint.Lint(ProjectState(real_apps=loader.unmigrated_apps))
    found = {}
    for node in order:
        record = judge.migration(loader.graph.nodes[node])
        found[record["name"]] = record
    for (app, name), migration in loader.disk_migrations.items():
        # Those that a squashed one stands for are not in the graph, and may be what a database has.
        found.setdefault(f"{app}.{name}", {
            "name": f"{app}.{name}", "level": lint.UNKNOWN, "mark": None, "loses": False,
            "atomic": bool(migration.atomic), "creates": [], "replaces": [], "findings": [],
        })  # fmt: skip
    return found


def describe(lint):
    """After what `manage.py` was asked for: what each migration on disk does. That it cannot be told fails nothing."""
    try:
        import django
        from django.apps import apps
        from django.db.migrations.loader import MigrationLoader
    except ImportError:
        say("described", migrations=[])
        return
    try:
        if not apps.ready:
            django.setup()
        say("described", migrations=list(records(lint, MigrationLoader(None)).values()))
    except Exception as error:
        say("described", migrations=None, error=one_line(error))


def collect(words):
    """`manage.py collectstatic` into $STATIC_ROOT, whatever STATIC_ROOT is by the app's settings: that is told."""
    sys.argv = ["manage.py", *words]
    try:
        import django
        from django.conf import settings
        from django.core.management import get_commands
    except ImportError:
        manage(words)
        return

    # Before any storage looks at it.
    root, settings.STATIC_ROOT = settings.STATIC_ROOT, os.environ.get("STATIC_ROOT", settings.STATIC_ROOT)
    django.setup()
    if "collectstatic" not in get_commands():
        say("static", collected=False, root=None)
        return
    manage(words)
    say("static", collected=True, root=None if root is None else str(root))


def manage(words):
    """Run the app's manage.py in this process, as if it had been called; what it exits with ends this program."""
    sys.argv = ["manage.py", *words]
    if not os.path.exists("manage.py"):
        from django.core.management import execute_from_command_line

        execute_from_command_line(sys.argv)
        return
    try:
        runpy.run_path("manage.py", run_name="__main__")
    except SystemExit as ended:
        if ended.code not in (None, 0):
            raise


def one_line(error):
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"[:300]


class Run:
    """One migration of the database behind the app's default connection."""

    def __init__(self, lint, asked):
        from django.db import connection
        from django.db.backends.signals import connection_created

        self.lint, self.asked = lint, asked
        self.connection = connection
        self.postgresql = connection.vendor == "postgresql"
        self.current = None
        self.guard = None
        connection_created.connect(self.limit, dispatch_uid="slipway")

    # Bounds and the lock

    def limit(self, connection, **_signal):
        """Bound each connection: an OPTIONS of the app's own would win over PGOPTIONS."""
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                for name in ("lock_timeout", "statement_timeout"):
                    cursor.execute(f"SET {name} = {int(self.asked[name]) * 1000}")

    def lock(self):
        """Hold the app's advisory lock, by a connection of its own, until this process ends."""
        if not self.postgresql:
            return
        self.guard = self.connection.copy()
        deadline = time.monotonic() + self.asked["lock_wait"]
        with self.guard.cursor() as cursor:
            cursor.execute("SELECT set_config('application_name', %s, false)", [self.asked["who"][:63]])
            while True:
                cursor.execute("SELECT pg_try_advisory_lock(%s)", [self.asked["lock_key"]])
                if cursor.fetchone()[0]:
                    return
                if time.monotonic() >= deadline:
                    cursor.execute(HOLDERS, [self.asked["lock_key"]])
                    raise Busy("; ".join(f"{who} from {where} since {at}" for who, where, at in cursor.fetchall()))
                time.sleep(0.3)

    # The plan

    def executor(self):
        from django.db.migrations.executor import MigrationExecutor

        return MigrationExecutor(self.connection)

    def targets(self, loader):
        from django.db.migrations.exceptions import AmbiguityError

        app, name = self.asked["app"], self.asked["migration"]
        if not app:
            return loader.graph.leaf_nodes()
        if app not in loader.migrated_apps:
            have = ", ".join(sorted(loader.migrated_apps))
            raise Refused(f"there is no app {app} with migrations; there are: {have}")
        if name == "zero":
            return [(app, None)]
        try:
            return [(app, loader.get_migration_by_prefix(app, name).name)]
        except (KeyError, AmbiguityError):
            have = ", ".join(sorted(name for label, name in loader.disk_migrations if label == app))
            raise Refused(f"there is no one migration {app}.{name}; there are: {have}") from None

    def plan(self):
        """What is to be done, as records with `backwards` and, where something is locked, with how many rows."""
        executor = self.executor()
        known = records(self.lint, executor.loader)
        planned = []
        for migration, backwards in executor.migration_plan(self.targets(executor.loader)):
            record = dict(known[f"{migration.app_label}.{migration.name}"], backwards=backwards)
            if backwards:
                gone = [op for op in migration.operations if type(op).__name__ in ("CreateModel", "AddField")]
                stuck = [type(op).__name__ for op in migration.operations if not op.reversible]
                what = "is taken back" + (": tables or columns are dropped" if gone else "")
                record.update(
                    findings=[{"level": "destructive" if gone else "incompatible", "what": what, "model": None}],
                    level="destructive" if gone else "incompatible", loses=bool(gone), stuck=stuck,
                )  # fmt: skip
            planned.append(record)
        self.count_rows(planned)
        applied = sorted(f"{app}.{name}" for app, name in executor.loader.applied_migrations)
        return planned, applied

    def count_rows(self, planned):
        """How big the tables are that a long lock is on, by the statistics of PostgreSQL."""
        found = [f for record in planned for f in record["findings"] if f["level"] == self.lint.LOCKS]
        if not (self.postgresql and found):
            return
        with self.connection.cursor() as cursor:
            for item in found:
                table = self.connection.ops.quote_name(item["table"]) if item.get("table") else ""
                cursor.execute("SELECT reltuples FROM pg_class WHERE oid = to_regclass(%s)", [table])
                row = cursor.fetchone()
                # Below zero: it was never counted.
                item["rows"] = int(row[0]) if row and row[0] >= 0 else None

    def applied(self):
        """What the database says is applied, asked anew: the connection may be broken by what went wrong."""
        from django.db.migrations.recorder import MigrationRecorder

        self.connection.close()
        return sorted(f"{app}.{name}" for app, name in MigrationRecorder(self.connection).applied_migrations())

    # Doing it

    def progress(self, original):
        """Tell of each migration as it begins and ends, and give it the time that it asked for."""

        def callback(action, migration=None, fake=False):
            word, _, step = action.partition("_")
            if word in ("apply", "unapply") and migration is not None:
                name = f"{migration.app_label}.{migration.name}"
                self.current = migration if step == "start" else None
                say(word, step=step, migration=name)
                seconds = getattr(migration, "slipway_statement_timeout", None)
                if self.postgresql and isinstance(seconds, int) and seconds >= 0:
                    limit = seconds if step == "start" else self.asked["statement_timeout"]
                    with self.connection.cursor() as cursor:
                        cursor.execute(f"SET statement_timeout = {int(limit) * 1000}")
            original(action, migration, fake)

        return callback

    def apply(self):
        """Call the app's own `migrate`."""
        from django.core.management import call_command, get_commands, load_command_class

        where = get_commands()["migrate"]
        command = load_command_class(where, "migrate") if isinstance(where, str) else where
        if hasattr(command, "migration_progress_callback"):
            command.migration_progress_callback = self.progress(command.migration_progress_callback)
        words = [self.asked["app"], self.asked["migration"]] if self.asked["app"] else []
        call_command(command, *words, interactive=False, no_color=True, skip_checks=False)

    def run(self):
        self.lock()
        planned, before = self.plan()
        say("plan", migrations=planned, applied=before)
        stuck = [record["name"] for record in planned if record.get("stuck")]
        if stuck:
            raise Refused(f"{', '.join(stuck)} cannot be taken back: an operation of it has no way back")
        if self.asked["mode"] == "plan":
            return
        harmful = any(self.lint.harms(r, self.asked["big"]) for r in planned)
        if self.held_for_point(planned) or (harmful and self.asked["allow"] != "any"):
            say("held")
            return
        self.apply()
        planned, after = self.plan()
        say("checked", left=[record["name"] for record in planned], applied=after)

    def held_for_point(self, planned):
        """Whether a restore point may have to be made first."""
        hold = self.asked.get("hold", "never")
        lossy = any(found["level"] == self.lint.DESTRUCTIVE for record in planned for found in record["findings"])
        return bool(planned) and (hold == "always" or (hold == "auto" and lossy))

    def failed(self, error):
        """What is known of a failure; the database is asked again, which may fail as well."""
        try:
            applied = self.applied()
        except Exception:
            applied = None
        current, ddl = self.current, self.connection.features.can_rollback_ddl
        kind = getattr(getattr(error, "__cause__", None), "sqlstate", None) or getattr(
            getattr(error, "__cause__", None), "pgcode", None
        )
        say(
            "failed",
            error=one_line(error),
            sqlstate=kind,
            migration=f"{current.app_label}.{current.name}" if current else None,
            rolled_back=bool(current.atomic and ddl) if current else None,
            applied=applied,
        )


def main(argument):
    asked = json.loads(argument)
    lint = lint_module()
    if asked["mode"] == "describe":
        collect(asked["manage"])
        describe(lint)
        return 0
    try:
        import django
    except ImportError:
        # No Django: all that is known of it is that it answers to `manage.py migrate`.
        manage(["migrate", "--noinput"])
        say("checked", left=[], applied=[])
        return 0
    django.setup()
    run = Run(lint, asked)
    try:
        run.run()
    except Busy as busy:
        say("busy", holders=str(busy)[:300])
    except Refused as refused:
        say("refused", error=str(refused)[:300])
    except BaseException as error:
        traceback.print_exc()
        run.failed(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
