"""Migrations that fail, that break what runs, and that a rollback would cross, with the lab's PostgreSQL.

The tests run in their order, and the last one leaves the database as it was before the first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab import cargo as packing
from molecule.conftest import LAB

HISTORY = "/var/log/slipway/maintenance.jsonl"


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, Any]]:
    return packing.variants(["half-migration", "rename-7"], LAB)


@pytest.fixture(scope="module")
def renaming(made: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return made["rename-7"]


@pytest.fixture(scope="module")
def before(ops: Any, edge: Any, cargo: dict[str, Any], app1: Any) -> Iterator[str]:
    """What serves before, and again after."""
    release = ops.have_live(edge, cargo["good-1"])
    yield release
    assert ops.live() == release
    assert app1.run("test -e /var/lib/slipway/maintenance.json").rc == 1, "the site is open"


def events(app1: Any, verb: str) -> list[dict[str, Any]]:
    lines = app1.check_output("cat /var/log/app/releases/*.jsonl").splitlines()
    return [event for event in map(json.loads, lines) if event["verb"] == verb]


@pytest.mark.failure("migration-fails")
def test_a_failing_migration_says_what_is_applied_and_leaves_the_old_release(
    before: str, app1: Any, ops: Any, edge: Any, made: dict[str, dict[str, Any]]
) -> None:
    run = ops.deploy(made["half-migration"]["artifact"])
    assert run.code != 0
    assert "Applied: bookshop.0003_pen. Failed: bookshop.0004_fails (DataError: division by zero)" in run.closing
    assert "rolled back by the database" in run.closing
    assert f"{before} still serves" in run.closing
    assert edge.get("/").release == before
    event = events(app1, "migrate")[-1]
    assert (event["outcome"], event["applied"]) == ("failed", ["bookshop.0003_pen"])
    assert event["plan"] == ["bookshop.0003_pen", "bookshop.0004_fails"]


def test_what_breaks_the_release_that_runs_is_applied_behind_the_maintenance_page(
    before: str, app1: Any, ops: Any, edge: Any, strangers: Any, renaming: dict[str, Any]
) -> None:
    asking = strangers.begin("/")
    run = ops.deploy(renaming["artifact"])
    answers = strangers.end(asking)
    assert run.code == 0, run.output
    assert edge.get("/").release == renaming["id"]
    statuses = [status for status, _later, _text in answers]
    assert set(statuses) == {200, 503}
    assert statuses[-1] == 200
    closed, opened = (json.loads(line) for line in app1.check_output(f"tail -n 2 {HISTORY}").splitlines())
    assert (closed["state"], opened["state"]) == ("on", "off")
    assert "renames author.pen to pen_name" in closed["because"]
    assert closed["by"].startswith("deployer (")
    event = events(app1, "migrate")[-1]
    assert event["applied"] == ["bookshop.0004_pen_name"]
    assert event["findings"][0]["level"] == "incompatible"


def test_a_rollback_across_it_is_refused_unless_the_schema_is_accepted(
    before: str, ops: Any, edge: Any, renaming: dict[str, Any]
) -> None:
    refused = ops.rollback(before)
    assert refused.code != 0
    for word in (f"{before} does not work with", "bookshop.0004_pen_name", "docs/ops/restore.md"):
        assert word in refused.closing
    assert edge.get("/").release == renaming["id"]
    words = ["-e", f"release_id={before}", "-e", "rollback_accept_schema=true"]
    accepted = ops.playbook("playbooks/rollback.yml", *words)
    assert accepted.code == 0, accepted.output
    assert "2 migrations lie between and stay applied" in accepted.closing
    assert edge.get("/").release == before


def test_a_rehearsal_looks_first_and_then_takes_back(before: str, ops: Any, renaming: dict[str, Any]) -> None:
    words = ["playbooks/migrate.yml", "-e", "app=bookshop", "-e", "migration=0002_first_books"]
    words += ["-e", f"release_id={renaming['id']}"]
    planned = ops.playbook(*words, "--check")
    assert planned.code == 0, planned.output
    assert "2 migrations would be taken back: bookshop.0004_pen_name, bookshop.0003_pen" in planned.closing
    done = ops.playbook(*words)
    assert done.code == 0, done.output
    assert "2 migrations taken back: bookshop.0004_pen_name, bookshop.0003_pen" in done.closing
    assert "No migrations to apply" in ops.releasectl("migrate")["message"]


@pytest.mark.parametrize("word", ["--app=../x", "--migration='0002;reboot'", "--app=bookshop"])
def test_what_is_no_migration_is_refused_by_a_sentence(ops: Any, word: str) -> None:
    answer = ops.releasectl("migrate", word)
    assert answer["ok"] is False
    assert len(answer["message"]) < 300
