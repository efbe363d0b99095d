"""What a release has to show beyond its health path, on the host and under load."""

from __future__ import annotations

import json
import shlex
import threading
import time

import pytest

from lab import cargo as packing
from molecule.conftest import LAB

CONFIGURATION = "/etc/slipway/releasectl.json"
REACHED = (
    "import os, socket, sys; socket.socket(socket.AF_UNIX).connect(os.environ['SLIPWAY_SOCKET']); import django;"
    " sys.exit('reached by ' + os.environ['RELEASE_ID'] + ' in ' + os.environ['DATABASE_URL'].partition(':')[0])"
)


@pytest.fixture
def tell(app1):
    """Tell the host what a release has to show, as site.yml would; what it was told before holds again afterwards."""
    before = app1.check_output(f"cat {CONFIGURATION}")

    def write(text):
        app1.check_output(f"printf %s {shlex.quote(text)} > {CONFIGURATION}")

    yield lambda **values: write(json.dumps({**json.loads(before), **values}))
    write(before)


@pytest.fixture
def visitors(edge):
    """People who ask for the front page all the time; what they were answered: (status, release)."""
    answers = []
    gone = threading.Event()

    def visit():
        while not gone.wait(0.02):
            answer = edge.get("/")
            answers.append((answer.status, answer.release))

    thread = threading.Thread(target=visit, daemon=True)
    thread.start()
    yield answers
    gone.set()
    thread.join(15)


def test_a_release_that_fails_a_smoke_test_is_refused_and_meets_nobody(tell, app1, ops, live, cargo, visitors):
    tell(smoke_tests=[{"path": "/healthz", "contains": "ok"}, {"path": "/", "status": 200}])
    sour = cargo["sour"]
    before = ops.status()["live"]
    run = ops.deploy(sour["artifact"])
    assert run.code != 0
    assert f"{sour['id']} failed its smoke test GET /: it answered 500, not 200" in run.closing
    assert f"nothing was switched, {live} still serves" in run.closing
    assert "the milk is sour" in run.output
    assert set(visitors) == {(200, live)}
    assert ops.status()["live"] == before
    assert not app1.file(f"/opt/app/releases/{sour['id']}").exists


@pytest.mark.failure("crash-after-switch")
def test_a_release_that_fails_its_visitors_goes_back_by_itself_within_seconds(ops, edge, live, cargo, visitors):
    sour = cargo["sour"]
    before = ops.status()["live"]
    began = time.monotonic()
    run = ops.deploy(sour["artifact"], "-e", "release_watch_seconds=300", "-e", "release_verify_path=/")
    assert time.monotonic() - began < 120, "it was watched to the end"
    assert run.code != 0
    assert f"{sour['id']} was live for " in run.closing
    assert "answers were errors" in run.closing
    assert f"Outcome: app1 went back to {live}." in run.closing
    assert (500, sour["id"]) in visitors, "nobody met it, so this shows nothing"
    assert {answer for answer in visitors if answer[1] != sour["id"]} == {(200, live)}, "going back lost a request"
    assert edge.get("/").status == 200
    status = ops.status()
    assert status["live"] == before, "the one before had to be started anew"
    assert (status["watching"], status["drift"], status["lease"]) == (None, [], None)
    assert ops.releasectl("discard", f"--id={sour['id']}")["changed"]


@pytest.mark.full
def test_the_apps_own_command_reaches_the_new_generation_with_its_settings(tell, ops, live, cargo):
    other = next(cargo[name] for name in ("good-2", "good-3") if cargo[name]["id"] != live)
    tell(smoke_command=["python", "-c", REACHED])
    run = ops.deploy(other["artifact"])
    assert run.code != 0
    assert f"failed: reached by {other['id']} in postgres. Outcome: nothing was switched" in run.closing
    assert ops.live() == live


def test_the_switch_waits_for_the_last_worker(app1, ops, live):
    """The gate is passed by the first one; the others would load the app while users wait for them."""
    made = packing.variants(["uneven"], LAB)["uneven"]
    run = ops.deploy(made["artifact"])
    assert run.code == 0, run.output
    at = float(app1.check_output("stat --format=%.9Y /run/app/current.sock"))
    place = f"/run/app/{ops.status()['live']['generation']}"
    loaded = [float(line) for line in app1.check_output(f"stat --format=%.9Y {place}/ready-*").split()]
    workers = app1.check_output(
        f"pgrep --count --parent $(systemctl show --property=MainPID --value gunicorn@{place[9:]})"
    )
    assert len(loaded) == int(workers) > 1
    assert max(loaded) - min(loaded) > 2, "they were not uneven"
    assert max(loaded) < at
    # And none is at the low priority at which it loaded.
    assert set(app1.check_output("ps -C gunicorn -L -o ni=").split()) == {"0"}
    assert ops.rollback().code == 0
    assert ops.status()["live"]["release"] == live
