"""How busy this machine is, and a way to run beside what it serves without taking the processors from it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

# Last in the queue for a processor. A session of its own is weighed as a whole where the kernel groups by sessions
# (sched_autogroup, sched(7)), so its weight has to be said as well.
POLITE = (
    "sh", "-c",
    'if [ -w /proc/self/autogroup ]; then echo 19 >/proc/self/autogroup; fi; exec nice -n 19 "$@"',
    "polite",
)  # fmt: skip


def politely(command: Sequence[str]) -> list[str]:
    """The command, at the lowest priority: it takes what is left over."""
    return [*POLITE, *command]


class Cores:
    """Processor time of the whole machine since this was made, or since `again`, in seconds."""

    def __init__(self, source: Path = Path("/proc/stat")) -> None:
        self.source = source
        self.count = os.cpu_count() or 1
        self.again()

    def again(self) -> None:
        self._busy, self._at = self._read(), time.monotonic()

    def _read(self) -> float:
        """User, nice, system, irq and softirq of all processors; what a hypervisor took and idle time are not ours."""
        user, nice, system, _idle, _wait, irq, softirq = self.source.read_text().split("\n", 1)[0].split()[1:8]
        return sum(map(int, (user, nice, system, irq, softirq))) / os.sysconf("SC_CLK_TCK")

    @property
    def busy(self) -> float:
        return self._read() - self._busy

    @property
    def share(self) -> float:
        """How much of what all processors together had to give was taken: 1 when all of them were busy all the time."""
        return self.busy / max((time.monotonic() - self._at) * self.count, 1e-9)
