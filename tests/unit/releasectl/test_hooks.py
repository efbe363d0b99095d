"""A release's hooks: which may be there, what they are given, and what their failure means."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from releasectl import build, cli, hooks
from releasectl.config import Config
from releasectl.errors import Refusal
from releasectl.hooks import DIRECTORY, POINTS, Hooks
from releasectl.names import Generation
from releasectl.systemd import Ended, run_bounded
from tests.unit.releasectl.conftest import request_of


def put(directory: Path, name: str, script: str = "exit 0") -> Path:
    path = directory / "src" / DIRECTORY / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


class Units:
    """Stands in for systemd: runs the program itself, and remembers with which properties it should have been."""

    def __init__(self) -> None:
        self.properties: list[list[str]] = []
        self.environments: list[dict[str, str]] = []
        self.units: list[str] = []

    def __call__(
        self,
        unit: str,
        argv: list[str],
        properties: list[str],
        environment: dict[str, str],
        timeout: int,
        kept: int,
        together: bool,
    ) -> Ended:
        self.units.append(unit)
        self.properties.append(properties)
        self.environments.append(environment)
        given = dict(environment)
        for item in properties:
            if item.startswith("EnvironmentFile="):
                path = Path(item.partition("=")[2])
                assert path.stat().st_mode & 0o777 == 0o600
                given |= dict(line.split("=", 1) for line in path.read_text().replace('"', "").splitlines())
        words = [f"{name}={value}" for name, value in given.items()]
        started = time.monotonic()
        done = run_bounded(["env", "-i", *words, "timeout", str(timeout), *argv], kept, together)
        return Ended(done.returncode, done.stdout, time.monotonic() - started)


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> Units:
    stand_in = Units()
    monkeypatch.setattr(hooks, "confined", stand_in)
    return stand_in


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make(config: Config, units: Units, said: list[str]) -> Callable[..., Hooks]:
    def make(verb: str = "activate", previous: str | None = "a", **changes: object) -> Hooks:
        changed = dataclasses.replace(config, **changes)  # type: ignore[arg-type]
        changed.release_dir("b").mkdir(exist_ok=True)
        return Hooks(changed, verb, "b", previous, said.append)

    return make


# Which may be there


def test_a_release_without_hooks_is_fine(tmp_path: Path) -> None:
    hooks.check(tmp_path)
    (tmp_path / ".slipway").mkdir()
    hooks.check(tmp_path)


@pytest.mark.parametrize("name", POINTS)
def test_every_point_may_have_one(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    hooks.check(tmp_path / "src")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("before-build", "did you mean before_build?"),
        ("after_activat", "did you mean after_activate?"),
        ("README.md", "there are before_build, after_build, before_migrate"),
        ("x\x1b[2J", "'x?[2J'"),
    ],
)
def test_a_name_that_is_no_point_is_refused(tmp_path: Path, name: str, said: str) -> None:
    put(tmp_path, name)
    with pytest.raises(Refusal) as refusal:
        hooks.check(tmp_path / "src")
    assert said in refusal.value.message
    assert refusal.value.message.isprintable()


def test_one_that_is_not_executable_is_refused_with_what_to_run(tmp_path: Path) -> None:
    put(tmp_path, "on_failure").chmod(0o644)
    with pytest.raises(Refusal, match=r"chmod=\+x \.slipway/hooks/on_failure"):
        hooks.check(tmp_path / "src")


@pytest.mark.parametrize("kind", ["link", "link to a hook", "directory", "fifo"])
def test_one_that_is_no_plain_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = put(tmp_path, "before_migrate")
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path, 0o755)
    else:
        path.symlink_to("/bin/sh" if kind == "link" else put(tmp_path, "after_build"))
    with pytest.raises(Refusal, match="before_migrate is a link or no plain file"):
        hooks.check(tmp_path / "src")


@pytest.mark.parametrize("where", [DIRECTORY, DIRECTORY.parent])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_the_directory_is_one(tmp_path: Path, where: Path, kind: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "hooks").mkdir(parents=True)
    path = tmp_path / where
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(elsewhere) if kind == "link" else path.write_text("")
    with pytest.raises(Refusal, match="is no directory"):
        hooks.check(tmp_path)


# What they are given


def test_a_hook_of_the_app_has_its_settings_and_is_told_where_it_stands(make, units, config, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "env.1" / "GREETING").write_text("ahoy")
    mine = make()
    put(mine.directory, "before_activate", "env; pwd >/dev/null")
    mine.before_activate(Generation("b", 7), "env.1")
    (ran,) = mine.ran
    seen = dict(line.split("=", 1) for line in ran.output.splitlines() if "=" in line)
    assert seen["GREETING"] == "ahoy"
    assert seen["SLIPWAY_HOOK"] == "before_activate"
    assert seen["SLIPWAY_VERB"] == "activate"
    assert (seen["RELEASE_ID"], seen["PREVIOUS_RELEASE_ID"], seen["RELEASE_GENERATION"]) == ("b", "a", "b.7")
    assert seen["SLIPWAY_SOCKET"] == str(config.run / "b.7" / "gunicorn.sock")
    assert seen["PATH"].split(":")[0] == str(mine.directory / "venv" / "bin")
    assert seen["DJANGO_SETTINGS_MODULE"] == "config.settings"
    assert "User=app" in units.properties[0]
    assert list((config.private_run / "env").iterdir()) == [], "the settings lie about no longer than the hook runs"


def test_a_hook_of_the_build_has_no_settings_and_writes_what_it_may(make, units, config, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "env.1" / "GREETING").write_text("ahoy")
    mine = make("prepare", build_settings={"DJANGO_SECRET_KEY": "none"}, build_cache=tmp_path / "cache")
    put(mine.directory, "before_build", "env")
    put(mine.directory, "after_build", "env")
    mine.build("before_build", [mine.directory / "src", tmp_path / "cache"], network=True)
    mine.build("after_build", [mine.directory / "src"], network=False)
    for properties, ran in zip(units.properties, mine.ran, strict=True):
        assert "User=app-build" in properties
        assert "GREETING" not in ran.output
        assert "DJANGO_SECRET_KEY=none" in ran.output
        assert not [item for item in properties if item.startswith("EnvironmentFile=")]
        assert f"BindReadOnlyPaths={mine.directory}" in properties
    assert "PrivateNetwork=yes" not in units.properties[0]
    assert "PrivateNetwork=yes" in units.properties[1]
    assert f"BindPaths={tmp_path / 'cache'}" not in units.properties[1]


def test_no_hook_runs_where_they_are_switched_off_or_nothing_of_the_app_does(make, units) -> None:  # type: ignore[no-untyped-def]
    for changes in ({"hooks": False}, {"processes": ()}):
        mine = make(**changes)
        for point in POINTS:
            put(mine.directory, point, "exit 1")
        mine.before_activate(Generation("b", 1), None)
        mine.after_activate(Generation("b", 1), None)
        mine.failed("why", None)
        assert mine.ran == []
    edge = make("prepare", processes=())
    with pytest.raises(Refusal):
        edge.build("before_build", [], network=True)


# What their failure means


def test_a_failure_is_one_sentence_with_what_it_said(make) -> None:  # type: ignore[no-untyped-def]
    mine = make()
    put(mine.directory, "before_activate", "echo looking; echo 'ValueError: no index' >&2; exit 3")
    with pytest.raises(Refusal) as refusal:
        mine.before_activate(Generation("b", 1), None)
    assert refusal.value.message == (
        "The hook before_activate of b failed (exit status 3, ValueError: no index): nothing was switched."
    )
    assert refusal.value.details["journal"] == ["looking", "ValueError: no index"]
    assert mine.ran[0].outcome == "failed"


def test_one_that_cannot_be_started_is_told_why(make, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    mine = make()
    put(mine.directory, "before_activate")
    monkeypatch.setattr(hooks, "confined", lambda *_words, **_more: Ended(203, "", 0.1))
    with pytest.raises(Refusal, match="does its first line name an interpreter that is there"):
        mine.before_activate(Generation("b", 1), None)


def test_one_that_hangs_is_ended(make) -> None:  # type: ignore[no-untyped-def]
    mine = make(hook_timeout=1)
    put(mine.directory, "before_activate", "echo begun; sleep 60")
    started = time.monotonic()
    with pytest.raises(Refusal, match=r"did not end within 1 s \(release_hook_timeout\)"):
        mine.before_activate(Generation("b", 1), None)
    assert time.monotonic() - started < 30
    assert (mine.ran[0].outcome, mine.ran[0].exit, mine.ran[0].output) == ("expired", None, "begun")


def test_of_much_output_the_end_is_kept_and_nothing_that_moves_a_cursor(make, said) -> None:  # type: ignore[no-untyped-def]
    mine = make("rollback")
    put(mine.directory, "after_activate", "seq 1 300000; printf 'a\\033[2Jb\\n'")
    mine.after_activate(Generation("b", 1), None)
    output = mine.ran[0].output
    assert output.splitlines()[-2:] == ["300000", "a?[2Jb"]
    assert len(output) <= hooks.KEPT_BYTES
    assert len(output.splitlines()) <= hooks.KEPT_LINES
    assert len(said) <= hooks.SHOWN_LINES + 2


def test_a_program_that_writes_without_end_is_read_to_its_end() -> None:
    program = "import os\nfor _ in range(160):\n    os.write(1, b'x' * 65536); os.write(2, b'y' * 65536)\nprint('end')"
    done = run_bounded([sys.executable, "-c", program], kept=1000)
    assert (len(done.stdout), done.stdout[-4:]) == (1000, "end\n")
    assert done.stderr == "y" * 1000
    assert done.returncode == 0


def test_after_the_switch_and_on_failure_nothing_is_raised(make, said, config) -> None:  # type: ignore[no-untyped-def]
    mine = make()
    put(mine.directory, "after_activate", "exit 4")
    put(mine.directory, "on_failure", 'echo "$SLIPWAY_FAILURE"; exit 5')
    mine.after_activate(Generation("b", 1), None)
    mine.failed("it answered 500\nand more", None)
    assert [ran.exit for ran in mine.ran] == [4, 5]
    assert mine.ran[1].output == "it answered 500 and more"
    assert "the hook after_activate of b failed (exit status 4, it said nothing)" in mine.warnings
    # Not even when it cannot be begun.
    (config.private_run / "env").rmdir()
    mine.after_activate(Generation("b", 1), None)
    assert "could not be run" in mine.warnings[-1]


def test_around_a_migration(make) -> None:  # type: ignore[no-untyped-def]
    mine = make("migrate")
    for point in ("before_migrate", "after_migrate", "on_failure"):
        put(mine.directory, point)
    with mine.migrating(None):
        assert [ran.name for ran in mine.ran] == ["before_migrate"]
    assert [ran.name for ran in mine.ran] == ["before_migrate", "after_migrate"]


@pytest.mark.parametrize(
    ("broken", "told", "order"),
    [
        ("before_migrate", "nothing was migrated", ["before_migrate", "on_failure"]),
        ("after_migrate", "the migrations are applied", ["before_migrate", "after_migrate", "on_failure"]),
    ],
)
def test_a_failure_around_a_migration(make, broken, told, order) -> None:  # type: ignore[no-untyped-def]
    mine = make("migrate")
    for point in ("before_migrate", "after_migrate", "on_failure"):
        put(mine.directory, point, "exit 1" if point == broken else "exit 0")
    migrated = []
    with pytest.raises(Refusal, match=told), mine.migrating(None):
        migrated.append(True)
    assert bool(migrated) is (broken == "after_migrate")
    assert [ran.name for ran in mine.ran] == order


# In a switch


def hooked(host, make, verb: str, release: str, **scripts: str) -> Hooks:  # type: ignore[no-untyped-def]
    mine = Hooks(host.config, verb, release, host.live_release(), lambda _line: None)
    for point, script in scripts.items():
        put(mine.directory, point, script)
    return mine


def test_one_that_refuses_keeps_the_live_release_and_its_workers(host, make, systemd) -> None:  # type: ignore[no-untyped-def]
    host.activate("a", "me")
    mine = hooked(host, make, "activate", "b", before_activate="exit 1", on_failure="exit 0", after_activate="exit 0")
    with pytest.raises(Refusal, match="before_activate of b failed"):
        host.activate("b", "me", hooks=mine)
    assert host.live_release() == host.socket_generation().release == "a"
    assert [ran.name for ran in mine.ran] == ["before_activate", "on_failure"]
    assert host.store.read().intent is None
    assert systemd.running("gunicorn") == ["gunicorn@a.1.service"]
    assert ("stop", "celery-worker@a.1.service") not in systemd.calls, "its workers were not even told to stop"


def test_it_runs_between_the_gate_and_the_switch_and_the_other_after_it(host, make, config) -> None:  # type: ignore[no-untyped-def]
    host.activate("a", "me")
    look = f"readlink {config.current}"
    mine = hooked(host, make, "activate", "b", before_activate=look, after_activate=look)
    host.activate("b", "me", hooks=mine)
    assert [ran.output.rpartition("/")[2] for ran in mine.ran] == ["a", "b"]


def test_one_after_the_switch_undoes_nothing(host, make) -> None:  # type: ignore[no-untyped-def]
    host.activate("a", "me")
    mine = hooked(host, make, "activate", "b", after_activate="exit 9")
    host.activate("b", "me", hooks=mine)
    assert host.live_release() == "b"
    assert len(mine.warnings) == 1


def test_a_rollback_is_not_held_up_by_a_hook(host, make, unhealthy) -> None:  # type: ignore[no-untyped-def]
    host.activate("a", "me")
    host.activate("b", "me")
    mine = hooked(host, make, "rollback", "a", before_activate="exit 1", after_activate="echo $SLIPWAY_VERB; exit 1")
    put(mine.directory, "on_failure", "exit 0")
    host.switch("rollback", "a", None, "me", hooks=mine)
    assert host.live_release() == "a"
    assert [(ran.name, ran.output) for ran in mine.ran] == [("after_activate", "rollback")]
    unhealthy.add("b")
    failing = hooked(host, make, "rollback", "b", on_failure="exit 0")
    with pytest.raises(Refusal, match="health gate"):
        host.switch("rollback", "b", None, "me", hooks=failing)
    assert failing.ran == []


# The answer and the record


def test_they_are_in_the_answer_and_in_the_record_also_when_nothing_changed(config, host, units, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    nothing = {"changed": False, "message": "No migrations to apply."}
    monkeypatch.setattr(cli.Migration, "run", lambda *_words: dict(nothing))
    monkeypatch.setattr(cli.Migration, "held_back", lambda *_words: None)
    monkeypatch.setattr(cli, "Systemd", lambda: host.systemd)
    put(config.release_dir("a"), "after_migrate", "echo 12 books indexed")
    put(config.release_dir("a"), "after_activate", "echo cache away; exit 2")
    migrated = cli.execute(config, request_of("migrate", "--id=a"), print)
    assert (migrated["ok"], migrated["changed"]) == (True, False)
    activated = cli.execute(config, request_of("activate", "--id=a"), print)
    assert activated["ok"]
    assert activated["message"].endswith("Warning: the hook after_activate of a failed (exit status 2, cache away).")
    (record,) = config.events.iterdir()
    events = [json.loads(line) for line in record.read_text().splitlines()]
    assert [(e["verb"], e["hooks"][0]["output"], e["hooks"][0]["outcome"]) for e in events] == [
        ("migrate", "12 books indexed", "ok"),
        ("activate", "cache away", "failed"),
    ]
    assert record.stat().st_mode & 0o007 == 0


def test_a_refusal_carries_them_too(config, host, units, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(cli, "Systemd", lambda: host.systemd)
    put(config.release_dir("a"), "before_activate", "echo no; exit 1")
    answer = cli.execute(config, request_of("activate", "--id=a", "--discard-on-failure"), print)
    assert (answer["ok"], answer["discarded"]) == (False, True)
    assert [ran["output"] for ran in answer["hooks"]] == ["no"]


# While a release is made


@pytest.fixture
def building(config, make, monkeypatch) -> Callable[..., Hooks]:  # type: ignore[no-untyped-def]
    """A release in the making, whose build itself does nothing."""
    monkeypatch.setattr(build.pwd, "getpwnam", lambda _name: type("Me", (), {"pw_uid": os.getuid(), "pw_gid": 0}))
    monkeypatch.setattr(build.venvs, "provide", lambda *_words: build.venvs.Provided("hashed", True))
    monkeypatch.setattr(build, "collect_static", lambda _config, directory, *_more: (directory / "static").mkdir())

    def building(**scripts: str) -> Hooks:
        mine: Hooks = make("prepare")
        (mine.directory / "src").mkdir(parents=True)
        for point, script in scripts.items():
            put(mine.directory, point, f'cd "$(dirname "$0")/../.."; {script}')
        return mine

    return building


def built(mine: Hooks) -> tuple[int, int, int]:
    return build._make(mine.config, mine.directory, "b", lambda _line: None, mine)


def test_the_code_is_theirs_to_write_and_roots_afterwards(building, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    mine = building(before_build="echo made >front.js; chmod 666 front.js", after_build="cat front.js >again.js")
    seen = []
    front = mine.directory / "src" / "front.js"

    def provide(*_words: object) -> build.venvs.Provided:
        seen.append(front.stat().st_mode & 0o777)
        return build.venvs.Provided("hashed", True)

    monkeypatch.setattr(build.venvs, "provide", provide)
    built(mine)
    assert seen == [0o644], "what packages run while they are built finds the code as nobody can write it"
    for name in ("front.js", "again.js"):
        status = (mine.directory / "src" / name).stat()
        assert (status.st_uid, status.st_mode & 0o777) == (0, 0o644)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("mkfifo trap", "special file"),
        ("echo x >a; ln a b", "hard link"),
        ("cp .slipway/hooks/before_build .slipway/hooks/before_activat", "did you mean before_activate?"),
        ("ln -s /bin/sh .slipway/hooks/after_activate", "after_activate is a link or no plain file"),
        ("exit 7", "before_build of b failed"),
    ],
)
def test_what_a_hook_of_the_build_must_not_leave(building, script, why) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(Refusal, match=why) as refusal:
        built(building(before_build=script))
    assert "\n" not in refusal.value.message


def test_a_revision_as_long_as_a_disk_is_read_to_its_first_line(building) -> None:  # type: ignore[no-untyped-def]
    mine = building(before_build="echo 0123456789abcdef >REVISION; truncate -s 1T REVISION")
    built(mine)
    assert len(build._revision(mine.directory) or "") <= 64


def test_a_hook_that_a_killed_verb_left_is_stopped_by_the_next(config, host, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    asked: list[list[str]] = []

    def run(argv: list[str]) -> subprocess.CompletedProcess[str]:
        asked.append(argv)
        return subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(build, "run", run)
    build.sweep(config)
    assert ["systemctl", "stop", "releasectl-hook-*.service"] in asked
