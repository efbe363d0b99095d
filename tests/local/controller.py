"""A controller whose hosts are this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = """
app: {hosts: {app1: {ansible_connection: local}}}
edge: {hosts: {app1: }}
worker: {hosts: {gone: {ansible_host: 127.0.0.1, ansible_port: 1}}}
scheduler: {hosts: {app1: }}
production: {hosts: {app1: , gone: }}
"""


class Controller:
    """Runs playbooks; on app1, which is this machine, `sudo` says what it is told to."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "hosts.yml").write_text(INVENTORY)
        self.says({})

    def says(self, answer: dict[str, Any]) -> None:
        (self.place / "answer").write_text(json.dumps(answer))
        program = self.place / "sudo"
        program.write_text(f"#!/bin/sh\ncat {self.place}/answer\n")
        program.chmod(0o755)

    def play(self, name: str, *words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        return self.play_file(ROOT / f"playbooks/{name}.yml", *words, **variables)

    def play_file(self, path: Path, *words: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GITHUB_")}
        return subprocess.run(
            [
                Path(sys.executable).with_name("ansible-playbook"), "-i", self.place / "hosts.yml",
                path, "-e", json.dumps(variables), *words,
            ],
            env={
                **environment, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "USER": "ada",
                "PATH": f"{self.place}:{os.environ['PATH']}", "ANSIBLE_LOCAL_TEMP": str(self.place / "temp"),
            },
            cwd=self.place, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
