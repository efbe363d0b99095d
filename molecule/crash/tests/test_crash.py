"""releasectl killed with -9 everywhere: what is live goes on serving, and the next deploy succeeds.

Each verb is killed before and after its state-changing system calls, which a tracer finds by watching it, and at
random instants (see tests/crash). `make test-full` tries every call and 200 instants; run alone (`molecule test -s
crash`) it takes a few of each long run of one kind (a release's files, unpacked one by one), and `make test` a small
sample of three verbs, others each time."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
FULL = bool(os.environ.get("SLIPWAY_TEST_FULL"))
SHARED = bool(os.environ.get("SLIPWAY_MOLECULE_SHARED"))
VERBS = ("activate", "watched", "rollback", "restart", "reconcile", "prepare", "migrate", "discard", "prune")
RANDOM = {"activate": 60, "watched": 20, "rollback": 40, "restart": 30, "prepare": 50, "prune": 20}
# Every point, or beside the other scenarios one, or the sweep's own choice.
POINTS = ["--every"] if FULL else ["--points", "1"] if SHARED else []
PLACE = "/run/slipway-crash"
# A featherweight release has no Celery: where its units are, something that runs is enough.
STAND_IN = "[Service]\nType=exec\nExecStart=\nExecStart=/bin/sleep infinity\n"
UNITS = ("celery-worker", "celery-beat")


@pytest.fixture(scope="module")
def sweep(lab: dict[str, Any], app1: Any) -> Iterator[Callable[..., dict[str, Any]]]:
    """A host that serves featherweight releases, and what runs a sweep on it."""
    container = lab["hosts"]["app1"]["container"]
    names = [f"featherweight-{number}" for number in (1, 2, 3)]
    made = subprocess.run([str(ROOT / "lab" / "cargo.py"), *names], capture_output=True, text=True, check=True)
    releases = [{key: value[key] for key in ("id", "artifact", "sha256")} for value in json.loads(made.stdout).values()]

    def host(*words: str) -> str:
        done = subprocess.run(["docker", "exec", container, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def put(file: Path, place: str) -> None:
        # `docker cp` cannot see what is mounted inside, such as /run.
        into = ["docker", "exec", "--interactive", container, "tee", f"{place}/{file.name}"]
        subprocess.run(into, input=file.read_bytes(), stdout=subprocess.DEVNULL, check=True)

    before = json.loads(host("releasectl", "status", "--json"))["live"]
    host("mkdir", "--parents", PLACE, *(f"/run/systemd/system/{unit}@.service.d" for unit in UNITS))
    for program in (ROOT / "tests" / "crash").glob("*.py"):
        put(program, PLACE)
    for release in releases:
        put(Path(release["artifact"]), "/opt/app/incoming")
    for unit in UNITS:
        host("sh", "-c", f"printf '{STAND_IN}' > /run/systemd/system/{unit}@.service.d/crash.conf")
    host("systemctl", "daemon-reload")
    for release in releases:
        name = Path(release["artifact"]).name
        host("releasectl", "prepare", "--id", release["id"], "--artifact", name, "--sha256", release["sha256"])
    # One of the two that take turns is live, and there is one to roll back to.
    for release in releases[:2]:
        if release["id"] != (json.loads(host("releasectl", "status", "--json"))["live"] or {}).get("release"):
            host("releasectl", "activate", "--id", release["id"])

    def run(capsys: pytest.CaptureFixture[str], verb: str, *words: str) -> dict[str, Any]:
        program = ["python3", f"{PLACE}/sweep.py", "--domain", lab["edge_name"], "--releases", json.dumps(releases)]
        process = subprocess.Popen(
            ["docker", "exec", container, *program, "--verb", verb, *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        line: dict[str, Any] = {}
        try:
            with capsys.disabled():
                for text in process.stdout:
                    line = json.loads(text)
                    print(f"crash: {line['verb']} {line.get('try', line)} {line.get('trouble') or ''}", flush=True)
            assert "tries" in line, process.stderr.read()
            process.wait()
        finally:
            # The engine lets go of a program that it started, but does not end it.
            if process.poll() is None:
                process.kill()
                host("pkill", "--full", f"{PLACE}/sweep.py")
        return line

    yield run

    for unit in UNITS:
        host("rm", "-r", f"/run/systemd/system/{unit}@.service.d")
    host("systemctl", "daemon-reload")
    # What was live before is live again, unless it was pruned on the way.
    status = json.loads(host("releasectl", "status", "--json"))
    kept = {release["id"] for release in status["releases"]} - {status["live"]["release"]}
    if before is not None and before["release"] in kept:
        host("releasectl", "activate", "--id", before["release"])
    host("rm", "-r", PLACE)


@pytest.mark.failure("verb-killed")
@pytest.mark.drawn(3)
@pytest.mark.parametrize("verb", VERBS)
def test_killed_before_and_after_its_calls(verb: str, sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = sweep(capsys, verb, *POINTS)
    assert result["troubles"] == [], "\n".join(result["troubles"])
    assert result["lost"] == 0
    assert result["requests"] > result["kills"]
    # Before each and after each; where they follow each other, after one is before the next.
    assert result["calls"] >= 5
    assert result["kills"] > result["tried"]


@pytest.mark.failure("verb-killed")
@pytest.mark.full
@pytest.mark.parametrize(("verb", "wanted"), RANDOM.items())
def test_killed_at_random_instants(verb: str, wanted: int, sweep: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = sweep(capsys, verb, "--random", str(wanted))
    assert result["troubles"] == [], "\n".join(result["troubles"])
    assert result["lost"] == 0
    assert result["kills"] == wanted
