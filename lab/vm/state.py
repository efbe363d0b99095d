"""The guest: which host it was, where it is reached, and where its files are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab.state import EDGE_HOST, Lab


@dataclass(frozen=True)
class Guest:
    """QEMU's user network gives it the machine's own way out: it reaches whatever the machine reaches, data1 too.

    The machine reaches it by ports of its own. It needs no right to make devices or routes, and no second VM.
    """

    directory: Path
    ssh_port: int = 0
    https_port: int = 0
    host: str = EDGE_HOST
    network: str = "10.0.2.0/24"
    address: str = "10.0.2.15"
    gateway: str = "10.0.2.2"
    resolver: str = "10.0.2.3"
    disk_size: str = "8G"
    memory: str = "2048"
    processors: int = 2

    @classmethod
    def of(cls, lab: Lab, processors: int = 2) -> Guest:
        return cls(lab.directory / "vm", processors=processors)

    @property
    def cidr(self) -> str:
        return f"{self.address}/{self.network.rpartition('/')[2]}"

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.directory / "initrd.img"

    @property
    def disk(self) -> Path:
        return self.directory / "disk.raw"

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    @property
    def pid_file(self) -> Path:
        return self.directory / "qemu.pid"
