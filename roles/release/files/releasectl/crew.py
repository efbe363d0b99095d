"""The processes of a generation that serve no request: workers, of which two generations may overlap, singles, of which
one runs at a time, and jobs, which a timer starts and which end by themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .config import Config
from .errors import Refusal
from .names import Generation
from .systemd import JOB, PROCESSES, Unit, unit_name

if TYPE_CHECKING:
    from .lifecycle import Lifecycle

TITLES = {"celery-worker": "Celery worker"}


def every(config: Config) -> tuple[str, ...]:
    """All processes that a generation may have on this host, first those that every host knows."""
    return (*PROCESSES, *(name for name in config.processes if name not in PROCESSES))


def workers(config: Config) -> list[str]:
    """Those that run here and take over before requests do."""
    return [name for name in config.processes if name in config.workers]


def singles(config: Config) -> list[str]:
    """Those that run here, once."""
    return [name for name in config.processes if name in config.singles]


def is_job(unit: Unit) -> bool:
    """What a timer started: it is left to its end, whatever is switched meanwhile."""
    return unit.process.startswith(JOB)


def take_over(lifecycle: Lifecycle, generation: Generation, wait: bool = True) -> None:
    """New workers first, so that no task of a new name meets an old worker; then the old ones stop consuming.

    With ``wait`` the old ones work until the new ones have loaded the app, and one that cannot is refused. Without,
    once requests go to the new generation, nobody waits: its workers start beside.
    """
    for process in workers(lifecycle.config):
        unit = unit_name(process, generation)
        lifecycle.say(f"handing the queues over to {unit}")
        if not lifecycle.systemd.start(unit, block=wait):
            name = TITLES.get(process, f"process {process}")
            raise Refusal(
                f"The {name} of {generation.release} did not start: {lifecycle.last_words(unit)}",
                f"The {name} of {generation.release} did not start ({lifecycle.discreet_words(unit)})",
                journal=lifecycle.systemd.journal(unit),
            )
        units = lifecycle.systemd.units()
        old = [u for u in units if u.process == process and u.generation != generation and u.running]
        lifecycle.systemd.stop((u.name for u in old), block=False)


def move(lifecycle: Lifecycle, generation: Generation) -> None:
    """Exactly one of each single: the old one is told to stop, and the new one's launcher waits for the lock that the
    old one holds as long as it lives.
    """
    for process in singles(lifecycle.config):
        old = [u for u in lifecycle.systemd.units() if u.process == process and u.generation != generation]
        lifecycle.systemd.stop((u.name for u in old), block=False)
        lifecycle.systemd.start(unit_name(process, generation))
