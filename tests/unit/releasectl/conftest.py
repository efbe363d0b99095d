"""A host in a temporary directory: real files, a service manager that only remembers."""

import json
import shutil
import subprocess
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from releasectl import cli, health
from releasectl.config import Config
from releasectl.errors import Refusal
from releasectl.lifecycle import Lifecycle
from releasectl.names import Generation
from releasectl.systemd import Unit

ROOT = Path(__file__).resolve().parents[3]


class FakeSystemd:
    """Remembers what was started and stopped; a unit in ``broken`` does not start."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {"app.service": "active"}
        self.words: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.broken: set[str] = set()
        self.restarted: dict[str, int] = {}

    def units(self) -> list[Unit]:
        found = []
        for name, active in self.states.items():
            process, at, instance = name.removesuffix(".service").partition("@")
            if at:
                found.append(Unit(process, Generation.parse(instance), active))
        return found

    def start(self, unit: str, block: bool = True) -> bool:  # noqa: ARG002
        self.calls.append(("start", unit))
        if any(word in unit for word in self.broken):
            return False
        self.states[unit] = "active"
        return True

    def stop(self, units: Iterable[str], block: bool = True) -> None:  # noqa: ARG002
        for unit in units:
            self.calls.append(("stop", unit))
            self.states.pop(unit, None)

    def active(self, unit: str) -> str:
        return self.states.get(unit, "inactive")

    def restarts(self, unit: str) -> int:
        return self.restarted.get(unit, 0)

    def control_groups(self, units: Iterable[str]) -> dict[str, int]:
        return {f"/system.slice/app.slice/{unit}": 2**20 for unit in units if self.states.get(unit) == "active"}

    def main_pid(self, unit: str) -> int:  # noqa: ARG002
        return 0

    def told(self, unit: str) -> str:
        return self.words.get(unit, "")

    def journal(self, unit: str, lines: int = 20) -> list[str]:
        return [f"line {number} of {unit}" for number in range(lines)]

    def running(self, process: str) -> list[str]:
        return [name for name in self.states if name.startswith(f"{process}@")]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = Config(
        processes=("gunicorn", "celery-worker", "celery-beat"),
        settings_module="config.settings",
        wsgi="config.wsgi:application",
        celery_app="config",
        requirements="requirements.lock",
        health_path="/readyz",
        # Those who try them switch them on: a test does not fail where the machine is full.
        disk_check=False,
        memory_check=False,
        **{
            name: tmp_path / name
            for name in (
                "releases",
                "venvs",
                "current",
                "incoming",
                "state",
                "env",
                "run",
                "private_run",
                "static",
                "events",
            )
        },
    )
    for path in (made.releases, made.incoming, made.state, made.run, made.private_run, made.static, made.events):
        path.mkdir()
    made.make_directories()
    (tmp_path / "env.1").mkdir()
    made.env.symlink_to("env.1")
    return made


@pytest.fixture
def systemd() -> FakeSystemd:
    return FakeSystemd()


@pytest.fixture
def unhealthy(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Releases whose health gate stays shut."""
    refused: set[str] = set()

    def gate(path: Path, *_args: object, **_options: object) -> None:
        if Generation.parse(path.parent.name).release in refused:
            raise Refusal("it answered 500")

    monkeypatch.setattr(health, "gate", gate)
    return refused


@pytest.fixture
def host(config: Config, systemd: FakeSystemd, unhealthy: set[str]) -> Lifecycle:
    for number, release in enumerate(("a", "b", "c", "d")):
        make_release(config, release, number)
    return Lifecycle(config, systemd)  # type: ignore[arg-type]


def make_release(config: Config, release: str, number: int = 0) -> None:
    directory = config.release_dir(release)
    directory.mkdir()
    record = {
        "id": release, "sha256": "0" * 64, "prepared_at": f"2026-01-01T00:00:{number:02}Z", "prepared_by": "test",
        "entries": 1, "bytes": 1, "revision": None,
    }  # fmt: skip
    (directory / "release.json").write_text(json.dumps(record))


@pytest.fixture(scope="session")
def django(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python with what the bookshop is released with, as a release's own is made."""
    # bin/setup keeps a uv of its own where the machine has none that works.
    own = ROOT / ".cache/uv/bin/uv"
    uv = str(own) if own.exists() else shutil.which("uv")
    assert uv, "run bin/setup first"
    venv = tmp_path_factory.mktemp("django") / "venv"
    python = str(venv / "bin" / "python")
    lock = str(ROOT / "examples/bookshop/requirements.lock")
    subprocess.run([uv, "venv", "--quiet", "--no-config", "--python", "3.11", str(venv)], check=True)
    install = [uv, "pip", "sync", "--quiet", "--no-config", "--require-hashes"]
    subprocess.run([*install, "--python", python, lock], check=True)
    return python


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What nginx wrote before anybody looked: fifty good answers of `b`."""
    path = tmp_path / "access.log"
    entry = {
        "time": "2026-01-01T00:00:00+00:00", "status": 200, "release": "b", "upstream_status": "200",
        "request_time": 0.1,
    }  # fmt: skip
    path.write_text((json.dumps(entry) + "\n") * 50)
    return path


def request_of(*words: str, actor: str = "me", **more: object) -> dict[str, object]:
    """What a verb is asked, as the command line has it."""
    found = vars(cli.parser().parse_args(words))
    found.pop("json")
    return {**found, "actor": found["actor"] or actor, **more}


class Quiet(BaseHTTPRequestHandler):
    """A server's answers on a unix socket, without a word on the terminal."""

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        pass
