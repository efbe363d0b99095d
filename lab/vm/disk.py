"""From a lab host's container to what a machine boots: a disk, a kernel and its initrd."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from lab import engine
from lab.state import Lab, LabError, write
from lab.vm.state import Guest

SCRIPT = Path(__file__).parent / "recipe" / "prepare.sh"
PATIENCE = 900  # seconds, most of them the kernel's installation
# What the initrd needs to find the root: it is built in a container, which cannot tell it.
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "ext4")


def build(lab: Lab, guest: Guest, say: Callable[[str], None]) -> None:
    """Stop the host's container, and make a machine of what it had become. The container stays as it is."""
    facts = lab.facts()
    container, copy, image = lab.container(guest.host), f"slipway-{lab.name}-vm", f"slipway-vm:{lab.name}"
    forget(lab)
    guest.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    resolver = engine.execute(container, "cat", "/etc/resolv.conf").stdout
    # Two hosts of one identity would share its work, and a stopped one has written everything.
    engine.run("stop", "--time", "90", container)
    say(f"{guest.host}'s container is stopped")
    write(guest.directory / "hosts", hosts_file(guest.host, {h: facts["hosts"][h]["ipv4"] for h in lab.hosts}))
    write(guest.directory / "resolv.conf", resolv_conf(resolver, guest.resolver))
    write(guest.directory / "modules", "".join(module + "\n" for module in MODULES))
    shutil.copy(SCRIPT, guest.directory / SCRIPT.name)
    engine.run("commit", container, image, timeout=PATIENCE)
    say("its file system is copied")
    settings = {
        "NAME": guest.host, "ADDRESS": guest.cidr, "GATEWAY": guest.gateway, "RESOLVER": guest.resolver,
        "SIZE": guest.disk_size, "OWNER": f"{os.getuid()}:{os.getgid()}",
    }  # fmt: skip
    try:
        told = engine.run(
            "run", "--name", copy, "--label", f"slipway.lab={lab.name}", "--network", lab.network,
            "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
            "--volume", f"{guest.directory}:/mnt", *(o for k, v in settings.items() for o in ("--env", f"{k}={v}")),
            image, "sh", f"/mnt/{SCRIPT.name}", *masked(facts["image"]), timeout=PATIENCE,
        )  # fmt: skip
    finally:
        forget(lab)
    for line in told.splitlines():
        if line.startswith("prepare: "):
            say(line.removeprefix("prepare: "))
    for path in (guest.kernel, guest.initrd, guest.disk):
        if not path.is_file():
            raise LabError(f"The machine has no {path.name}: the end of what its maker said was {told[-500:]!r}")


def forget(lab: Lab) -> None:
    """Remove the copy that the disk is made from: it is as large as the host."""
    copy, image = f"slipway-{lab.name}-vm", f"slipway-vm:{lab.name}"
    if engine.inspect("container", [copy]):
        engine.run("rm", "--force", "--volumes", copy, timeout=PATIENCE)
    if engine.inspect("image", [image]):
        engine.run("rmi", image, timeout=PATIENCE)


def masked(image: str) -> list[str]:
    """The units that the lab's image switches off because a container does without them: see lab/recipe/finish.sh."""
    find = ["find", "/etc/systemd/system", "-maxdepth", "1", "-lname", "/dev/null", "-printf", "%f\\n"]
    return engine.run("run", "--rm", image, *find).split()


def hosts_file(host: str, addresses: dict[str, str]) -> str:
    """The guest reaches the other hosts through the machine; itself it finds at home."""
    lines = ["127.0.0.1 localhost", f"127.0.1.1 {host}", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [f"{address} {name}" for name, address in addresses.items() if name != host]
    return "# Written by the lab.\n" + "\n".join(lines) + "\n"


def resolv_conf(text: str, resolver: str) -> str:
    """What a role made of it stays; the engine's own names a resolver that answers in containers only."""
    return f"nameserver {resolver}\n" if not text.strip() or "nameserver 127.0.0.11" in text else text
