"""Restore points: the keeper at the other end, the stream between, and what a migration does without one."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from releasectl import migrations, points, restoring
from releasectl.errors import Refusal, UsageError
from releasectl.migrate import Migration
from releasectl.migrations import Finding, Record
from releasectl.points import Pipeline, Point, Points
from tests.unit.releasectl.conftest import ROOT, request_of

KEEPER = ROOT / "roles/release/files/keeper/restore-points"
DAY = 86_400
DUMP = b"a database\n" * 100_000


class Place:
    """A directory that the keeper keeps, asked as sshd asks it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def command(self, *words: str) -> list[str]:
        said = f"SSH_ORIGINAL_COMMAND={' '.join(words)}"
        return ["env", said, sys.executable, str(KEEPER), str(self.directory), "--days", "14"]

    def ask(self, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(self.command(*words), input=given, capture_output=True, check=False)

    def have(self, name: str, content: bytes, age: float = 0) -> None:
        digest = json.loads(self.ask("put", name, given=content).stdout)["sha256"]
        assert self.ask("keep", name, digest).returncode == 0
        note = self.directory / f"{name}.json"
        found = json.loads(note.read_text())
        note.write_text(json.dumps({**found, "at": int(found["at"] - age)}))

    def names(self) -> list[str]:
        return [point["name"] for point in json.loads(self.ask("list").stdout)["points"]]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path / "place")


@pytest.fixture
def there(place, config, monkeypatch):
    """Points that are kept by the real keeper, of a database that is a few lines of shell."""
    config = replace(config, restore_point_target="restore@data1")
    made = Points(config)
    monkeypatch.setattr(Points, "_ssh", lambda _self, *words: place.command(*words))
    monkeypatch.setattr(Points, "_database", lambda *_words: ["sh", "-c", "yes 'a database' | head -n 100000"])
    return made


# The keeper


def test_what_was_put_is_no_point_until_it_is_kept(place):
    answer = json.loads(place.ask("put", "a.dump", given=DUMP).stdout)
    assert answer == {"name": "a.dump", "size": len(DUMP), "sha256": hashlib.sha256(DUMP).hexdigest()}
    assert place.names() == []
    assert b"no restore point" in place.ask("get", "a.dump").stderr
    assert b"did not arrive" in place.ask("keep", "a.dump", "0" * 64).stderr
    assert place.ask("keep", "a.dump", answer["sha256"]).returncode == 0
    assert place.names() == ["a.dump"]
    assert place.ask("get", "a.dump").stdout == DUMP
    assert (place.directory / "a.dump").stat().st_mode & 0o777 == 0o600


def test_a_point_is_never_changed_and_old_ones_go_but_the_newest(place):
    place.have("a.dump", b"1", age=20 * DAY)
    assert place.ask("put", "a.dump", given=b"2").returncode != 0
    assert place.ask("keep", "a.dump", hashlib.sha256(b"2").hexdigest()).returncode != 0
    assert place.ask("get", "a.dump").stdout == b"1"
    place.have("b.dump", b"1", age=15 * DAY)
    assert place.names() == ["b.dump"], "the newest stays, however old"
    place.have("c.dump", b"1", age=13 * DAY)
    place.have("d.dump", b"1")
    assert place.names() == ["c.dump", "d.dump"]


def test_one_that_was_damaged_is_not_given_out(place):
    place.have("a.dump", DUMP)
    (place.directory / "a.dump").write_bytes(DUMP[:-1])
    got = place.ask("get", "a.dump")
    assert (got.stdout, got.returncode) == (b"", 1)
    assert b"damaged" in got.stderr


@pytest.mark.parametrize(
    "words",
    ["", "rm a.dump", "get ../../etc/shadow", "put a.dump b.dump", "get a.dump;id", "put .a.dump", "list x"],
)
def test_a_key_may_do_nothing_else(place, words):
    answer = place.ask(*words.split())
    assert answer.returncode == 1
    assert answer.stdout == b""
    assert answer.stderr.startswith(b"restore-points: ")
    assert list(place.directory.iterdir()) == []


# The stream


def test_a_dump_gets_there_whole(there, place):
    point = there.make("a", Path("unused"))
    content = (place.directory / point.name).read_bytes()
    assert (point.size, point.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert content == DUMP
    assert point.name.startswith("app-2")
    assert point.name.endswith("-a.dump")
    assert [found["name"] for found in there.listed()] == [point.name]


def test_a_dump_that_fails_half_way_is_no_point(there, place, monkeypatch):
    script = "yes 'a database' | head -n 100000; echo 'pg_dump: error: connection lost' >&2; exit 1"
    monkeypatch.setattr(Points, "_database", lambda *_words: ["sh", "-c", script])
    with pytest.raises(Refusal, match="could not be dumped: pg_dump: error: connection lost"):
        there.make("a", Path("unused"))
    assert place.names() == []


def test_what_the_program_refuses_comes_before_what_others_say_of_it(there, monkeypatch):
    script = "echo noise >&2; echo '@slipway its database is sqlite' >&2; exit 3"
    monkeypatch.setattr(Points, "_database", lambda *_words: ["sh", "-c", script])
    with pytest.raises(Refusal, match=r"could not be dumped: its database is sqlite\.$"):
        there.make("a", Path("unused"))


def test_a_place_that_takes_nothing_is_said(there, place, monkeypatch):
    place.directory.rmdir()
    with pytest.raises(Refusal, match=r"restore@data1 did not take it: restore-points: .*cannot be used"):
        there.make("a", Path("unused"))
    monkeypatch.setattr(Points, "_ssh", lambda *_words: ["sh", "-c", "cat >/dev/null; echo hello"])
    with pytest.raises(Refusal, match="forced command"):
        there.make("a", Path("unused"))


def test_a_place_that_goes_away_ends_it(there, monkeypatch):
    script = "head -c 1000 >/dev/null; echo 'Connection closed' >&2; exit 255"
    monkeypatch.setattr(Points, "_ssh", lambda *_words: ["sh", "-c", script])
    with pytest.raises(Refusal, match="did not take it: Connection closed"):
        there.make("a", Path("unused"))


def test_without_a_place_it_is_said_what_to_do(config):
    with pytest.raises(Refusal, match=r"set release_restore_point_target .*release_restore_point=never"):
        Points(config).make("a", Path("unused"))
    wrong = replace(config, restore_point_target="-oProxyCommand=x@y")
    with pytest.raises(Refusal, match="not user@host"):
        Points(wrong).listed()


def test_a_pipeline_says_which_of_its_programs_failed():
    with Pipeline([["sh", "-c", "echo lost >&2; exit 1"], ["cat"], ["sh", "-c", "cat; exit 4"]]) as pipeline:
        assert list(pipeline.chunks()) == []
        with pytest.raises(Refusal, match=r"^It failed: lost\.$"):
            pipeline.require("It failed")
    with Pipeline([["true"], ["sh", "-c", "exit 4"]]) as pipeline:
        assert list(pipeline.chunks()) == []
        with pytest.raises(Refusal, match="ended with 4"):
            pipeline.require("It failed")


def test_an_encrypted_one_wants_its_key(there):
    with pytest.raises(Refusal, match="restore_point_identity"):
        there.restore("a", "x.dump.age", None, None, Path("unused"))


def test_what_comes_back_is_what_was_dumped(there, place, tmp_path, monkeypatch):
    place.have("x.dump", DUMP)
    monkeypatch.setattr(Points, "_database", lambda *_words: ["tee", str(tmp_path / "restored")])
    there.restore("a", "x.dump", None, None, Path("unused"))
    assert (tmp_path / "restored").read_bytes() == DUMP
    refusing = "echo '@slipway the database app is not empty: it has public.book' >&2; exit 3"
    monkeypatch.setattr(Points, "_database", lambda *_words: ["sh", "-c", refusing])
    with pytest.raises(Refusal, match=r"x\.dump was not restored, .*: the database app is not empty"):
        there.restore("a", "x.dump", None, None, Path("unused"))


def test_the_key_is_taken_from_where_it_was_uploaded_and_is_gone_afterwards(config):
    upload = config.incoming / "restore-point.key"
    upload.write_text("AGE-SECRET-KEY-1")
    with restoring._identity(config, upload.name) as kept:
        assert kept.read_text() == "AGE-SECRET-KEY-1"
        assert kept.stat().st_mode & 0o777 == 0o600
        assert not upload.exists()
    assert not kept.exists()
    upload.symlink_to("/etc/passwd")
    with pytest.raises(Refusal, match="plain file"), restoring._identity(config, upload.name):
        pass


@pytest.mark.parametrize("word", ["../x.dump", "x.dump;id", "x", "a..b.dump", "-x.dump", "x.dump.gpg"])
def test_what_is_no_name_is_refused(word):
    with pytest.raises(UsageError):
        points.point_name(word)


# A migration


LOSES = Record("shop.m2", "destructive", loses=True, findings=(Finding("destructive", "drops book.code"),))
MARKED = replace(LOSES, level="compatible", mark="compatible")
FINE = Record("shop.m1", "compatible")


class Told(Migration):
    """A migration whose program is told here: it holds as the real one does (see test_migrate.py for that)."""

    planned: tuple[Record, ...] = ()
    calls: list[str]

    def _call(self, words, _environment_file):
        lossy = any(found.level == "destructive" for item in self.planned for found in item.findings)
        self.report.plan, self.report.planned = migrations.judged(self.planned), True
        hold = words.get("hold", "never")
        harmful = words["allow"] != "any" and any(item.level == "destructive" for item in self.planned)
        self.report.held = harmful or (bool(self.planned) and (hold == "always" or (hold == "auto" and lossy)))
        if not self.report.held:
            self.calls.append("migrated")
            self.report.ended = [item.name for item in self.planned]
            self.report.applied = tuple(self.report.ended)


def migrate(config, monkeypatch, planned, policy, maintenance="never", live="a", error=""):
    def make(_self, _release, _path):
        migration.calls.append("dumped")
        if error:
            raise Refusal(error)
        return Point("x.dump", 2048, "0" * 64, 1.0, False)

    monkeypatch.setattr(Points, "make", make)
    migration = Told(config, "b", live, lambda _line: None)
    migration.planned, migration.calls = planned, []
    words = ("migrate", "--id=b", f"--restore-point={policy}", f"--maintenance={maintenance}")
    try:
        return migration.calls, migration.run(request_of(*words), Path("unused"))
    except Refusal as refusal:
        return migration.calls, refusal


@pytest.mark.parametrize(
    ("planned", "policy", "wanted"),
    [
        ((FINE, LOSES), "auto", ["dumped", "migrated"]),
        ((FINE, LOSES), "never", ["migrated"]),
        ((FINE,), "auto", ["migrated"]),
        ((FINE,), "always", ["dumped", "migrated"]),
        ((), "always", ["migrated"]),
        ((MARKED,), "auto", ["dumped", "migrated"]),  # those that it breaks are gone, what it drops as well
    ],
)
def test_a_point_comes_before_what_loses_data(config, monkeypatch, planned, policy, wanted):
    calls, answer = migrate(config, monkeypatch, planned, policy, maintenance="closed")
    assert calls == wanted
    assert ("restore_point" in answer) == ("dumped" in wanted)
    if "dumped" in wanted:
        assert answer["restore_point"]["name"] == "x.dump"
        assert "Restore point: x.dump (2 KiB, not encrypted)." in answer["message"]


def test_the_site_is_closed_before_the_dump(config, monkeypatch):
    calls, answer = migrate(config, monkeypatch, (LOSES,), "auto", maintenance="auto")
    assert (calls, answer["needs_maintenance"]) == ([], True)
    calls, answer = migrate(config, monkeypatch, (LOSES,), "auto", maintenance="never")
    assert calls == []
    assert "would break" in answer.message


@pytest.mark.failure("restore-point-fails")
def test_without_it_nothing_is_migrated(config, monkeypatch):
    calls, refusal = migrate(config, monkeypatch, (FINE, LOSES), "auto", "closed", error="The disk is full.")
    assert calls == ["dumped"]
    assert refusal.message == (
        "Nothing was migrated: a restore point is to be made before shop.m2 (drops book.code), and could not be."
        " The disk is full."
    )
    assert refusal.details["applied"] == []


def test_the_program_holds_before_it_loses_anything():
    """As the app's Python runs it: what is held, by what is asked."""
    sys.path.insert(0, str(ROOT / "roles/release/files/inside"))
    try:
        import slipway_lint
        import slipway_migrations
    finally:
        sys.path.pop(0)
    run = slipway_migrations.Run.__new__(slipway_migrations.Run)
    run.lint = slipway_lint
    plan = [{"findings": [{"level": "destructive"}]}]
    for hold, planned, wanted in (
        ("auto", plan, True), ("never", plan, False), ("always", [{"findings": []}], True), ("always", [], False),
        ("auto", [{"findings": [{"level": "locks"}]}], False),
    ):  # fmt: skip
        run.asked = {"hold": hold}
        assert run.held_for_point(planned) is wanted, (hold, planned)


def test_the_password_is_in_no_command():
    sys.path.insert(0, str(ROOT / "roles/release/files/inside"))
    try:
        import slipway_database
    finally:
        sys.path.pop(0)
    settings = {
        "NAME": "app", "USER": "app", "PASSWORD": "hunter2", "HOST": "data1", "PORT": 5432,
        "OPTIONS": {"sslmode": "verify-full", "sslrootcert": "/etc/app/ca.pem", "pool": True},
    }  # fmt: skip
    found = slipway_database.environment(settings)
    assert found["PGPASSWORD"] == "hunter2"
    assert (found["PGSSLMODE"], found["PGSSLROOTCERT"]) == ("verify-full", "/etc/app/ca.pem")
    assert os.environ.get("PGPASSWORD") is None


def test_the_apps_modules_are_found_where_the_app_is(django, tmp_path):
    """With the app's own Python, started in its directory, as a release is; of SQLite there are no restore points."""
    (tmp_path / "shop_settings.py").write_text(
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': ':memory:'}}\n"
    )
    program = str(ROOT / "roles/release/files/inside/slipway_database.py")
    done = subprocess.run(
        [django, program, '{"mode": "dump", "database": null}'], cwd=tmp_path, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "shop_settings"}, check=False,
    )  # fmt: skip
    assert done.stderr == "@slipway its database is sqlite, and restore points are of PostgreSQL\n"
    assert (done.returncode, done.stdout) == (3, "")
