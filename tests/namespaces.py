"""A lab's host, asked as root from inside, whatever a role did to its sshd.

The engine's own way in (`docker exec`) makes a process of the container for each question, which takes longer than most
answers: where the host is a process of this machine, its namespaces are entered instead."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import testinfra
from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host

# What the engine gives a command of the container.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Namespaces(BaseBackend):
    """The way in by nsenter(1). name: the container's."""

    NAME = "namespaces"

    def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(name, *args, **kwargs)
        self.name = name
        self._first: tuple[int, str] | None = None
        self._encoding = "UTF-8"

    def first(self) -> int:
        """The id of the host's first process, which is another one after the host was started again."""
        if self._first is None or begun(self._first[0]) != self._first[1]:
            pid = first_process(self.name)
            self._first = (pid, begun(pid))
        return self._first[0]

    def run(self, command: str, *args: str, **_: Any) -> CommandResult:
        asked = self.get_command(command, *args)
        answer = self.run_local(
            f"nsenter --target {self.first()} --all env -i PATH={PATH} HOME=/root HOSTNAME=%s /bin/sh -c %s",
            self.name,
            asked,
        )
        answer.command = self.encode(asked)
        return answer


def first_process(container: str) -> int:
    """Its id on the engine's machine; 0 where the container does not run."""
    asked = ["docker", "inspect", "--format", "{{.State.Pid}}", container]
    return int(subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout)


def begun(pid: int) -> str:
    """When it did, so that another process of the same id is not taken for it; "" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


@cache
def is_at_hand(container: str) -> bool:
    """Whether the engine's containers are processes of this machine, and we may enter their namespaces."""
    if os.geteuid() != 0 or not shutil.which("nsenter"):
        return False
    asked = ["nsenter", "--target", str(first_process(container)), "--all", "cat", "/etc/hostname"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    named = ["docker", "exec", container, "cat", "/etc/hostname"]
    return said.returncode == 0 and said.stdout == subprocess.check_output(named, text=True, timeout=60)


def host(container: str) -> Host:
    if is_at_hand(container):
        return Host(Namespaces(container))
    return testinfra.get_host(f"docker://{container}")
