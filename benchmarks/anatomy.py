"""Where the time of a playbook goes: tasks, connections to hosts, and what releasectl itself took on the host."""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.site import Site
from benchmarks.story import Ran

EVENTS = "/var/log/app/releases"


def tasks(ran: Ran) -> int:
    """How many ran on the host that had the most, skipped ones not counted, by Ansible's recap."""
    recap = [line for line in ran.output.splitlines() if " changed=" in line and " ok=" in line]
    return max((int(line.split(" ok=")[1].split()[0]) for line in recap), default=0)


class Trips:
    """Counts how often Ansible calls ssh or sftp; each is a round trip or more, over a connection that is kept."""

    def __init__(self, place: Path) -> None:
        self.made = place / "made"
        self.made.touch()
        self.environment = {}
        for program in ("ssh", "sftp"):
            real = shutil.which(program)
            path = place / program
            path.write_text(f"#!/bin/sh\necho {program} >>'{self.made}'\nexec '{real}' \"$@\"\n", encoding="utf-8")
            path.chmod(0o700)
            self.environment[f"ANSIBLE_{program.upper()}_EXECUTABLE"] = str(path)

    def count(self) -> int:
        return len(self.made.read_text(encoding="utf-8").splitlines())


@contextmanager
def counted() -> Iterator[Trips]:
    with tempfile.TemporaryDirectory() as place:
        yield Trips(Path(place))


@dataclass
class Anatomy:
    """Of one playbook, over its runs."""

    tasks: int = 0
    trips: int = 0
    host_seconds: list[float] = field(default_factory=list)

    def sentence(self, name: str, seconds: list[float]) -> str:
        """For a name such as "deploy", and how long the runs took, in seconds."""
        on_host, whole = statistics.median(self.host_seconds), statistics.median(seconds)
        return (
            f"A {name} ran {self.tasks} tasks in {self.trips} calls of ssh; of its {whole:.1f} s releasectl took"
            f" {on_host:.1f} s on the host, Ansible and the way there {whole - on_host:.1f} s."
        )


class Recorder:
    """What releasectl recorded of its own time since it was last asked."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.seen = len(self._events())

    def seconds(self) -> float:
        events = self._events()
        new, self.seen = events[self.seen :], len(events)
        return sum(float(event.get("seconds") or 0) for event in new)

    def _events(self) -> list[dict[str, Any]]:
        lines = self.site.sudo(f"cat {EVENTS}/*.jsonl").splitlines()
        return [json.loads(line) for line in lines if line.strip()]
