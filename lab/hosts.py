"""The lab's hosts: containers with systemd and sshd, in which root's only key is the provider's."""

from __future__ import annotations

import io
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

from lab import engine
from lab.state import ROOT, Lab, LabError

BOOT_PATIENCE = 60  # seconds
CHECKOUT_LABEL = "slipway.checkout"
# Of a user's inotify instances, which the hosts of all labs share: one takes eight, and there is more than labs.
WATCHERS = 16
WATCHERS_LIMIT = Path("/proc/sys/fs/inotify/max_user_instances")

# What systemd, nginx, UFW and sshd need of a machine. Not --privileged: that hands over its devices as well.
CAPABILITIES = (
    "SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE", "SYS_NICE", "SYS_TIME", "IPC_LOCK", "AUDIT_CONTROL", "SYSLOG",
    "DAC_READ_SEARCH", "LINUX_IMMUTABLE",
)  # fmt: skip


def refuse_strangers(lab: Lab, *, to_remove: bool = False) -> None:
    """Two checkouts that use one name would pull the hosts from under each other. One that is gone uses none."""
    for found in engine.inspect("container", [lab.container(host) for host in lab.hosts]):
        owner = found["Config"]["Labels"].get(CHECKOUT_LABEL)
        if owner == str(ROOT):
            continue
        if owner is None or Path(owner).is_dir():
            raise LabError(
                f"A lab named {lab.name} belongs to {owner}: choose another name (LAB=…), or remove it there."
            )
        if not to_remove:
            raise LabError(
                f"A lab named {lab.name} was left by {owner}, which is gone: remove it (make lab-down LAB={lab.name})."
            )


def require_watchers(lab: Lab) -> None:
    """Many hosts need more than a machine gives by default, and the last ones would not boot and not say why."""
    needed = WATCHERS * len(lab.hosts)
    if int(WATCHERS_LIMIT.read_text()) < needed:
        raise LabError(
            f"{len(lab.hosts)} hosts need more inotify instances than this machine allows"
            f" ({WATCHERS_LIMIT.read_text().strip()}): run `sudo sysctl -w fs.inotify.max_user_instances={needed}`."
        )


def ensure(lab: Lab, image: str, addresses: dict[str, dict[str, str]], port: int, say: Callable[[str], None]) -> None:
    """Bring every host up: create what is missing, start what is stopped."""
    known = {found["Name"].lstrip("/"): found for found in engine.inspect("container", _names(lab))}
    for host in lab.hosts:
        name = lab.container(host)
        if name not in known:
            say(f"creates {host}")
            try:
                _create(lab, host, image, addresses[host], port)
                engine.run("start", name)
            except LabError:
                # Its port may have been taken meanwhile: it goes, so that the next `up` chooses anew.
                if engine.inspect("container", [name]):
                    engine.run("rm", "--force", "--volumes", name)
                raise
        elif not known[name]["State"]["Running"]:
            say(f"starts {host}")
            engine.run("start", name)
    for host in lab.hosts:
        wait(lab, host, addresses[host]["ipv4"])


def restart(lab: Lab, host: str, address: str) -> None:
    """What a reboot is to a server: every process gone, /run and /tmp empty, the disk kept."""
    engine.run("restart", "--time", "60", lab.container(host))
    wait(lab, host, address)


def remove(lab: Lab) -> None:
    """Remove the hosts with their volumes, and the branches of their cgroups."""
    # By label and by name: whatever carries the lab's name goes, hosts of an older recipe included.
    listed = engine.run("ps", "--all", "--no-trunc", "--quiet", "--filter", f"label=slipway.lab={lab.name}").split()
    if listed:
        engine.run("rm", "--force", "--volumes", *listed)
    for identity in listed:
        engine.remove_cgroups(identity)
    volumes = engine.run("volume", "ls", "--quiet", "--filter", f"label=slipway.lab={lab.name}").split()
    if volumes:
        engine.run("volume", "rm", "--force", *volumes)


def published_port(lab: Lab) -> int | None:
    """Where the standing edge host answers on this machine."""
    for found in engine.inspect("container", [lab.container(lab.edge)]):
        for binding in found["HostConfig"]["PortBindings"].get("443/tcp") or []:
            return int(binding["HostPort"])
    return None


def free_port(first: int = 8443) -> int:
    for port in range(first, first + 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise LabError(f"No port from {first} to {first + 199} is free on 127.0.0.1.")


def host_keys(lab: Lab, host: str) -> list[str]:
    """The host's public keys, asked of the engine and not of the network, so that no first use is trusted."""
    done = engine.execute(lab.container(host), "sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub")
    keys = [" ".join(line.split()[:2]) for line in done.stdout.splitlines() if line]
    if not keys:
        raise LabError(f"{host} has no ssh keys: {done.stderr.strip()}")
    return keys


def wait(lab: Lab, host: str, address: str) -> None:
    """Until systemd has started everything and sshd answers."""
    name = lab.container(host)
    deadline = time.monotonic() + BOOT_PATIENCE
    state = ""
    while state not in ("running", "degraded"):
        if time.monotonic() > deadline:
            raise LabError(
                f"{host} did not boot within {BOOT_PATIENCE} s (systemd: {state or 'silent'}); see: docker logs {name}"
            )
        try:
            done = engine.execute(name, "systemctl", "is-system-running", "--wait", timeout=BOOT_PATIENCE)
        except subprocess.TimeoutExpired:
            continue
        state = done.stdout.strip()
        if state not in ("running", "degraded"):
            time.sleep(0.2)
    if state == "degraded":
        failed = engine.execute(name, "systemctl", "list-units", "--failed", "--plain", "--no-legend").stdout
        print(f"lab: {host}: units that failed at boot: {' '.join(line.split()[0] for line in failed.splitlines())}")
    while True:
        try:
            with socket.create_connection((address, 22), timeout=2) as connection:
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise LabError(f"sshd on {host} ({address}) did not answer within {BOOT_PATIENCE} s.")
        time.sleep(0.1)


def _names(lab: Lab) -> list[str]:
    return [lab.container(host) for host in lab.hosts]


def _create(lab: Lab, host: str, image: str, address: dict[str, str], port: int) -> None:
    cgroups, command = engine.cgroup_options()
    options = [
        "--name", lab.container(host), "--hostname", host,
        "--label", f"slipway.lab={lab.name}", "--label", f"{CHECKOUT_LABEL}={ROOT}",
        "--network", lab.network, "--network-alias", host, "--ip", address["ipv4"],
        *cgroups,
        *(option for capability in CAPABILITIES for option in ("--cap-add", capability)),
        "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
        # /proc/sys can be written then, as on a server; net.* is the container's own.
        "--security-opt", "systempaths=unconfined",
        # Loop devices stand in for volumes that a provider attaches.
        "--device-cgroup-rule", "b 7:* rwm", "--device-cgroup-rule", "c 10:237 rwm",
        "--tmpfs", "/run", "--tmpfs", "/tmp:exec",  # noqa: S108
        "--stop-signal", "SIGRTMIN+3", "--env", "container=docker",
    ]  # fmt: skip
    if host.startswith("data"):
        # Data services are elsewhere: the app's hosts take no processor from them, as far as one machine can do that.
        options += ["--cpu-shares", "4096"]
    else:
        # Images are kept as overlays, which do not stand on the container's own.
        options += ["--volume", "/var/lib/containers"]
    if "ipv6" in address:
        options += ["--ip6", address["ipv6"]]
    if host == lab.edge:
        options += ["--publish", f"127.0.0.1:{port}:443"]
    engine.run("create", *options, image, *command)
    engine.run("cp", "-", f"{lab.container(host)}:/root", stdin=_provider_key(lab))


def _provider_key(lab: Lab) -> bytes:
    """What goes into root's home before the first boot, as an archive that carries modes."""
    content = (lab.keys / "provider.pub").read_bytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        directory = tarfile.TarInfo(".ssh")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o700
        archive.addfile(directory)
        keys = tarfile.TarInfo(".ssh/authorized_keys")
        keys.size, keys.mode = len(content), 0o600
        archive.addfile(keys, io.BytesIO(content))
    return buffer.getvalue()
