"""The container engine, by its command line: it takes options that its API refuses (systempaths=unconfined)."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.state import LabError

CGROUPS = Path("/sys/fs/cgroup")


def run(*arguments: str, stdin: bytes | None = None, timeout: float = 300) -> str:
    """Run one docker command and give its output; raise with the engine's own words when it fails."""
    if not shutil.which("docker"):
        raise LabError("The lab needs a container engine: run `make setup`.")
    try:
        done = subprocess.run(
            ["docker", *arguments],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"`docker {' '.join(arguments[:2])}` did not end within {timeout:.0f} s.") from None
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()
        if "Cannot connect to the Docker daemon" in words:
            raise LabError("No container engine answers: run `make setup`.")
        raise LabError(f"`docker {' '.join(arguments[:2])}` failed: {words}")
    return done.stdout.decode(errors="replace").strip()


def execute(container: str, *command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a command in a container; its exit code is the caller's to judge."""
    return subprocess.run(
        ["docker", "exec", container, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def inspect(kind: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """What the engine knows of each that exists; those that do not are left out."""
    done = subprocess.run(
        ["docker", kind, "inspect", *names], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    found: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return found


def cgroup_options() -> tuple[list[str], list[str]]:
    """The options of `docker create` that give systemd its cgroups, and the command that starts it.

    On version 1 and hybrid trees a private namespace makes systemd root itself in the machine's own tree: services then
    start and stop across hosts. There it gets the machine's view, in which each container has its own branch.
    On version 2 a private namespace is right, but the engine mounts it read-only.
    A server's root hands new mounts on to services that run; in a container systemd leaves that as it finds it.
    """
    script = "mount --make-shared / && exec /lib/systemd/systemd"
    if (CGROUPS / "cgroup.controllers").exists():
        return ["--cgroupns", "private"], ["/bin/sh", "-ec", f"mount -o remount,rw /sys/fs/cgroup && {script}"]
    return ["--cgroupns", "host", "--volume", f"{CGROUPS}:{CGROUPS}:rw"], ["/bin/sh", "-ec", script]


def remove_cgroups(container_id: str) -> None:
    """Remove the empty branches that a removed container's systemd leaves in the machine's tree."""
    # They are root's. Who is not root has an engine that removes them, or leaves empty directories until the next boot.
    if len(container_id) != 64 or os.geteuid() != 0:
        return
    branches = [*CGROUPS.glob(f"docker/{container_id}"), *CGROUPS.glob(f"*/docker/{container_id}")]
    for branch in branches:
        for directory in sorted((p for p in branch.rglob("*") if p.is_dir()), key=lambda p: -len(p.parts)):
            _remove_cgroup(directory)
        _remove_cgroup(branch)


def _remove_cgroup(directory: Path) -> None:
    """The kernel is busy with one for a moment after its last process is gone."""
    for _ in range(50):
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(0.1)
        else:
            return
    raise LabError(f"{directory} is still in use.")
