"""Migrating as `releasectl migrate` does it: the real program, a real Django and a database that is a file."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from releasectl import build, crossing, migrate, migrations
from releasectl.errors import CommandFailed, Refusal, UsageError
from releasectl.migrate import Migration
from releasectl.migrations import Finding, Record, Schema
from releasectl.points import Point, Points

INSIDE = Path(__file__).resolve().parents[3] / "roles/release/files/inside"
SETTINGS = """
import os
SECRET_KEY = "x"
INSTALLED_APPS = ["shop"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}}
"""
FIRST = "M.CreateModel('Book', [('id', models.AutoField(primary_key=True)), ('isbn', models.TextField(null=True))])"
NULLABLE = "M.AddField('Book', 'pages', models.IntegerField(null=True))"
RENAMES = "M.RenameField('Book', 'isbn', 'code')"
DROPS = "M.RemoveField('Book', 'pages')"
FAILS = "M.RunSQL('SELECT * FROM nowhere')"


class Shop:
    """A host whose releases hold nothing but migrations; those are applied to one database."""

    def __init__(self, config, tmp_path, zygote, monkeypatch):
        self.config, self.database, self.zygote = config, tmp_path / "db.sqlite3", zygote
        self.lines: list[str] = []
        self.starts = 0
        self.kill_after = ""
        monkeypatch.setattr(migrate, "inside", lambda _config: str(INSIDE / "slipway_migrations.py"))
        for module in (migrate, build):
            monkeypatch.setattr(module, "sandboxed", self.sandboxed)

    def sandboxed(self, _unit, argv, properties, environment, _timeout, what, heard):
        """As the unit does, without the unit; ``kill_after`` a line, as the time limit would."""
        self.starts += 1
        cwd = next(item.partition("=")[2] for item in properties if item.startswith("WorkingDirectory="))
        environment = {**environment, "DATABASE": str(self.database), "DJANGO_SETTINGS_MODULE": "settings"}
        said, status = [], 0
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.zygote)
            asked = {"argv": list(argv[1:]), "cwd": cwd, "env": environment}
            connection.sendall(json.dumps(asked).encode() + b"\n")
            stream = connection.makefile(errors="replace")
            pid = int(stream.readline())
            for line in stream:
                if line.startswith("@exit "):
                    status = int(line.split()[1])
                    break
                said.append(line)
                heard(line)
                if self.kill_after and self.kill_after in line:
                    os.kill(pid, signal.SIGKILL)
        if status:
            raise CommandFailed(f"{what} failed: {said[-1].strip()}", journal=said[-20:])
        return "".join(said)

    def release(self, name, number, **given):
        """A prepared release with these migrations, by name: their operations, and attributes of the class."""
        directory = self.config.release_dir(name)
        shop = directory / "src" / "shop"
        (shop / "migrations").mkdir(parents=True)
        for path in (shop, shop / "migrations"):
            (path / "__init__.py").touch()
        (directory / "src" / "settings.py").write_text(SETTINGS)
        (directory / "src" / "manage.py").write_text("print('collected')")
        before = None
        for migration, (operations, *more) in given.items():
            text = "from django.db import migrations, models\nM = migrations\nclass Migration(M.Migration):\n"
            text += f"    dependencies = {[('shop', before)] if before else []}\n    operations = [{operations}]\n"
            (shop / "migrations" / f"{migration}.py").write_text(text + "".join(f"    {line}\n" for line in more))
            before = migration
        record = {
            "id": name, "sha256": "0" * 64, "prepared_at": f"2026-01-01T00:00:{number:02}Z", "prepared_by": "test",
            "entries": 1, "bytes": 1, "revision": None,
        }  # fmt: skip
        (directory / "release.json").write_text(json.dumps(record))
        said = []
        argv = ["python", str(INSIDE / "slipway_migrations.py"), json.dumps({"mode": "describe", "manage": []})]
        where = {"RELEASE_ID": name, "PATH": os.environ["PATH"]}
        self.sandboxed("", argv, [f"WorkingDirectory={directory / 'src'}"], where, 9, "Describing", said.append)
        migrations.keep(directory, migrate.described(said))

    def migrate(self, release, live="a", **asked):
        words = {
            "maintenance": "never", "serving": False, "app": None, "migration": None, "plan": False,
            "restore_point": "never", **asked,
        }  # fmt: skip
        self.starts = 0
        return Migration(self.config, release, live, self.lines.append).run(words, Path("/dev/null"))

    def recorded(self):
        return list(Schema(self.config.state).read())


@pytest.fixture(scope="module")
def zygote(django, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("zygote") / "socket")
    program = str(Path(__file__).with_name("zygote.py"))
    with subprocess.Popen([django, program, path], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield path
        process.kill()


@pytest.fixture
def shop(config, tmp_path, zygote, monkeypatch):
    made = Shop(config, tmp_path, zygote, monkeypatch)
    made.release("a", 1, m1=(FIRST,))
    made.migrate("a", live=None)
    return made


def test_what_is_harmless_is_applied_by_one_start_of_the_app(shop):
    shop.release("b", 2, m1=(FIRST,), m2=(NULLABLE,))
    answer = shop.migrate("b")
    assert (answer["changed"], answer["applied"], answer["plan"]) == (True, ["shop.m2"], ["shop.m2"])
    assert answer["message"] == "1 migrations applied: shop.m2."
    assert shop.starts == 1
    assert shop.lines[-2:] == ["planned: shop.m2", "applying shop.m2"]
    again = shop.migrate("b")
    assert (again["changed"], again["message"]) == (False, "No migrations to apply.")
    assert shop.recorded() == ["shop.m1", "shop.m2"]


def test_what_breaks_the_release_that_runs_is_refused_before_anything_is_applied(shop):
    shop.release("b", 2, m1=(FIRST,), m2=(NULLABLE,), m3=(RENAMES,))
    with pytest.raises(
        Refusal, match=r"Nothing was migrated: a would break by shop\.m3 \(renames Book\.isbn to code\)"
    ):
        shop.migrate("b")
    assert shop.recorded() == ["shop.m1"]
    assert shop.migrate("b", plan=True)["plan"] == ["shop.m2", "shop.m3"], "not even the first was applied"


def test_or_the_site_is_to_be_closed_first(shop):
    shop.release("b", 2, m1=(FIRST,), m2=(RENAMES,))
    held = shop.migrate("b", maintenance="auto")
    assert (held["needs_maintenance"], held["changed"]) == (True, False)
    assert "renames Book.isbn" in held["because"]
    done = shop.migrate("b", maintenance="closed")
    assert done["applied"] == ["shop.m2"]
    assert done["findings"] == [
        {"migration": "shop.m2", "level": "incompatible", "what": "renames Book.isbn to code"}
    ]  # fmt: skip


def test_always_asks_for_it_without_asking_the_app(shop):
    shop.release("b", 2, m1=(FIRST,))
    assert shop.migrate("b", maintenance="always")["needs_maintenance"]
    assert shop.starts == 0
    assert not shop.migrate("b", live=None, maintenance="always")["needs_maintenance"], "there is nobody to turn away"


def test_nothing_that_runs_is_broken_where_nothing_runs_here_or_elsewhere(shop):
    shop.release("b", 2, m1=(FIRST,), m2=(RENAMES,))
    with pytest.raises(Refusal, match="the release that runs would break"):
        shop.migrate("b", live=None, serving=True)
    assert shop.migrate("b", live=None)["changed"]


def test_what_is_done_to_a_table_that_is_new_as_well_breaks_nothing(shop):
    create = "M.CreateModel('Tag', [('id', models.AutoField(primary_key=True)), ('a', models.IntegerField())])"
    shop.release("b", 2, m1=(FIRST,), m2=(create,), m3=("M.RemoveField('Tag', 'a')",))
    assert shop.migrate("b")["applied"] == ["shop.m2", "shop.m3"]


@pytest.mark.failure("migration-fails")
@pytest.mark.parametrize(
    ("attribute", "state"),
    [("atomic = True", "rolled back by the database"), ("atomic = False", "not atomic, so it may be half applied")],
)
def test_a_failure_says_what_is_applied_and_that_the_old_one_serves(shop, attribute, state):
    shop.release("b", 2, m1=(FIRST,), m2=(NULLABLE,), m3=(FAILS, attribute), m4=(DROPS,))
    with pytest.raises(Refusal) as refusal:
        shop.migrate("b", maintenance="closed")
    assert refusal.value.message == (
        "Migrating with b failed. Applied: shop.m2. Failed: shop.m3"
        f" (OperationalError: no such table: nowhere): {state}. a still serves."
    )
    assert refusal.value.details["applied"] == ["shop.m2"]
    assert "no such table" in refusal.value.details["journal"][-1]
    assert shop.recorded() == ["shop.m1", "shop.m2"]


def test_what_loses_data_waits_for_a_restore_point(shop, monkeypatch):
    seen = []

    def make(_self, release, _path):
        seen.append((release, shop.recorded()))
        return Point("x.dump", 1, "0" * 64, 0.1, False)

    monkeypatch.setattr(Points, "make", make)
    shop.release("b", 2, m1=(FIRST,), m2=(NULLABLE,), m3=("migrations.DeleteModel('Book')", "slipway = 'compatible'"))
    done = shop.migrate("b", restore_point="auto")
    assert (done["applied"], done["restore_point"]["name"]) == (["shop.m2", "shop.m3"], "x.dump")
    assert seen == [("b", ["shop.m1"])], "before anything was applied"
    assert "restore_point" not in shop.migrate("b", restore_point="always"), "there was nothing to apply"
    assert len(seen) == 1


@pytest.mark.failure("migration-hangs")
def test_one_that_is_cut_off_says_what_was_applied_by_then(shop):
    shop.release("b", 2, m1=(FIRST,), m2=(NULLABLE,), m3=("M.RunPython(lambda *_: __import__('time').sleep(30))",))
    shop.kill_after = '"start", "migration": "shop.m3"'
    with pytest.raises(Refusal, match=r"Applied: shop\.m2\. Failed: shop\.m3 .*cut off"):
        shop.migrate("b")
    assert shop.recorded() == ["shop.m1", "shop.m2"]


def test_one_app_to_a_named_migration_and_back(shop):
    shop.release("b", 2, m1=(FIRST,), m2=(NULLABLE,), m3=(RENAMES,))
    assert shop.migrate("b", app="shop", migration="m2")["applied"] == ["shop.m2"]
    assert shop.migrate("b", app="shop", migration="m3")["applied"] == ["shop.m3"]
    planned = shop.migrate("b", app="shop", migration="m1", plan=True)
    assert planned["message"].startswith("2 migrations would be taken back: shop.m3, shop.m2.")
    assert not planned["changed"]
    assert shop.recorded() == ["shop.m1", "shop.m2", "shop.m3"]
    back = shop.migrate("b", app="shop", migration="m1")
    assert back["message"].startswith("2 migrations taken back: shop.m3, shop.m2.")
    assert shop.recorded() == ["shop.m1"]


@pytest.mark.parametrize(
    ("app", "migration", "why"),
    [("shop", "m9", r"there is no one migration shop\.m9; there are: m1, m2"), ("stop", "m1", "there is no app stop")],
)
def test_what_is_not_there_is_named(shop, app, migration, why):
    shop.release("b", 2, m1=(FIRST,), m2=("M.RunSQL('SELECT 1')",))
    with pytest.raises(Refusal, match=f"Nothing was migrated: {why}"):
        shop.migrate("b", app=app, migration=migration)


def test_what_has_no_way_back_is_said_before_anything_is_taken_back(shop):
    shop.release("b", 2, m1=(FIRST,), m2=("M.RunSQL('SELECT 1')",), m3=(NULLABLE,))
    shop.migrate("b")
    with pytest.raises(Refusal, match=r"Nothing was migrated: shop\.m2 cannot be taken back"):
        shop.migrate("b", app="shop", migration="m1")
    assert shop.recorded() == ["shop.m1", "shop.m2", "shop.m3"]


def test_an_app_goes_with_a_migration(shop):
    with pytest.raises(UsageError, match="go together"):
        shop.migrate("a", app="shop")


# A rollback, by what was recorded alone


def test_a_rollback_says_what_lies_between(shop):
    shop.release("b", 2, m1=(FIRST,), m2=(NULLABLE,))
    shop.migrate("b")
    said, breaking = crossing.check(shop.config, "b", "a", accept=False)
    assert (said, breaking) == ("1 migrations lie between and stay applied: shop.m2.", [])
    assert crossing.check(shop.config, "a", "b", accept=False)[0] == "no migration lies between."


def test_one_across_what_the_older_release_cannot_live_with_is_refused_unless_that_is_accepted(shop):
    shop.release("b", 2, m1=(FIRST,), m2=(NULLABLE,), m3=(RENAMES,))
    shop.migrate("b", maintenance="closed")
    with pytest.raises(Refusal, match=r"a does not work with .*shop\.m3 \(renames.*docs/ops/restore\.md") as refusal:
        crossing.check(shop.config, "b", "a", accept=False)
    assert refusal.value.details["between"] == ["shop.m2", "shop.m3"]
    said, breaking = crossing.check(shop.config, "b", "a", accept=True)
    assert breaking == ["shop.m3"]
    assert "a may not work with them" in said


def test_the_mark_of_the_app_wins(shop):
    shop.release("b", 2, m1=(FIRST,), m2=(NULLABLE, "slipway = 'incompatible'"))
    shop.release("c", 3, m1=(FIRST,), m2=(NULLABLE, "slipway = 'incompatible'"), m3=(RENAMES, "slipway = 'compatible'"))
    with pytest.raises(Refusal, match=r"shop\.m2 \(marked incompatible\)"):
        shop.migrate("c")
    shop.migrate("b", maintenance="closed")
    assert shop.migrate("c", live="b")["applied"] == ["shop.m3"]
    assert crossing.check(shop.config, "c", "b", accept=False)[1] == []
    with pytest.raises(Refusal, match="marked incompatible"):
        crossing.check(shop.config, "c", "a", accept=False)


def test_what_a_release_left_that_was_never_live_or_is_gone_counts_as_well(shop):
    shop.release("b", 2, m1=(FIRST,), m2=(NULLABLE,))
    shop.release("c", 3, m1=(FIRST,), m2=(NULLABLE,), m3=(RENAMES,))
    crossing.record(shop.config, "c", ["shop.m3"])
    assert {item.name for item in crossing.between(shop.config, "b", "a")} == {"shop.m2", "shop.m3"}
    with pytest.raises(Refusal, match=r"shop\.m3"):
        crossing.check(shop.config, "b", "a", accept=False)


def test_where_nothing_was_recorded_that_is_said(shop, config):
    (config.release_dir("a") / "migrations.json").unlink()
    assert crossing.check(config, "b", "a", accept=False) == (
        "which migrations lie between is not recorded; none is undone.",
        [],
    )


# What is read is not believed


GOOD = {"name": "a.m1", "level": "locks", "findings": [{"level": "locks", "what": "x", "model": "a.b", "rows": 5}]}


def test_a_record_is_read_back_as_it_was_kept(tmp_path):
    record = Record("a.m2", "locks", None, True, False, False, ("a.b",), ("a.m1",), (Finding("locks", "x", "a.b", 5),))
    migrations.keep(tmp_path, [record])
    assert migrations.of_release(tmp_path) == {"a.m2": record}
    migrations.keep(tmp_path, None)
    assert migrations.of_release(tmp_path) is None


@pytest.mark.parametrize(
    "wrong",
    [
        None, [], "x", {}, {**GOOD, "name": "m1"}, {**GOOD, "name": "a.m\n"}, {**GOOD, "name": "../a.m"},
        {**GOOD, "level": "fine"},
        {**GOOD, "mark": "x"}, {**GOOD, "atomic": 1}, {**GOOD, "findings": {}}, {**GOOD, "findings": [1]},
        {**GOOD, "findings": [{"level": "locks", "what": 1}]}, {**GOOD, "replaces": ["x"]}, {**GOOD, "creates": [1]},
        {**GOOD, "findings": [{"level": "locks", "what": "x", "rows": True}]}, {**GOOD, "name": "a." + "x" * 300},
    ],
)  # fmt: skip
def test_a_record_that_is_none_is_refused(wrong):
    migrations.record(GOOD)
    with pytest.raises(migrations.Malformed):
        migrations.record(wrong)


def test_words_are_printable_and_bounded():
    found = migrations.record({**GOOD, "findings": [{"level": "locks", "what": "x\x1b[31m" + "y" * 9000}] * 900})
    assert len(found.findings) == migrations.FINDINGS
    assert found.findings[0].what.isprintable()
    assert len(found.findings[0].what) <= migrations.TEXT


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"event": "plan"}', '{"event": "plan", "migrations": [1], "applied": []}', '{"event": 5}', "[" * 9999,
     '{"event": "apply", "step": "start", "migration": "\\u001b"}', '{"event": "_step"}'],
)  # fmt: skip
def test_an_event_that_is_none_is_noted_and_changes_nothing(line):
    report = migrate.Report()
    report.hear(migrate.MARK + line)
    assert not report.planned
    assert report.begun is None
    assert report.malformed or json.loads(line) == {"event": "_step"} or json.loads(line) == {"event": 5}


def test_a_long_lock_counts_from_so_many_rows_on():
    locks = [Record("a.m1", "locks", findings=(Finding("locks", "x", "a.b", rows),)) for rows in (None, 5, 50)]
    assert [migrations.harms(item, 50) for item in locks] == [False, False, True]


def test_a_squashed_migration_is_no_other_than_those_that_it_stands_for():
    old = {name: Record(name, "incompatible") for name in ("a.m1", "a.m2")}
    squashed = {"a.s": Record("a.s", "incompatible", replaces=("a.m1", "a.m2"))}
    assert migrations.between(squashed, old) == []
    assert migrations.between(old, squashed) == []
    assert len(migrations.between({**old, "a.m3": Record("a.m3", "unknown")}, squashed)) == 1
