"""The service manager, asked through its own commands."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO

from .errors import CommandFailed, Refusal
from .names import GENERATION, Generation

# Everything that is started per generation, in the order in which `status` shows it.
PROCESSES = ("gunicorn", "celery-worker", "celery-beat")
# What the app adds by app_extra_processes and app_timers is called app-<name> and app-job-<name>.
OWN = "app-"
JOB = "app-job-"
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

# What builds and pulls may take what serving leaves over: on two cores they would otherwise slow each request down. The
# weight holds where units are weighed as wholes, as they are once one of them has a weight; nice holds within a unit.
SPARING = ("CPUWeight=20", "Nice=10", "IOSchedulingClass=idle")


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


# Of what a release's code writes, in bytes of each stream: the end is kept, which says what went wrong.
OUTPUT_KEPT = 1024 * 1024


def _tail(stream: IO[bytes], kept: int) -> str:
    """Read to the end and keep the last ``kept`` bytes, however much comes."""
    buffer = bytearray()
    while chunk := stream.read(64 * 1024):
        buffer += chunk
        if len(buffer) > 2 * kept:
            del buffer[:-kept]
    return bytes(buffer[-kept:]).decode(errors="replace")


def run_bounded(
    argv: Sequence[str], kept: int = OUTPUT_KEPT, together: bool = False
) -> subprocess.CompletedProcess[str]:
    """As `run`, for a program that may write without end; ``together`` puts both streams into ``stdout``, in order."""
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if together else subprocess.PIPE,
        bufsize=0,
    )
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.append(_tail(process.stderr, kept) if process.stderr else ""))
    with process:
        reader.start()
        assert process.stdout is not None
        output = _tail(process.stdout, kept)
        reader.join()
    return subprocess.CompletedProcess(list(argv), process.returncode, output, errors[0])


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


# How long systemd may take to let go of a unit that ended a moment ago, in seconds.
LET_GO = 15.0
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


def raised(lines: Sequence[str]) -> str:
    """The class of the last exception that an output tells of, without what was said with it; empty without one."""
    found = [match.group(0) for line in lines if (match := EXCEPTION.match(line))]
    return found[-1].rpartition(".")[2][:80] if found else ""


def unit_name(process: str, generation: object) -> str:
    """``gunicorn@<id>.<n>.service`` and its siblings."""
    return f"{process}@{generation}.service"


class Systemd:
    """The few things that the lifecycle asks of systemd; replaced by a fake in the unit tests."""

    def units(self) -> list[Unit]:
        """All instances of the app's processes that systemd has in memory."""
        patterns = [f"{process}@*.service" for process in (*PROCESSES, f"{OWN}*")]
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

    def main_pid(self, unit: str) -> int:
        """The unit's main process; 0 when it has none."""
        shown = run(["systemctl", "show", "--property=MainPID", "--value", unit]).stdout.strip()
        return int(shown or 0)

    def told(self, unit: str) -> str:
        """What the unit's main process last said of itself; empty when that is nothing."""
        return run(["systemctl", "show", "--property=StatusText", "--value", unit]).stdout.strip()

    def restarts(self, unit: str) -> int:
        """How often systemd has restarted the unit by itself."""
        shown = run(["systemctl", "show", "--property=NRestarts", "--value", unit]).stdout.strip()
        return int(shown or 0)

    def control_groups(self, units: Iterable[str]) -> dict[str, int]:
        """Where the kernel accounts for these units, as paths below /sys/fs/cgroup, and the memory that it charges them
        with, in bytes; units that do not run have none.
        """
        found = {}
        shown = run(["systemctl", "show", "--property=ControlGroup", "--property=MemoryCurrent", *units]).stdout
        for unit in shown.split("\n\n"):
            told = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line)
            if told.get("ControlGroup"):
                charged = told.get("MemoryCurrent", "")
                found[told["ControlGroup"]] = int(charged) if charged.isdigit() else 0
        return found

    def journal(self, unit: str, lines: int = 20) -> list[str]:
        """The last lines that the unit's own processes wrote, for a person to read."""
        shown = run(["journalctl", f"_SYSTEMD_UNIT={unit}", "--lines", str(lines), "--output", "cat", "--no-pager"])
        return [line for line in shown.stdout.splitlines() if line.strip()][-lines:]


@dataclass(frozen=True)
class Ended:
    """How a command in a transient unit ended; ``seconds`` include what systemd needed to start and clear it away."""

    code: int
    output: str
    seconds: float


def transient(unit: str, properties: Sequence[str], environment: dict[str, str], timeout: int) -> list[str]:
    """What a command is to follow after ``--`` to run in a transient unit. One of that name is stopped."""
    command = ["systemd-run", "--quiet", "--collect", "--wait", "--pipe", f"--unit={unit}"]
    for item in (*properties, f"RuntimeMaxSec={timeout}", "KillMode=control-group", "UMask=0077"):
        command += ["--property", item]
    command += [f"--setenv={name}={value}" for name, value in environment.items()]
    # It may be left of a verb that was killed: it must not go on beside this one. One that ended a moment ago has to be
    # let go by systemd before another can have its name.
    run(["systemctl", "stop", f"{unit}.service"])
    looks = round(LET_GO / 0.1)
    while run(["systemctl", "show", "--property=LoadState", "--value", f"{unit}.service"]).stdout.strip() == "loaded":
        looks -= 1
        if looks < 0:
            raise Refusal(f"systemd did not let go of {unit}.service within {LET_GO:.0f} s: run the same again.")
        time.sleep(0.1)
    return command


def run_heard(argv: Sequence[str], heard: Callable[[str], None]) -> tuple[int, list[str]]:
    """Run a program, give ``heard`` each line as it comes, and return how it ended with its last lines."""
    lines: deque[str] = deque(maxlen=LINES)
    with subprocess.Popen(
        list(argv),
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
    return process.returncode, list(lines)


def confined(
    unit: str,
    argv: Sequence[str],
    properties: Sequence[str],
    environment: dict[str, str],
    timeout: int,
    kept: int = OUTPUT_KEPT,
    together: bool = False,
) -> Ended:
    """Run one command to its end, or for ``timeout`` seconds, in a transient unit with ``properties``.

    Nothing that it started is left when this returns. Of its output the last ``kept`` bytes of each stream are
    returned, what it wrote to standard error last unless ``together``.
    """
    command = transient(unit, properties, environment, timeout)
    started = time.monotonic()
    finished = run_bounded([*command, "--", *argv], kept, together)
    return Ended(finished.returncode, finished.stdout + finished.stderr, time.monotonic() - started)


def sandboxed(
    unit: str,
    argv: Sequence[str],
    properties: Sequence[str],
    environment: dict[str, str],
    timeout: int,
    what: str,
    heard: Callable[[str], None] = lambda _line: None,
) -> str:
    """Run one command to its end, confined in the same way; return the last lines of its output.

    ``heard`` is given each line as it comes. A failure is refused with ``what`` in the sentence and the last 20 lines
    in ``journal``.
    """
    command = transient(unit, properties, environment, timeout)
    code, lines = run_heard([*command, "--", *argv], heard)
    if code != 0:
        said = [line for line in lines if line.strip()]
        reason = telling(said) or f"exit status {code}, no output"
        raise CommandFailed(f"{what} failed: {reason}", journal=said[-20:])
    return "\n".join(lines)
