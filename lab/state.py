"""Where a lab keeps what is its own, and what it is called."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# The hosts of a lab that nobody said otherwise of; the first one is its edge.
HOSTS = ("app1", "data1")
EDGE_HOST = HOSTS[0]
# SLIPWAY_TOPOLOGY=fleet when a lab is made gives it these, and the inventory beside them; eight: `make bench-fleet`.
TOPOLOGIES: dict[str, tuple[tuple[str, ...], str]] = {
    "host": (HOSTS, "inventories/lab"),
    "fleet": (("edge1", "app1", "app2", "worker1", "data1"), "inventories/fleet-lab"),
    "eight": (("edge1", *(f"app{number}" for number in range(1, 9)), "data1"), "inventories/eight-lab"),
}
# The name under which the lab's app is reached: *.localhost is the machine itself, for every browser.
EDGE_NAME = "bookshop.localhost"


class LabError(Exception):
    """Something that the user can mend; its text says how."""


@dataclass(frozen=True)
class Lab:
    """One lab: its name, and the paths of its files under .lab/<name>/."""

    name: str

    @classmethod
    def chosen(cls) -> Lab:
        name = os.environ.get("SLIPWAY_LAB") or "lab"
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,29}", name):
            raise LabError(f"{name!r} is no name for a lab: use up to 30 lower-case letters, digits and hyphens.")
        return cls(name)

    @property
    def topology(self) -> str:
        """What it was made as; of one that is not made yet, what it shall be."""
        if self.topology_file.is_file():
            return self.topology_file.read_text().strip()
        chosen = os.environ.get("SLIPWAY_TOPOLOGY") or "host"
        if chosen not in TOPOLOGIES:
            raise LabError(f"{chosen!r} is no topology of a lab: there are {', '.join(TOPOLOGIES)}.")
        return chosen

    @property
    def hosts(self) -> tuple[str, ...]:
        return TOPOLOGIES[self.topology][0]

    @property
    def edge(self) -> str:
        return self.hosts[0]

    @property
    def inventory(self) -> str:
        return TOPOLOGIES[self.topology][1]

    @property
    def topology_file(self) -> Path:
        return self.directory / "topology"

    @property
    def directory(self) -> Path:
        return ROOT / ".lab" / self.name

    @property
    def facts_file(self) -> Path:
        return self.directory / "facts.json"

    @property
    def inventory_file(self) -> Path:
        return self.directory / "inventory.json"

    @property
    def keys(self) -> Path:
        return self.directory / "keys"

    @property
    def ca(self) -> Path:
        return self.directory / "ca"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        return self.directory / "ssh_config"

    @property
    def age_key(self) -> Path:
        return self.directory / "age.txt"

    @property
    def secrets(self) -> Path:
        return self.directory / "secrets.sops.yml"

    @property
    def reports(self) -> Path:
        return self.directory / "reports"

    @property
    def control_paths(self) -> Path:
        """Ansible's kept connections. A socket's path must be short, a checkout's may be long: hence not in there."""
        return Path.home() / ".ansible" / "cp" / f"slipway-{self.name}"

    @property
    def network(self) -> str:
        return f"slipway-{self.name}"

    def container(self, host: str) -> str:
        return f"slipway-{self.name}-{host}"

    def facts(self) -> dict[str, Any]:
        if not self.facts_file.is_file():
            raise LabError(f"The lab {self.name} is not up: start it with `make lab-up LAB={self.name}`.")
        facts: dict[str, Any] = json.loads(self.facts_file.read_text())
        return facts


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Replace a file in one step, so that no reader sees half of it; it has its mode from the start."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    new.replace(path)


class Progress:
    """Lines with the seconds since the start, so that a wait is seen for what it is."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def __call__(self, text: str) -> None:
        print(f"lab: {time.monotonic() - self.started:5.1f} s  {text}", flush=True)
