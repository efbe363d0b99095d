"""The machine under QEMU: its command line, what it is told of the other hosts, and what ends with it."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.state import LabError
from lab.vm import disk, machine
from lab.vm.recipe import look
from lab.vm.state import Guest
from tests.vm import seen

SSH_CONFIG = """\
# Written by the lab: ssh -F this-file app1

Host app1 192.0.2.11 2001:db8::b
  HostName 192.0.2.11
  HostKeyAlias app1

Host data1 192.0.2.12 2001:db8::c
  HostName 192.0.2.12
  HostKeyAlias data1
"""


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path, ssh_port=2222, https_port=8643)


def pairs(words: list[str]) -> dict[str, str]:
    return dict(itertools.pairwise(words))


def test_the_command_line_boots_the_kernel_that_was_made_with_the_disk(guest: Guest) -> None:
    given = pairs(machine.command(guest, "tcg"))
    assert given["-kernel"] == str(guest.kernel)
    assert given["-initrd"] == str(guest.initrd)
    assert f"file={guest.disk}," in given["-drive"]
    assert "root=LABEL=root" in given["-append"].split()
    assert given["-serial"] == f"file:{guest.console}"


def test_it_is_reached_from_this_machine_alone(guest: Guest) -> None:
    network = pairs(machine.command(guest, "tcg"))["-netdev"]
    assert "hostfwd=tcp:127.0.0.1:2222-10.0.2.15:22" in network
    assert "hostfwd=tcp:127.0.0.1:8643-10.0.2.15:443" in network
    assert network.count("hostfwd") == network.count("127.0.0.1")


@pytest.mark.parametrize(
    ("accelerator", "processor", "more"), [("kvm", "host", ""), ("tcg", machine.EMULATED, f" {machine.UNBURDENED}")]
)
def test_emulation_and_kvm_differ_in_nothing_but_speed(
    guest: Guest, accelerator: str, processor: str, more: str
) -> None:
    words = machine.command(guest, accelerator)
    assert pairs(words)["-cpu"] == processor
    assert pairs(words)["-accel"].startswith(accelerator)
    emulated = machine.command(guest, "tcg")
    kernel = pairs(emulated)["-append"].removesuffix(f" {machine.UNBURDENED}")
    assert pairs(words)["-append"] == kernel + more
    allowed = {"kvm", "host", "tcg,thread=multi,tb-size=512", machine.EMULATED, kernel, pairs(emulated)["-append"]}
    assert set(words) ^ set(emulated) <= allowed


def test_ssh_goes_to_the_machine_and_to_nowhere_else(guest: Guest) -> None:
    text = machine.redirected(SSH_CONFIG, guest)
    assert "Host app1 192.0.2.11 2001:db8::b\n  HostName 127.0.0.1\n  Port 2222\n  HostKeyAlias app1\n" in text
    assert "  HostName 192.0.2.12\n  HostKeyAlias data1\n" in text
    assert machine.redirected(text, guest) == text


def test_ssh_is_not_redirected_half(guest: Guest) -> None:
    with pytest.raises(LabError, match="does not name app1"):
        machine.redirected(SSH_CONFIG.replace("app1", "app2"), guest)


def test_boots_are_counted_by_the_kernels_own_words(guest: Guest) -> None:
    assert machine.boots(guest) == 0
    guest.console.write_bytes(
        b"[    0.000000] Linux version 6.1\r\n[    1.0] x\r\n[    0.000000] Linux version 6.1\r\n"
    )
    assert machine.boots(guest) == 2


def test_the_console_is_shown_without_what_a_terminal_makes_of_it(guest: Guest) -> None:
    guest.console.write_bytes(b"first\r\n\x1b[0;1;31mFAILED\x1b[0m to start\r\n")
    assert machine.tail(guest, lines=1).splitlines()[1:] == ["    FAILED to start"]


def test_no_process_but_its_own_is_ended(guest: Guest) -> None:
    """The number of a machine that is gone may be another process's by now."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        guest.pid_file.write_text(f"{other.pid}\n")
        machine.stop(guest)
        assert other.poll() is None
        other.communicate(b"\n")
    assert not guest.pid_file.exists()
    assert other.returncode == 0


def test_a_machine_that_is_gone_is_not_waited_for(guest: Guest) -> None:
    (guest.directory / "qemu.log").write_text("could not open disk image\n")
    with pytest.raises(LabError, match="could not open disk image"):
        machine.wait(guest, 1)


def test_the_guest_knows_the_other_hosts_by_name() -> None:
    lines = disk.hosts_file("app1", {"app1": "192.0.2.11", "data1": "192.0.2.12"}).splitlines()
    assert "192.0.2.12 data1" in lines
    assert "127.0.1.1 app1" in lines
    assert not any(line.startswith("192.0.2.11") for line in lines)


@pytest.mark.parametrize("text", ["", "nameserver 127.0.0.11\noptions ndots:0\n"])
def test_the_engines_resolver_is_left_behind(text: str) -> None:
    assert disk.resolv_conf(text, "10.0.2.3") == "nameserver 10.0.2.3\n"


def test_a_resolver_of_the_hosts_own_goes_with_it() -> None:
    text = "# Written by a role.\nnameserver 127.0.0.1\n"
    assert disk.resolv_conf(text, "10.0.2.3") == text


def test_a_look_that_fails_does_not_cost_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> Any:
        raise ValueError("no such thing")

    monkeypatch.setattr(look, "LOOKS", {"first": fails, "second": lambda: 2})
    look.main()
    told = json.loads(capsys.readouterr().out)
    assert told["second"] == 2
    assert "no such thing" in told["errors"]["first"]


def test_what_was_not_seen_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(seen, "REPORTS", tmp_path)
    seen.read.cache_clear()
    (tmp_path / "outcome.json").write_text('{"stopped": "the machine is gone"}')
    try:
        with pytest.raises(pytest.fail.Exception, match="the machine is gone"):
            seen.look("patched", "units")
        assert ("patched", "any unit") in seen.each("units", "any unit")
    finally:
        seen.read.cache_clear()
