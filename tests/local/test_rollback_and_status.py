"""rollback.yml and status.yml over a host whose releasectl is a stand-in: who is told, and what is printed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import receivers
from tests.local.controller import Controller
from tests.receivers import CANARY, Hook

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW = "a1" * 20, "b2" * 20
ROLLED = {
    "ok": True, "changed": True, "release": "shop-1", "previous": "shop-2", "revision": OLD, "previous_revision": NEW,
    "message": "Rolled back from shop-2 to shop-1; migrations are not undone.",
}  # fmt: skip
REFUSED = {"ok": False, "message": "The record names no earlier release than shop-1, nothing was changed."}
STATUS = {
    "ok": True, "changed": False, "message": "", "live": {"release": "shop-2", "since": "2026-11-24T03:12:00Z"},
    "previous": "shop-1", "releases": [], "drift": [], "lease": None, "door": "none", "drained": None,
    "maintenance": None, "disk": [],
}  # fmt: skip


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Hook]:
    made = Hook(tmp_path)
    made.release = "shop-1"
    yield made
    made.close()


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    return Controller(tmp_path)


def rollback(controller: Controller, hook: Hook, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    known = {
        "app_name": "shop",
        "app_domain": "localhost",
        "release_verify_addresses": ["127.0.0.1"],
        "release_verify_port": hook.server.server_port,
        "release_verify_ca_certificate": hook.authority,
        "release_notices": [{"kind": "webhook", "url": hook.url, "ca_certificate": hook.authority}],
        "release_repository_url": "https://git.test/me/shop",
    }
    return controller.play("rollback", "--limit", "app1", *words, **known, **more)


def test_a_rollback_is_told_once_it_is_over(controller: Controller, hook: Hook) -> None:
    controller.says(ROLLED)
    run = rollback(controller, hook, "-vvv")
    assert run.returncode == 0, run.stdout + run.stderr
    (told,) = hook.bodies
    assert (told["event"], told["outcome"], told["app"], told["environment"]) == (
        "rollback", "success", "shop", "production",
    )  # fmt: skip
    assert (told["release"], told["previous"], told["hosts"]) == ("shop-1", "shop-2", ["app1"])
    assert told["commits"] == {"old": NEW, "new": OLD}
    assert told["actor"].startswith("ada on ")
    assert told["message"] == ROLLED["message"]
    assert told["links"] == {"changes": f"https://git.test/me/shop/compare/{OLD}...{NEW}"}
    assert 0 < told["seconds"] < 120
    # As much as anybody can have it print.
    assert CANARY not in run.stdout + run.stderr


def test_one_that_is_refused_is_told_too_and_a_receiver_that_hangs_changes_nothing(
    controller: Controller, hook: Hook
) -> None:
    controller.says(REFUSED)
    with receivers.silent() as port:
        places = [
            {"kind": "slack", "url": f"https://127.0.0.1:{port}/{CANARY}"},
            {"kind": "webhook", "url": hook.url, "ca_certificate": hook.authority, "on": ["failure"]},
        ]
        run = controller.play(
            "rollback", "--limit", "app1", app_name="shop", app_domain="localhost", release_notices=places,
            release_notices_timeout=1,
        )  # fmt: skip
    assert run.returncode == 2
    assert [(body["outcome"], body["message"]) for body in hook.bodies] == [("failure", REFUSED["message"])]
    # What happened first, then who was not told.
    assert run.stdout.strip().splitlines()[-2:] == [
        REFUSED["message"],
        "The notice to slack (release_notices[0]) was not sent: timed out, no answer within 1 s.",
    ]
    assert CANARY not in run.stdout + run.stderr


def test_what_was_typed_wrong_is_nobodys_news(controller: Controller, hook: Hook) -> None:
    run = rollback(controller, hook, release_id="a/b")
    assert run.returncode != 0
    assert "is not a release id" in run.stdout
    assert hook.bodies == []


def test_a_notice_that_cannot_be_meant_is_refused_before_a_host_is_asked(controller: Controller) -> None:
    controller.says(ROLLED)
    run = controller.play(
        "rollback", "--limit", "app1", release_notices=[{"kind": "slack", "utl": f"https://a.test/{CANARY}"}]
    )
    assert run.returncode != 0
    assert "release_notices[0] (slack) has the key 'utl', which slack does not take (did you mean url?)" in run.stdout
    assert "Rolled back" not in run.stdout
    assert CANARY not in run.stdout + run.stderr


def test_all_hosts_in_one_table_and_one_that_is_away_fails_it(controller: Controller) -> None:
    controller.says(STATUS)
    run = controller.play("status")
    assert run.returncode == 2
    lines = run.stdout.strip().splitlines()
    (title,) = [number for number, line in enumerate(lines) if line.startswith("host ")]
    assert lines[title + 1].split()[:3] == ["app1", "edge", "app"]
    assert "shop-2" in lines[title + 1]
    assert lines[title + 2].startswith("gone")
    assert lines[title + 2].endswith("NOT REACHED")
    assert lines[-1] == "Live is shop-2 on app1. Without an answer: gone."


def test_for_machines_there_is_one_object_and_nothing_else(controller: Controller) -> None:
    controller.says(STATUS)
    run = controller.play("status", "--limit", "app1", status_format="json")
    assert run.returncode == 0, run.stdout + run.stderr
    told = json.loads(run.stdout)
    assert told["hosts"]["app1"]["live"]["release"] == "shop-2"
    assert told["message"] == "Live is shop-2 on app1. Nothing disagrees."
