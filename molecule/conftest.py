"""What every scenario's tests have: the lab's hosts, asked as root from inside, and the lab's facts."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import namespaces

ROOT = Path(__file__).resolve().parents[1]
LAB = os.environ.get("SLIPWAY_LAB") or "molecule"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave to `make test-full` what is marked `full`, and all but n parameters of what is marked `drawn(n)`, drawn by
    SLIPWAY_TEST_SEED. A scenario that runs alone runs all of its tests."""
    if not os.environ.get("SLIPWAY_MOLECULE_SHARED") or os.environ.get("SLIPWAY_TEST_FULL"):
        return
    left = [item for item in items if item.get_closest_marker("full")]
    drawing = random.Random(os.environ.get("SLIPWAY_TEST_SEED", "0"))
    kinds: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("drawn"):
            kinds.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for kind in kinds.values():
        (count,) = kind[0].get_closest_marker("drawn").args  # type: ignore[union-attr]
        left += drawing.sample(kind, max(0, len(kind) - count))
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest.fixture(scope="session")
def lab() -> dict[str, Any]:
    """What the lab knows of itself: addresses, keys, ports (see lab/files.py)."""
    facts: dict[str, Any] = json.loads((ROOT / ".lab" / LAB / "facts.json").read_text())
    return facts


@pytest.fixture(scope="session")
def app1(lab: dict[str, Any]) -> Any:
    return namespaces.host(lab["hosts"]["app1"]["container"])


@pytest.fixture(scope="session")
def data1(lab: dict[str, Any]) -> Any:
    return namespaces.host(lab["hosts"]["data1"]["container"])


# What a user of the app, a deployer and an operator see.


@dataclass(frozen=True)
class Answer:
    """What the edge said."""

    status: int
    release: str | None
    text: str


class Edge:
    """The public edge, asked as users ask it: over HTTPS by its name, the lab's authority trusted and no other."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.name = facts["edge_name"]
        self.address = facts["edge_address"]
        self.trust = ssl.create_default_context(cafile=facts["ca"])

    def get(self, path: str = "/", timeout: float = 10) -> Answer:
        connection = http.client.HTTPSConnection(self.name, timeout=timeout, context=self.trust)
        plain = socket.create_connection((self.address, 443), timeout)
        connection.sock = self.trust.wrap_socket(plain, server_hostname=self.name)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheader("X-Release"), answer.read().decode(errors="replace"))
        finally:
            connection.close()

    def wait(self, seconds: float, path: str = "/readyz", release: str | None = None) -> float:
        """Wait until it answers 200, from the given release; return how long that took."""
        begun = time.monotonic()
        last = "nothing"
        while time.monotonic() - begun < seconds:
            try:
                answer = self.get(path, timeout=2)
            except (OSError, http.client.HTTPException) as error:
                last = repr(error)
            else:
                last = f"{answer.status} from {answer.release}"
                if answer.status == 200 and release in (None, answer.release):
                    return time.monotonic() - begun
            time.sleep(0.1)
        pytest.fail(f"after {seconds} s the edge still answered {last}")


@dataclass(frozen=True)
class Run:
    """How a playbook ended."""

    code: int
    output: str

    @property
    def closing(self) -> str:
        """The last line, which says what happened."""
        return self.output.strip().splitlines()[-1]


class Operations:
    """What people type."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = facts

    def begin(self, name: str, *extra: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
        """Start a playbook, in a process group of its own; what it prints is read from its `stdout`."""
        # Group variables lie beside playbooks/; for other playbooks, beside this other inventory of the same hosts.
        inventory = self.facts["inventory"] if name.startswith("playbooks/") else ".config/molecule/inventory"
        program = Path(sys.executable).with_name("ansible-playbook")
        command = [str(program), "-i", str(ROOT / inventory), str(ROOT / name), *extra]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "SLIPWAY_LAB": LAB,
        }
        return subprocess.Popen(
            command,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def playbook(self, name: str, *extra: str, cwd: Path = ROOT) -> Run:
        with self.begin(name, *extra, cwd=cwd) as process:
            try:
                output, _ = process.communicate(timeout=600)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return Run(process.returncode, output)

    def deploy(self, artifact: str, *extra: str, cwd: Path = ROOT) -> Run:
        return self.playbook("playbooks/deploy.yml", "-e", f"release_artifact={artifact}", *extra, cwd=cwd)

    def rollback(self, release: str = "") -> Run:
        return self.playbook("playbooks/rollback.yml", *(["-e", f"release_id={release}"] if release else []))

    def as_deployer(self, *words: str, host: str = "app1") -> subprocess.CompletedProcess[str]:
        """Log in with the deploy key and run a command line."""
        return subprocess.run(
            ["ssh", "-F", self.facts["ssh_config"], f"deployer@{host}", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def releasectl(self, *words: str, host: str = "app1") -> dict[str, Any]:
        done = self.as_deployer("sudo", "-n", "/usr/local/sbin/releasectl", *words, "--json", host=host)
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def status(self) -> dict[str, Any]:
        return self.releasectl("status")

    def live(self) -> str | None:
        live = self.status()["live"]
        return live["release"] if live else None

    def have_live(self, edge: Edge, good: dict[str, Any]) -> str:
        """The id of a release that is live and serves: what is there, or else the one that is known as good."""
        release = self.live()
        if release is None:
            run = self.deploy(good["artifact"])
            assert run.code == 0, run.output
            release = str(good["id"])
        edge.wait(30, release=release)
        return release


@pytest.fixture(scope="session")
def edge(lab: dict[str, Any]) -> Edge:
    return Edge(lab)


@pytest.fixture(scope="session")
def ops(lab: dict[str, Any]) -> Operations:
    return Operations(lab)


@pytest.fixture(scope="session")
def cargo() -> dict[str, dict[str, Any]]:
    """Releases to try things with: see lab/cargo.py."""
    names = ["good-1", "good-2", "good-3", "bad", "crash", "sour"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "lab/cargo.py"), *names],
        env={**os.environ, "SLIPWAY_LAB": LAB},
        capture_output=True,
        text=True,
        check=True,
    )
    packed: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return packed


@pytest.fixture
def configured(app1: Any) -> Iterator[Callable[..., None]]:
    """Gives releasectl on app1 other bounds for one test: `configured(hook_timeout=1)`."""
    path = "/etc/slipway/releasectl.json"
    kept = app1.check_output(f"cat {path}")

    def write(text: str) -> None:
        app1.check_output(f"cat > {path} <<'END'\n{text}\nEND")

    yield lambda **changes: write(json.dumps({**json.loads(kept), **changes}))
    write(kept)


@pytest.fixture
def live(ops: Operations, edge: Edge, cargo: dict[str, dict[str, Any]]) -> str:
    """The id of a release that is live and serves: what is there, or else good-1."""
    return ops.have_live(edge, cargo["good-1"])


class Strangers:
    """Clients from anywhere in the world: see tests/strangers.py."""

    PROGRAM = "/run/strangers.py"

    def __init__(self, facts: dict[str, Any]) -> None:
        self.name = facts["edge_name"]
        self.container = facts["hosts"]["app1"]["container"]
        program = (ROOT / "tests" / "strangers.py").read_bytes()
        self._run(["sh", "-c", f"cat >{self.PROGRAM}"], program)

    def _run(self, command: list[str], given: bytes) -> bytes:
        argv = ["docker", "exec", "-i", self.container, *command]
        return subprocess.run(argv, input=given, stdout=subprocess.PIPE, check=True, timeout=120).stdout

    def question(self, path: str, client: str = "198.51.100.1", **more: Any) -> dict[str, Any]:
        return {"name": self.name, "path": path, "client": client, **more}

    def ask(self, path: str, times: int = 1, together: int = 1, **more: Any) -> list[dict[str, Any]]:
        questions = [self.question(path, **more)] * times
        given = json.dumps({"together": together, "questions": questions}).encode()
        answers: list[dict[str, Any]] = json.loads(self._run(["python3", self.PROGRAM], given))
        return answers

    def begin(self, path: str, **more: Any) -> subprocess.Popen[bytes]:
        """Ask again and again, behind, until `end`, which has the answers."""
        argv = ["docker", "exec", "-i", self.container, "python3", self.PROGRAM]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin
        process.stdin.write(json.dumps({"question": self.question(path, **more)}).encode() + b"\n")
        process.stdin.flush()
        return process

    def end(self, process: subprocess.Popen[bytes]) -> list[tuple[int, str | None, str]]:
        answers = json.loads(process.communicate(timeout=60)[0])
        assert process.returncode == 0
        return [(status, later, text) for status, later, text in answers]


@pytest.fixture(scope="session")
def strangers(lab: dict[str, Any]) -> Strangers:
    return Strangers(lab)
