"""What this machine needs beside the container engine, by apt where that may be done."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from lab.state import LabError


def ensure(who: str, program: str, package: str, say: Callable[[str], None]) -> None:
    """Have the program, or say in one sentence who needs it and what to install."""
    if shutil.which(program):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get") or not _is_debian():
        raise LabError(f"{who} needs {program}: install it (on Debian and Ubuntu: sudo apt-get install {package}).")
    say(f"apt installs {package}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-qq", "-y", "--no-install-recommends", package],
    ):
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False
        )
        if done.returncode:
            raise LabError(f"`{' '.join(command[:2])}` failed:\n" + "\n".join(done.stderr.splitlines()[-20:]))


def _is_debian() -> bool:
    release = Path("/etc/os-release")
    return release.is_file() and any(
        line.split("=")[0] in ("ID", "ID_LIKE") and ("debian" in line or "ubuntu" in line)
        for line in release.read_text().splitlines()
    )
