"""In each phase of a deploy: its controller is killed, its host is rebooted, its connection is cut. Each is a deploy of
its own, so all of it is for `make test-full`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.full
# By the task that is on when it happens, and how long it has been.
PHASES = {
    "prepare": ("Build the release", 3.0),
    "migrate": ("Migrate the database", 0.5),
    "activate": ("Switch to the release when it is healthy", 1.5),
    "settle": ("Ask the edge for the release", 0.2),
}


@pytest.fixture(scope="module")
def before(ops: Any, edge: Any, cargo: dict[str, Any]) -> str:
    return str(ops.have_live(edge, cargo["good-1"]))


@pytest.fixture
def other(ops: Any, edge: Any, cargo: dict[str, Any], before: str) -> Iterator[dict[str, Any]]:
    """A release that is not there yet; afterwards the one from before serves again, and it is gone."""
    made = next(cargo[name] for name in ("good-2", "good-3") if cargo[name]["id"] != before)
    _settled(ops)
    if made["id"] in {release["id"] for release in ops.status()["releases"]}:
        ops.releasectl("prune", "--keep=1")
        ops.releasectl("discard", f"--id={made['id']}")
    yield made
    _settled(ops)
    if ops.live() != before:
        assert ops.rollback(before).code == 0
    edge.wait(30, release=before)


def _settled(ops: Any) -> None:
    """As an operator would leave it: nobody holds it, nothing is half done."""
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(IndexError, ValueError):
            ops.releasectl("unlock", "--force")
            if ops.releasectl("reconcile")["ok"]:
                return
        assert time.monotonic() < deadline, "it is busy for ever"
        time.sleep(1)


class Deploy:
    """A deploy that something happens to in the middle."""

    def __init__(self, ops: Any, artifact: str, phase: str) -> None:
        self.process = ops.begin("playbooks/deploy.yml", "-e", f"release_artifact={artifact}")
        self.lines: list[str] = []
        task, seconds = PHASES[phase]
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("TASK ") and task in line:
                break
        time.sleep(seconds)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.end()

    def end(self) -> tuple[int, str]:
        """How it ended, and its last line."""
        output, _ = self.process.communicate(timeout=400)
        lines = [line for line in ("".join(self.lines) + output).splitlines() if line.strip()]
        return self.process.returncode, lines[-1]


@pytest.mark.failure("controller-killed")
@pytest.mark.parametrize("phase", PHASES)
def test_the_controller_is_killed(phase: str, ops: Any, edge: Any, before: str, other: dict[str, Any]) -> None:
    deploy = Deploy(ops, other["artifact"], phase)
    deploy.kill()
    assert edge.get("/").status == 200
    again = ops.deploy(other["artifact"])
    if again.code != 0:
        # Its verb still runs, or it holds the lease: either is said with who and what.
        assert "is running" in again.closing or "holds the lease" in again.closing or "is live already" in again.closing
        _settled(ops)
        again = ops.deploy(other["artifact"])
    assert again.code == 0 or f"{other['id']} is live already" in again.closing, again.output
    assert edge.get("/").release == other["id"]
    status = ops.status()
    assert (status["drift"], status["intent"]) == ([], None)


@pytest.mark.failure("host-rebooted")
@pytest.mark.parametrize("phase", PHASES)
def test_the_host_is_rebooted(
    phase: str, lab: dict[str, Any], ops: Any, edge: Any, before: str, other: dict[str, Any]
) -> None:
    deploy = Deploy(ops, other["artifact"], phase)
    container = lab["hosts"]["app1"]["container"]
    subprocess.run(["docker", "restart", container], check=True, stdout=subprocess.DEVNULL, timeout=120)
    code, closing = deploy.end()
    edge.wait(120)
    assert other["id"] in closing
    live = edge.get("/").release
    # It waited for the host and went on, or says that it did not and what serves.
    assert live == (other["id"] if code == 0 else live)
    assert live in (before, other["id"])
    _settled(ops)
    status = ops.status()
    assert status["live"]["release"] == live
    assert (status["drift"], status["intent"]) == ([], None)
    assert {release["id"] for release in status["releases"]} >= {before, live}
    again = ops.deploy(other["artifact"])
    assert again.code == 0 or "is live already" in again.closing, again.output


@pytest.mark.failure("ssh-cut")
@pytest.mark.parametrize("phase", ["prepare", "activate"])
def test_the_connection_is_cut(phase: str, app1: Any, ops: Any, edge: Any, before: str, other: dict[str, Any]) -> None:
    deploy = Deploy(ops, other["artifact"], phase)
    app1.check_output("pkill -9 -f '[s]shd: deployer'; true")
    code, closing = deploy.end()
    assert code == 0, closing
    assert f"{other['id']} is live on app1" in closing
    assert edge.get("/").release == other["id"]
