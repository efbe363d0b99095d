"""Whatever bars the way in is taken back, by the play, by the host alone, and over a restart; a proven change stays."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.outside import ROOT, play, ssh

CUT_OFF = "molecule/guard/cut_off.yml"
# All that decides who gets in, with owners and modes; of shadow and the like only that they are the same.
FINGERPRINT = (
    "find /etc/ssh /etc/pam.d /etc/sudoers /etc/sudoers.d /etc/passwd /etc/shadow /etc/group /home/ops/.ssh"
    " \\( -type f -exec sha256sum {} + \\) , -printf '%p %m %U %G %l\\n' | sort; iptables -S; ip6tables -S"
)
LIMIT = 120  # seconds after which whoever waits outside must be in again


@pytest.fixture(scope="module", autouse=True)
def packet_filter(app1: Any) -> None:
    """A host may be without one; here there has to be one that can be broken."""
    if app1.run("iptables -V").rc:
        app1.check_output("apt-get install -qq -y --no-install-recommends iptables")


@pytest.fixture
def before(lab: dict[str, Any], app1: Any) -> Iterator[str]:
    """How the host is; whatever a failed test left is put right for the next one."""
    fingerprint = app1.check_output(FINGERPRINT)
    yield fingerprint
    app1.check_output("/usr/local/libexec/slipway/guard fire")
    assert ssh(lab, "ops", "app1", "sudo -n true").returncode == 0


def status(app1: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(app1.check_output("/usr/local/libexec/slipway/guard status"))
    return answer


def wait_until_in(lab: dict[str, Any], app1: Any, begun: float) -> float:
    """Until the operator gets in with sudo and nothing is armed any more; the seconds since it began."""
    while time.monotonic() - begun < LIMIT:
        done = ssh(lab, "ops", "app1", "sudo -n true", "-o", "ConnectTimeout=3")
        if done.returncode == 0 and status(app1)["armed"] is None:
            return time.monotonic() - begun
        time.sleep(0.5)
    pytest.fail(f"after {LIMIT} s the operator is still outside")


@pytest.mark.drawn(2)
@pytest.mark.parametrize("cut", ["firewall", "sshd", "allowgroups", "keys", "pam", "sudo"])
def test_what_bars_the_way_in_is_taken_back_and_the_play_says_so(lab, app1, before, cut):
    begun = time.monotonic()
    done = play(lab, CUT_OFF, cut=cut, seconds=20)
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "Prove a new login, then disarm the guard: a new login to app1 as ops was not accepted" in said
    # Who lost sudo cannot ask for it to be put back: then it is the host's own timer that does it.
    assert f"app1 was put back as it was, {'by its own timer' if cut == 'sudo' else 'at once'}" in said
    assert "ops may log in as before. Mend the cut." in said
    assert wait_until_in(lab, app1, begun) < LIMIT
    assert app1.check_output(FINGERPRINT) == before
    assert status(app1)["last"]["outcome"] == "fired"


def test_a_host_that_is_lost_with_the_connection_comes_back_and_is_named(lab, app1, before):
    begun = time.monotonic()
    done = play(lab, CUT_OFF, cut="connection", seconds=20)
    assert done.returncode != 0
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith("app1 was lost while a test cuts the operator off (connection). It puts everything back")
    assert wait_until_in(lab, app1, begun) < LIMIT
    assert app1.check_output(FINGERPRINT) == before
    assert status(app1)["last"]["why"] == "timer"


def start(lab: dict[str, Any], **variables: Any) -> subprocess.Popen[bytes]:
    """A play that will be killed in the middle."""
    argv = [
        Path(sys.executable).with_name("ansible-playbook"), "-i", ".config/molecule/inventory", CUT_OFF,
        "-e", json.dumps(variables),
    ]  # fmt: skip
    environment = {**os.environ, "SLIPWAY_LAB": lab["name"], "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    return subprocess.Popen(
        argv, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def descendants(pid: int) -> list[int]:
    """What a process started, and what that did: Ansible's workers are in sessions of their own, and would live on."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found


def cut_and_kill(lab: dict[str, Any], app1: Any, before: str, cut: str, seconds: int) -> None:
    """The controller dies after the cut and before the proof."""
    process = start(lab, cut=cut, seconds=seconds, hold=300)
    try:
        deadline = time.monotonic() + 60
        while app1.check_output(FINGERPRINT) == before:
            assert time.monotonic() < deadline, "nothing was cut"
            time.sleep(0.2)
    finally:
        for pid in (process.pid, *descendants(process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    assert status(app1)["armed"] is not None


def test_without_its_controller_the_host_takes_it_back_alone(lab, app1, before):
    begun = time.monotonic()
    cut_and_kill(lab, app1, before, "allowgroups", 15)
    assert ssh(lab, "ops", "app1", "true").returncode == 255
    assert wait_until_in(lab, app1, begun) < LIMIT
    assert app1.check_output(FINGERPRINT) == before
    assert status(app1)["last"]["why"] == "timer"


def test_a_restart_while_armed_takes_it_back(lab, app1, before):
    cut_and_kill(lab, app1, before, "allowgroups", 500)
    begun = time.monotonic()
    subprocess.run(["lab/lab.py", "restart", "app1"], cwd=ROOT, check=True, capture_output=True)
    assert wait_until_in(lab, app1, begun) < LIMIT
    # What the packet filter held went with the restart, here as on every host that does not load it at boot.
    rules = [line for line in before.splitlines() if not line.startswith("-")]
    assert [line for line in app1.check_output(FINGERPRINT).splitlines() if not line.startswith("-")] == rules
    assert status(app1)["last"]["why"] == "boot"
    assert app1.check_output("systemctl list-units --failed --plain --no-legend 'slipway-guard*'") == ""


def test_a_proven_change_stays(lab, app1, before):
    done = play(lab, CUT_OFF, cut="nothing", seconds=10)
    assert done.returncode == 0, done.stdout
    time.sleep(11)
    assert app1.file("/etc/ssh/harmless").exists
    assert status(app1)["armed"] is None
    assert status(app1)["last"]["outcome"] == "disarmed"
    app1.check_output("rm /etc/ssh/harmless")


@pytest.mark.full
def test_a_proof_that_comes_too_late_fails(lab, app1, before):
    done = play(lab, CUT_OFF, cut="nothing", seconds=10, hold=12)
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "the proof came too late. Nothing is armed any more: everything was put back" in said
    assert "app1 was put back as it was, by its own timer (1 path)" in said
    assert not app1.file("/etc/ssh/harmless").exists


def test_armed_again_it_goes_back_to_the_first_state(lab, app1, before):
    guard = "/usr/local/libexec/slipway/guard"
    app1.check_output(f"{guard} arm --token one --seconds 300 --because first")
    app1.check_output("touch /etc/ssh/first")
    app1.check_output(f"{guard} arm --token two --seconds 300 --because second")
    app1.check_output("touch /etc/ssh/second")
    refused = app1.run(f"{guard} disarm --token one")
    assert refused.rc == 1
    assert "It was armed again, by somebody" in json.loads(refused.stdout)["message"]
    app1.check_output(f"{guard} fire")
    assert app1.check_output(FINGERPRINT) == before


def test_a_guard_that_is_killed_while_it_puts_back_is_not_over(lab, app1, before):
    """Dead in the middle, it begins anew: here by what the next boot would start."""
    guard = "/usr/local/libexec/slipway/guard"
    app1.check_output(f"{guard} arm --token dies --seconds 300 --because 'it will die'")
    app1.check_output("rm -r /home/ops/.ssh; touch /etc/ssh/extra")
    app1.check_output(f"timeout -s KILL 0.15 {guard} fire >/dev/null 2>&1; rc=$?; test $rc = 137 -o $rc = 0")
    app1.check_output("systemctl start slipway-guard.service")
    assert app1.check_output(FINGERPRINT) == before
    assert status(app1)["armed"] is None


def test_without_the_guard_nothing_is_changed(lab, app1, before):
    app1.check_output("mv /usr/local/libexec/slipway/guard /root/guard")
    try:
        done = play(lab, CUT_OFF, cut="keys")
    finally:
        app1.check_output("mv /root/guard /usr/local/libexec/slipway/guard")
    assert done.returncode != 0
    said = " ".join(done.stdout.split())
    assert "run site.yml with --tags guard first" in said
    assert "app1 was left as it was." in said
    assert app1.check_output(FINGERPRINT) == before


def test_in_check_mode_nothing_is_armed(lab, app1, before):
    last = status(app1)["last"]
    done = play(lab, CUT_OFF, "--check", cut="nothing")
    assert done.returncode == 0, done.stdout
    assert status(app1) == {"ok": True, "armed": None, "last": last}
