"""bin/engine finds or starts a container engine, or says in one sentence what to do. All it calls is a fake here."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Machine:
    """A directory that is all of PATH but for the shell's own tools; what is called is written down."""

    def __init__(self, directory: Path) -> None:
        self.checkout = directory / "checkout"
        (self.checkout / "bin").mkdir(parents=True)
        shutil.copy(ROOT / "bin" / "engine", self.checkout / "bin" / "engine")
        self.programs = directory / "programs"
        self.programs.mkdir()
        self.calls = directory / "calls"
        self.calls.touch()
        self.up = directory / "up"
        for name in (
            "bash",
            "cat",
            "grep",
            "seq",
            "sleep",
            "mkdir",
            "rm",
            "dirname",
            "timeout",
            "setsid",
            "tail",
            "touch",
        ):
            found = shutil.which(name)
            assert found
            (self.programs / name).symlink_to(found)
        self.install("id", 'if [[ $1 == -u ]]; then echo "${FAKE_UID:-0}"; else echo somebody; fi')
        self.install("docker", f"[[ -e {self.up} ]] || {{ echo 'cannot connect' >&2; exit 1; }}; echo 20.10")
        for name in ("ip", "find", "iptables"):
            self.install(name, "")
        # Where the machine that runs this test has systemd, it is that which is asked to start the engine.
        self.install("systemctl", f"touch {self.up}")

    def install(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f'#!{self.programs}/bash\necho "{name} $*" >>{self.calls}\n{script}\n')
        path.chmod(0o755)

    def install_daemon(self) -> None:
        # A loop, and not one long sleep, so that a signal ends it at once.
        self.install("dockerd", f"touch {self.up}; while sleep 0.1; do :; done")

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        done = subprocess.run(
            [self.checkout / "bin" / "engine", *arguments],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
            env={"PATH": str(self.programs), **environment},
        )  # fmt: skip
        return done.returncode, done.stderr

    def called(self, name: str) -> list[str]:
        return [line for line in self.calls.read_text().splitlines() if line.split()[0] == name]

    @property
    def pid(self) -> int | None:
        path = self.checkout / ".cache" / "engine" / "dockerd.pid"
        return int(path.read_text()) if path.exists() else None


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    if made.pid:
        os.kill(made.pid, 9)


debian_only = pytest.mark.skipif(
    not Path("/etc/debian_version").exists(), reason="apt is asked on Debian and Ubuntu only"
)
no_init_only = pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd starts the engine here")


def test_an_engine_that_answers_is_left_as_it_is(machine: Machine) -> None:
    machine.up.touch()
    assert machine.run() == (0, "")
    assert machine.pid is None


def test_who_may_not_start_one_is_told_what_to_install(machine: Machine) -> None:
    code, words = machine.run(FAKE_UID="1000")
    assert code == 1
    assert len(words.strip().splitlines()) == 1
    assert "apt-get install docker.io iptables" in words


def test_who_may_not_use_the_one_that_runs_is_told_how(machine: Machine) -> None:
    machine.install("docker", "echo 'permission denied while trying to connect' >&2; exit 1")
    code, words = machine.run(FAKE_UID="1000")
    assert code == 1
    assert "usermod -aG docker" in words


@debian_only
@no_init_only
def test_one_is_installed_started_detached_and_stopped_again(machine: Machine) -> None:
    machine.install("apt-get", f"if [[ $1 == install ]]; then touch {machine.checkout}/installed; fi")
    machine.install_daemon()
    (machine.programs / "iptables").unlink()
    code, words = machine.run()
    assert code == 0, words
    assert [call.split()[1] for call in machine.called("apt-get")] == ["update", "install"]
    process = machine.pid
    assert process
    assert os.getsid(process) == process, "it has a session of its own"
    assert machine.run()[0] == 0
    assert machine.pid == process, "a second start finds the first"
    machine.up.unlink()
    assert machine.run("stop")[0] == 0
    deadline = time.monotonic() + 5
    while Path(f"/proc/{process}/comm").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert machine.pid is None


def test_stop_leaves_an_engine_alone_that_it_did_not_start(machine: Machine) -> None:
    machine.up.touch()
    assert machine.run("stop") == (0, "")
    assert machine.called("ip") == []


def test_stop_kills_no_stranger_that_got_the_number(machine: Machine) -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        state = machine.checkout / ".cache" / "engine"
        state.mkdir(parents=True)
        (state / "dockerd.pid").write_text(str(stranger.pid))
        assert machine.run("stop")[0] == 0
        assert stranger.poll() is None
        stranger.kill()


@debian_only
def test_when_apt_fails_its_last_words_are_shown(machine: Machine) -> None:
    machine.install("apt-get", "echo 'E: Unable to fetch'; exit 100")
    code, words = machine.run()
    assert code == 1
    assert "E: Unable to fetch" in words
    assert words.strip().splitlines()[-1].startswith("apt could not install docker.io")
