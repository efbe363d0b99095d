"""The service manager, asked through its own commands."""

from __future__ import annotations

import re
import subprocess
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .errors import CommandFailed
from .names import GENERATION, Generation

# Everything that is started per generation, in the order in which `status` shows it.
PROCESSES = ("gunicorn", "celery-worker", "celery-beat")
RUNNING = ("active", "activating", "reloading")

# What nothing that we start in a transient unit needs, whoever it runs as; systemd.exec(5) for each.
CONFINED = (
    "NoNewPrivileges=yes",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "PrivateIPC=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectControlGroups=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
)


def run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of the host with a fixed environment; never through a shell."""
    return subprocess.run(
        list(argv),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


@dataclass(frozen=True)
class Unit:
    """One instance as the service manager sees it."""

    process: str
    generation: Generation
    active: str

    @property
    def name(self) -> str:
        return unit_name(self.process, self.generation)

    @property
    def running(self) -> bool:
        return self.active in RUNNING


LINES = 2000  # of a command's output that are kept
LINE = 8 << 20  # characters of a line that are read at once
SHOWN = 20_000  # and that are kept

# The last line of a Python traceback, and what programs write before the reason.
EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(Error|Exception|ImproperlyConfigured)\b")
LOUD = re.compile(r"\berror\b|\bcritical\b", re.IGNORECASE)
CAUSE = re.compile(r"\s*(caused by|cause):", re.IGNORECASE)


def telling(lines: Sequence[str]) -> str | None:
    """What an output says of what went wrong, on one line: an exception, an error and its cause, or the last line."""
    raised = [line for line in lines if EXCEPTION.match(line)]
    if raised:
        return raised[-1].strip()[:300]
    loud = [line for line in lines if LOUD.search(line)]
    if loud:
        causes = [line for line in lines[lines.index(loud[0]) + 1 :] if CAUSE.match(line)]
        return "; ".join(line.strip()[:200] for line in (loud[0], *causes[-1:]))
    return lines[-1].strip()[:300] if lines else None


def unit_name(process: str, generation: object) -> str:
    """``gunicorn@<id>.<n>.service`` and its siblings."""
    return f"{process}@{generation}.service"


class Systemd:
    """The few things that the lifecycle asks of systemd; replaced by a fake in the unit tests."""

    def units(self) -> list[Unit]:
        """All instances of the app's processes that systemd has in memory."""
        patterns = [f"{process}@*.service" for process in PROCESSES]
        listing = run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", *patterns])
        found = []
        for line in listing.stdout.splitlines():
            name, _load, active, _sub = line.split()[:4]
            process, _at, instance = name.removesuffix(".service").partition("@")
            if GENERATION.fullmatch(instance):
                found.append(Unit(process, Generation.parse(instance), active))
        return found

    def start(self, unit: str, block: bool = True) -> bool:
        """Start a unit; with ``block`` wait until it is up and say whether it is."""
        extra = [] if block else ["--no-block"]
        return run(["systemctl", "start", *extra, unit]).returncode == 0

    def stop(self, units: Iterable[str], block: bool = True) -> None:
        """Stop units; without ``block`` they drain on their own."""
        names = list(units)
        if names:
            run(["systemctl", "stop", *([] if block else ["--no-block"]), *names])

    def active(self, unit: str) -> str:
        """The ActiveState of one unit."""
        return run(["systemctl", "show", "--property=ActiveState", "--value", unit]).stdout.strip()

    def restarts(self, unit: str) -> int:
        """How often systemd has restarted the unit by itself."""
        shown = run(["systemctl", "show", "--property=NRestarts", "--value", unit]).stdout.strip()
        return int(shown or 0)

    def journal(self, unit: str, lines: int = 20) -> list[str]:
        """The last lines that the unit's own processes wrote, for a person to read."""
        shown = run(["journalctl", f"_SYSTEMD_UNIT={unit}", "--lines", str(lines), "--output", "cat", "--no-pager"])
        return [line for line in shown.stdout.splitlines() if line.strip()][-lines:]


def sandboxed(
    unit: str,
    argv: Sequence[str],
    properties: Sequence[str],
    environment: dict[str, str],
    timeout: int,
    what: str,
    heard: Callable[[str], None] = lambda _line: None,
) -> str:
    """Run one command to its end in a transient unit with ``properties``; return the last lines of its output.

    ``heard`` is given each line as it comes. A failure is refused with ``what`` in the sentence and the last 20 lines
    in ``journal``.
    """
    command = ["systemd-run", "--quiet", "--collect", "--wait", "--pipe", f"--unit={unit}"]
    for item in (*properties, f"RuntimeMaxSec={timeout}", "KillMode=control-group", "UMask=0077"):
        command += ["--property", item]
    command += [f"--setenv={name}={value}" for name, value in environment.items()]
    # A unit of that name may be left of a verb that was killed: it must not go on beside this one.
    run(["systemctl", "stop", f"{unit}.service"])
    lines: deque[str] = deque(maxlen=LINES)
    with subprocess.Popen(
        [*command, "--", *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        while line := process.stdout.readline(LINE):
            lines.append(line.rstrip("\n")[:SHOWN])
            heard(line)
    if process.returncode != 0:
        said = [line for line in lines if line.strip()]
        reason = telling(said) or f"exit status {process.returncode}, no output"
        raise CommandFailed(f"{what} failed: {reason}", journal=said[-20:])
    return "\n".join(lines)
