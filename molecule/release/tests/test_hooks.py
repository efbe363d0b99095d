"""A release with a hook at every point is deployed: what each saw, what it could reach, and what is told of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
LAB = os.environ.get("SLIPWAY_LAB") or "molecule"


@pytest.fixture(scope="module")
def before(ops: Any, edge: Any, cargo: dict[str, Any]) -> str:
    release: str = ops.have_live(edge, cargo["good-1"])
    return release


@pytest.fixture(scope="module")
def hooked() -> dict[str, Any]:
    words = [sys.executable, str(ROOT / "lab" / "cargo.py"), "hooked-7"]
    made = subprocess.run(words, env={**os.environ, "SLIPWAY_LAB": LAB}, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(made.stdout)["hooked-7"]
    return found


@pytest.fixture(scope="module")
def deployed(before: str, hooked: dict[str, Any], ops: Any) -> Iterator[Any]:
    """The run of its deploy; afterwards what was live is live again."""
    run = ops.deploy(hooked["artifact"])
    yield run
    if ops.live() != before:
        assert ops.rollback(before).code == 0


@pytest.fixture(scope="module")
def reports(deployed: Any, hooked: dict[str, Any], ops: Any) -> dict[str, dict[str, Any]]:
    """What each hook said, by the record."""
    assert deployed.code == 0, deployed.output
    events = ops.releasectl("history", "--limit", "20")["events"]
    mine = [event for event in events if event.get("release") == hooked["id"] and event.get("hooks")]
    found = {}
    for event in mine:
        for ran in event["hooks"]:
            found[ran["name"]] = {**json.loads(ran["output"].splitlines()[-1]), "exit": ran["exit"]}
    return found


def test_each_ran_in_its_place_as_whom_it_should(
    reports: dict[str, dict[str, Any]], before: str, hooked: dict[str, Any]
) -> None:
    assert list(reports) == [
        "before_build", "after_build", "before_migrate", "after_migrate", "before_activate", "after_activate",
    ]  # fmt: skip
    for point, report in reports.items():
        building = point.endswith("_build")
        assert report["user"] == ("app-build" if building else "app"), point
        assert report["settings"] is not building, point
        assert (report["release"], report["previous"]) == (hooked["id"], before), point
        assert report["live"] == (hooked["id"] if point == "after_activate" else before), point
    assert [report["verb"] for report in reports.values()] == ["prepare"] * 2 + ["migrate"] * 2 + ["activate"] * 2
    assert reports["before_activate"]["answered"] == "200"


def test_none_reaches_the_store_or_writes_where_it_may_not(
    reports: dict[str, dict[str, Any]], hooked: dict[str, Any]
) -> None:
    for point, report in reports.items():
        assert report["reached"] == [], point
        assert report["written"] == (["manage.py"] if point.endswith("_build") else []), point
    assert reports["before_build"]["others"] == [hooked["id"]]


def test_what_it_made_is_served_and_roots(deployed: Any, reports: Any, app1: Any, edge: Any, hooked: Any) -> None:
    for name in ("static/front.txt", "static/after.txt", "src/bookshop/static/front.txt"):
        file = app1.file(f"/opt/app/releases/{hooked['id']}/{name}")
        assert (file.user, file.mode) == ("root", 0o644), name
    assert edge.get("/static/front.txt").text == "made by a hook\n"


def test_one_that_fails_after_the_switch_is_told_and_undoes_nothing(deployed: Any, ops: Any, hooked: Any) -> None:
    assert ops.live() == hooked["id"]
    assert f"{hooked['id']} is live on app1" in deployed.closing
    assert f"Warning: the hook after_activate of {hooked['id']} failed (exit status 3" in deployed.closing
    assert ops.status()["lease"] is None
