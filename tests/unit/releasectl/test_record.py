"""What the record holds of a verb, of a release made by hand, and how `history` reads."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from releasectl import cli, files, hostctl, record, status
from releasectl.config import Config
from releasectl.events import Events
from releasectl.lifecycle import Lifecycle
from releasectl.lock import Locks
from tests.unit.releasectl.conftest import FakeSystemd, request_of

COMMIT = "3f2a9c1d7e44" + "0" * 28


def events(config: Config) -> list[dict[str, object]]:
    return Events(config.events).recent(100)


def packed_from(config: Config, release: str, commit: str) -> None:
    path = config.release_dir(release) / "release.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "revision": commit}))


@pytest.fixture
def run(host: Lifecycle, config: Config, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A verb as a job runs it."""
    monkeypatch.setattr(cli, "Systemd", lambda: systemd)

    def verb(name: str, release: str | None = None, **more: object) -> dict[str, object]:
        words = [name] if release is None else [name, f"--id={release}"]
        return cli.execute(config, request_of(*words, actor="deployer (ada)", **more), lambda _line: None)

    return verb


@pytest.fixture
def boot(host: Lifecycle, config: Config, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """app.service starts, after what ran has gone."""
    monkeypatch.setattr(hostctl, "Systemd", lambda: systemd)

    def start() -> None:
        systemd.states = {"app.service": "activating"}
        config.socket.unlink(missing_ok=True)
        hostctl.boot(config)

    return start


def test_a_switch_is_recorded_with_its_commit_and_answers_with_both(run, config):  # type: ignore[no-untyped-def]
    packed_from(config, "b", COMMIT)
    run("activate", "a")
    answer = run("activate", "b")
    assert (answer["revision"], answer["previous_revision"]) == (COMMIT, None)
    event = events(config)[-1]
    assert (event["verb"], event["release"], event["revision"], event["outcome"]) == ("activate", "b", COMMIT, "ok")
    answer = run("rollback")
    assert (answer["release"], answer["previous_revision"]) == ("a", COMMIT)


def test_a_release_that_was_refused_and_removed_has_its_commit_in_the_record(run, config, unhealthy):  # type: ignore[no-untyped-def]
    packed_from(config, "b", COMMIT)
    run("activate", "a")
    unhealthy.add("b")
    assert not run("activate", "b", discard_on_failure=True)["ok"]
    assert not config.release_dir("b").exists()
    event = events(config)[-1]
    assert (event["release"], event["revision"], event["outcome"]) == ("b", COMMIT, "failed")


def test_the_four_steps_by_hand_are_in_the_record(run, boot, config):  # type: ignore[no-untyped-def]
    packed_from(config, "b", COMMIT)
    run("activate", "a")
    config.current.unlink()
    config.current.symlink_to(config.release_dir("b"))
    os.utime(config.current, (1_795_489_920, 1_795_489_920), follow_symlinks=False)
    boot()
    event = events(config)[-1]
    assert (event["verb"], event["actor"], event["outcome"]) == ("start", "by hand", "ok")
    assert (event["release"], event["revision"]) == ("b", COMMIT)
    assert event["message"] == ("b was brought up in place of a; 'current' was pointed at it at 2026-11-24T03:12:00Z")


def test_an_ordinary_boot_is_nobodys_hand(run, boot, config):  # type: ignore[no-untyped-def]
    run("activate", "a")
    boot()
    event = events(config)[-1]
    assert (event["verb"], event["actor"], event["message"]) == ("start", "app.service", "a was brought up")


def test_a_link_by_hand_that_reconcile_brings_up_names_its_release(run, config):  # type: ignore[no-untyped-def]
    run("activate", "a")
    files.link_atomically(config.current, str(config.release_dir("b")))
    run("reconcile")
    event = events(config)[-1]
    assert (event["verb"], event["release"], event["actor"]) == ("reconcile", "b", "deployer (ada)")


def test_a_switch_that_died_is_in_the_record_once_it_was_settled(run, host, config, monkeypatch):  # type: ignore[no-untyped-def]
    run("activate", "a")

    class Killed(BaseException):
        """Stands for kill -9."""

    def die(*_args: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Lifecycle, "_point_socket", die)
        with pytest.raises(Killed):
            run("activate", "b")
    before = len(events(config))
    run("prune", keep=5)
    (settled,) = events(config)[before:]
    assert (settled["verb"], settled["release"], settled["actor"]) == ("reconcile", "b", "deployer (ada)")
    assert "interrupted activate of b was carried to its end" in str(settled["message"])


def test_a_record_that_takes_nothing_stops_no_rollback(run, boot, config):  # type: ignore[no-untyped-def]
    run("activate", "a")
    run("activate", "b")
    for path in config.events.iterdir():
        path.unlink()
    config.events.rmdir()
    said: list[str] = []
    asked = {"verb": "rollback", "id": None, "actor": "ada", "accept_schema": False}
    assert cli.execute(config, asked, said.append)["ok"]
    assert any("not in the record" in line for line in said)
    boot()


# How it reads


def event(**more: object) -> dict[str, object]:
    return {
        "at": "2026-11-24T03:12:00Z", "verb": "activate", "release": "shop-3f2a9c1d7e44", "revision": COMMIT,
        "actor": "deployer (ada)", "outcome": "ok", "seconds": 4.21, "message": "shop-3f2a9c1d7e44 is live.", **more,
    }  # fmt: skip


def test_history_stands_in_columns() -> None:
    lines = record.as_text(
        [event(), event(verb="drain", release=None, revision=None, seconds=None, actor="ops")]
    ).splitlines()
    assert len(lines) == 3
    for title in ("verb", "release", "who", "went", "took", "what"):
        at = lines[0].index(title)
        assert all(line[at - 1] == " " and line[at] != " " for line in lines if title != "took")
    assert lines[1].split("  ")[0] == "2026-11-24T03:12:00Z"
    assert "4.2 s" in lines[1]
    assert "commit" not in lines[0], "the release's name has it"


def test_a_commit_that_no_name_has_gets_a_column() -> None:
    lines = record.as_text([event(release="shop-1.2"), event(release="shop-1.1", revision=None)]).splitlines()
    assert "commit" in lines[0]
    assert COMMIT[:12] in lines[1]


def test_a_failure_is_seen_and_nothing_breaks_a_line() -> None:
    long = event(outcome="failed", message="It\n\x1b[31mcrashed " + "x" * 500, actor="a" * 200, seconds=754)
    lines = record.as_text([long, {"at": "?", "outcome": "unreadable", "message": "{"}]).splitlines()
    assert len(lines) == 3
    assert " FAILED " in lines[1]
    assert "12 min 34 s" in lines[1]
    assert "\x1b" not in lines[1]
    assert len(lines[1]) < 260
    assert lines[1].endswith("…")
    assert "UNREADABLE" in lines[2]


def test_no_history_is_said() -> None:
    assert record.as_text([]) == "Nothing has happened yet."


@pytest.mark.failure("events-corrupted")
def test_a_line_that_is_no_event_hides_none(config: Config) -> None:
    Events(config.events).append(verb="x", outcome="ok")
    path = next(config.events.iterdir())
    path.write_text(path.read_text() + "7\n{half\n")
    assert [one["outcome"] for one in events(config)] == ["ok", "unreadable", "unreadable"]


# What status tells beside


def test_status_tells_of_disks_processes_and_maintenance(host: Lifecycle, config: Config, tmp_path: Path) -> None:
    closed = tmp_path / "maintenance.json"
    host.config = dataclasses.replace(config, edge=True, maintenance_file=closed)
    report = status.report(host, Locks(config.private_run, config.state))
    assert report["processes"] == ["gunicorn", "celery-worker", "celery-beat"]
    assert report["maintenance"] is None
    (disk,) = report["disk"]  # type: ignore[misc]
    assert disk["paths"] == [str(config.releases), str(config.static)]
    assert 0 < disk["free"] <= disk["total"]
    closed.write_text(json.dumps({"by": "ops", "at": "T", "because": "moving"}))
    report = status.report(host, Locks(config.private_run, config.state))
    assert report["maintenance"] == {"by": "ops", "at": "T", "because": "moving"}
    text = status.as_text(report)
    assert "closed    for maintenance by ops since T: moving" in text
    assert "GiB free for" in text
    assert "tasks " not in text
    # As somebody may make it by hand.
    closed.write_text("")
    by_hand = status.report(host, Locks(config.private_run, config.state))["maintenance"]
    assert isinstance(by_hand, dict)
    assert (by_hand["by"], by_hand["because"]) == ("somebody by hand", "it does not say why")


def test_status_tells_what_the_worker_says_of_tasks(host: Lifecycle, config: Config, systemd: FakeSystemd) -> None:
    live = host.activate("a", "me")
    systemd.words[f"celery-worker@{live.generation}.service"] = "3 tasks are set aside"
    report = status.report(host, Locks(config.private_run, config.state))
    assert report["tasks"] == "3 tasks are set aside"
    assert "tasks     3 tasks are set aside" in status.as_text(report)
