"""What the running kernel lacks follows from what it says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plugins.modules import kernel_state as subject

MOUNTINFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:26 / /tmp rw,nosuid,nodev shared:5 - tmpfs tmpfs rw,size=50%
31 22 0:27 / /dev/shm rw,nosuid,nodev,noexec,relatime shared:6 - tmpfs shm rw
32 22 0:28 / /mnt/with\\040blank rw - tmpfs tmpfs rw
33 30 0:29 / /tmp rw,noexec - tmpfs tmpfs rw
"""


class Module:
    """As much of Ansible's as is used."""

    def __init__(self, check_mode: bool = False, code: int = 0) -> None:
        self.check_mode = check_mode
        self.code = code
        self.commands: list[list[str]] = []
        self.warnings: list[str] = []

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        self.commands.append(command)
        return self.code, "", "in use"

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {
        "kernel/randomize_va_space": "1\n",
        "net/ipv4/conf/all/rp_filter": "0\n",
        "net/ipv4/conf/eth0.100/rp_filter": "1\n",
        "net/ipv4/tcp_rmem": "4096\t131072\t6291456\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value)
    monkeypatch.setattr(subject, "PROC_SYS", str(tmp_path))
    monkeypatch.setattr(subject.parameter_files, "__defaults__", (str(tmp_path),))
    return tmp_path


def kernel(**options: Any) -> subject.Kernel:
    return subject.Kernel(Module(**options))


def test_what_differs_is_set(proc: Path) -> None:
    looked = kernel()
    looked.set_parameters({"kernel.randomize_va_space": 2}, [])
    assert (proc / "kernel/randomize_va_space").read_text() == "2\n"
    assert looked.actions == ["kernel.randomize_va_space: 1 becomes 2"]
    again = kernel()
    again.set_parameters({"kernel.randomize_va_space": 2}, [])
    assert again.actions == []


def test_a_star_stands_for_every_interface(proc: Path) -> None:
    looked = kernel()
    looked.set_parameters({"net.ipv4.conf.*.rp_filter": 1}, [])
    assert (proc / "net/ipv4/conf/all/rp_filter").read_text() == "1\n"
    assert len(looked.actions) == 1


def test_check_mode_changes_nothing(proc: Path) -> None:
    looked = kernel(check_mode=True)
    looked.set_parameters({"kernel.randomize_va_space": 2}, [])
    assert (proc / "kernel/randomize_va_space").read_text() == "1\n"
    assert looked.actions


def test_several_numbers_are_one_value(proc: Path) -> None:
    looked = kernel()
    looked.set_parameters({"net.ipv4.tcp_rmem": "4096 131072  6291456"}, [])
    assert looked.actions == []


def test_prefixes_leave_the_rest_alone(proc: Path) -> None:
    looked = kernel()
    looked.set_parameters({"kernel.randomize_va_space": 2, "net.ipv4.conf.*.rp_filter": 1}, ["net."])
    assert (proc / "kernel/randomize_va_space").read_text() == "1\n"
    assert looked.actions == ["net.ipv4.conf.all.rp_filter: 0 becomes 1"]


def test_what_the_kernel_lacks_is_told(proc: Path) -> None:
    looked = kernel()
    looked.set_parameters({"kernel.not_there": 1}, [])
    assert (looked.unknown, looked.actions) == (["kernel.not_there"], [])


def test_a_value_that_the_kernel_refuses_is_named(proc: Path) -> None:
    # A directory cannot be read as a value, whoever asks.
    with pytest.raises(subject.Refused, match=r"kernel does not take kernel = 1"):
        kernel().set_parameter(str(proc / "kernel"), "1")


def test_modules_are_known_by_the_kernels_spelling() -> None:
    text = "usb_storage 77824 0 - Live 0x0\next4 800000 1 - Live 0x0\n"
    assert subject.modules_loaded(text, ["usb-storage", "udf"]) == ["usb-storage"]


def test_the_last_mount_at_a_place_counts() -> None:
    assert subject.mount_options(MOUNTINFO, "/tmp") == {"rw", "noexec"}
    assert subject.mount_options(MOUNTINFO, "/mnt/with blank") == {"rw"}
    assert subject.mount_options(MOUNTINFO, "/nowhere") is None


def test_a_remount_keeps_the_options_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "mount_options", lambda *_: {"rw", "noatime", "nosuid"})
    looked = kernel()
    looked.set_mount_options("/tmp", ["noexec", "nosuid"])
    assert looked.module.commands == [["mount", "-o", "remount,bind,noatime,noexec,nosuid", "/tmp"]]
    assert looked.actions == ["/tmp: is mounted without noexec"]


def test_a_remount_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "mount_options", lambda *_: {"rw"})
    with pytest.raises(subject.Refused, match="in use"):
        kernel(code=1).set_mount_options("/tmp", ["noexec"])
