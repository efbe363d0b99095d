"""The running machine: QEMU's command line, its start and end, and waiting for what it says."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from lab.state import Lab, LabError, write
from lab.vm.state import Guest

PROGRAM = "qemu-system-x86_64"
PACKAGE = "qemu-system-x86"
KVM = Path("/dev/kvm")
# The kernel's own words: it has begun, and it is far enough to hand over. A machine whose /dev/kvm is of no use hangs
# between the two, before anything is written to the disk.
BEGUN = b"] Linux version "
HANDED_OVER = b"] Run /init as init process"
KVM_PATIENCE = 15  # seconds until a kernel under KVM has handed over
BOOT_PATIENCE = 900  # seconds until sshd answers
CONSOLE_LINES = 40
ACCELERATORS = ("auto", "kvm", "tcg")
# What programs ask for (x86-64-v2) and no more: given wider registers to emulate, find and dpkg take twice as long, and
# on a processor that has Meltdown the kernel takes a third longer to fork.
# The kernel takes one that has AES for one that has PCLMULQDQ as well.
EMULATED = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes,+pclmulqdq"
# Without what the kernel does against flaws, its own and those of a processor that is not there: each fork pays for it.
# It is the provider's to choose, as the processor is, and no role sets it.
UNBURDENED = "mitigations=off init_on_alloc=0"


def command(guest: Guest, accelerator: str) -> list[str]:
    """QEMU's command line. Nothing but what is named is in the machine."""
    words = "root=LABEL=root rw console=ttyS0 panic=10"
    if accelerator == "kvm":
        speed = ["-accel", "kvm", "-cpu", "host"]
    else:
        speed = ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", EMULATED]
        words += f" {UNBURDENED}"
    forwards = (
        f"hostfwd=tcp:127.0.0.1:{guest.ssh_port}-{guest.address}:22,"
        f"hostfwd=tcp:127.0.0.1:{guest.https_port}-{guest.address}:443"
    )
    network = f"net={guest.network},host={guest.gateway},dns={guest.resolver},ipv6=off"
    return [
        PROGRAM, "-name", f"slipway-{guest.host}", "-nodefaults", "-no-user-config", "-display", "none",
        "-machine", "pc", *speed, "-smp", str(guest.processors), "-m", guest.memory, "-rtc", "base=utc",
        "-kernel", str(guest.kernel), "-initrd", str(guest.initrd),
        "-append", words,
        "-serial", f"file:{guest.console}",
        # The disk is thrown away afterwards: it need not survive the machine that it is on.
        "-drive", f"file={guest.disk},if=virtio,format=raw,cache=unsafe,discard=unmap",
        "-netdev", f"user,id=lan,{network},{forwards}", "-device", "virtio-net-pci,netdev=lan,romfile=",
        "-device", "virtio-rng-pci",
    ]  # fmt: skip


def start(guest: Guest, accelerator: str, say: Callable[[str], None]) -> str:
    """Start it; give what it runs on. `auto` takes KVM where a kernel gets anywhere with it, else emulation."""
    usable = os.access(KVM, os.R_OK | os.W_OK)
    if accelerator == "kvm" and not usable:
        raise LabError(f"{KVM} is not yours to use: join its group (sudo usermod -aG kvm $USER), or use --accel tcg.")
    if accelerator != "tcg" and usable:
        trouble = _try_kvm(guest)
        if not trouble:
            return "kvm"
        stop(guest)
        if accelerator == "kvm":
            raise LabError(f"{KVM} is there, but no kernel runs under it ({trouble}); --accel tcg emulates.")
        say(f"{KVM} is there, but no kernel runs under it ({trouble}): emulation, which is slow")
    _launch(guest, "tcg")
    return "tcg"


def stop(guest: Guest) -> None:
    """End our own machine, and no other process that has its number by now."""
    if not guest.pid_file.is_file():
        return
    pid = int(guest.pid_file.read_text())
    if is_ours(pid):
        os.kill(pid, signal.SIGTERM)
        for _ in range(100):
            _reap(pid)
            if not is_ours(pid):
                break
            time.sleep(0.1)
        else:
            os.kill(pid, signal.SIGKILL)
            _reap(pid)
    guest.pid_file.unlink()


def runs(guest: Guest) -> bool:
    return guest.pid_file.is_file() and is_ours(int(guest.pid_file.read_text()))


def is_ours(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("qemu-system")
    except OSError:
        return False


def boots(guest: Guest) -> int:
    """How often a kernel has begun since the machine was started."""
    return guest.console.read_bytes().count(BEGUN) if guest.console.is_file() else 0


def wait(guest: Guest, boot: int, patience: float = BOOT_PATIENCE) -> None:
    """Until the kernel has begun for the given time, and sshd greets."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        _must_run(guest)
        if boots(guest) >= boot and greets(guest.ssh_port):
            return
        time.sleep(0.5)
    raise LabError(
        f"The machine's sshd did not answer within {patience:.0f} s (boot {boots(guest)} of {boot}).\n{tail(guest)}"
    )


def greets(port: int) -> bool:
    """QEMU takes every connection; only the guest's sshd says something, and under emulation not at once."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def tail(guest: Guest, lines: int = CONSOLE_LINES) -> str:
    """The last that the machine said, without what is meant for a terminal."""
    text = guest.console.read_bytes().decode(errors="replace") if guest.console.is_file() else ""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[c7-8]|\r", "", text)
    return f"Its console ({guest.console}):\n" + "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


def point_ssh_at(lab: Lab, guest: Guest) -> None:
    """Whoever calls the host by its name or address over the lab's ssh_config reaches the machine from now on."""
    write(lab.ssh_config, redirected(lab.ssh_config.read_text(), guest))


def redirected(ssh_config: str, guest: Guest) -> str:
    block = rf"^(Host {re.escape(guest.host)} [^\n]*\n)  HostName [^\n]+\n(?:  Port [^\n]+\n)?"
    place = f"  HostName 127.0.0.1\n  Port {guest.ssh_port}\n"
    changed, count = re.subn(block, lambda found: found[1] + place, ssh_config, flags=re.MULTILINE)
    if count != 1:
        raise LabError(f"the lab's ssh_config does not name {guest.host} once")
    return changed


def _try_kvm(guest: Guest) -> str:
    """Why no kernel gets anywhere; nothing when one does."""
    try:
        _launch(guest, "kvm")
        return "" if _says(guest, HANDED_OVER, KVM_PATIENCE) else f"it hung for {KVM_PATIENCE} s"
    except LabError:
        return _words(guest).splitlines()[0]


def _launch(guest: Guest, accelerator: str) -> None:
    guest.console.unlink(missing_ok=True)
    with (guest.directory / "qemu.log").open("wb") as log:
        process = subprocess.Popen(
            command(guest, accelerator), stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    write(guest.pid_file, f"{process.pid}\n")
    time.sleep(0.5)
    _must_run(guest)


def _must_run(guest: Guest) -> None:
    pid = int(guest.pid_file.read_text()) if guest.pid_file.is_file() else 0
    if pid:
        _reap(pid)
    if not pid or not is_ours(pid):
        raise LabError(f"The machine is gone. QEMU said: {_words(guest)}\n{tail(guest)}")


def _words(guest: Guest) -> str:
    log = guest.directory / "qemu.log"
    return (log.read_text(errors="replace").strip() if log.is_file() else "") or "nothing"


def _reap(pid: int) -> None:
    """A child that has ended keeps its number until its parent has asked; it may not be our child."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _says(guest: Guest, words: bytes, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        _must_run(guest)
        if guest.console.is_file() and words in guest.console.read_bytes():
            return True
        time.sleep(0.2)
    return False
