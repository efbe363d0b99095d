"""Numbered steps on a terminal: what is going on, for how long, and where to look when it goes wrong."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[1]
TAIL_LINES = 30
_TASK = re.compile(rb"^(?:TASK|PLAY|RUNNING HANDLER) \[(.+?)\] \**\s*$", re.MULTILINE)
_LIVE_SECONDS = 0.5
_PLAIN_SECONDS = 30.0


class StepFailed(Exception):
    """A step did not do what it should. `log` is what it wrote, if that helps."""

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.log = log


@dataclass
class Ran:
    """One finished command."""

    code: int
    seconds: float
    cpu_seconds: float  # of it and of all that it waited for
    log: Path
    output: str = ""


@dataclass
class Step:
    number: int
    title: str
    seconds: float = 0.0
    note: str = ""
    begun: float = field(default_factory=time.monotonic)


def end_on_signals() -> None:
    """A closed terminal or a plain kill ends things as Ctrl-C does: no load and no playbook stays behind."""

    def interrupt(number: int, _frame: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


class Story:
    """Prints the steps as they happen. `aside` adds a few words to the live line, such as the state of the load."""

    def __init__(self, steps: int, log: Path, out: TextIO = sys.stdout) -> None:
        self.count = steps
        self.log = log
        self.steps: list[Step] = []
        self.aside: Callable[[], str] = str
        self._out = out
        self._live = out.isatty()
        self._said_at = 0.0
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")

    def done(self, title: str, seconds: float) -> None:
        """A step that was over before this program began."""
        self.steps.append(Step(len(self.steps) + 1, title, seconds))
        self._print(f"[{len(self.steps)}/{self.count}] {title}: {seconds:.1f} s")

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Step]:
        step = Step(len(self.steps) + 1, title)
        self.steps.append(step)
        self._said_at = step.begun
        head = f"[{step.number}/{self.count}] {title}"
        if not self._live:
            self._print(f"{head} ...")
        self.progress("")
        try:
            yield step
        except BaseException:
            self._wipe()
            self._print(f"{head}: FAILED after {time.monotonic() - step.begun:.1f} s")
            raise
        step.seconds = time.monotonic() - step.begun
        self._wipe()
        self._print(f"{head}: {step.seconds:.1f} s" + (f", {step.note}" if step.note else ""))

    def rest(self, seconds: float) -> None:
        """Wait, with the live line kept up to date."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.progress("")
            time.sleep(min(0.25, left))

    def say(self, text: str = "") -> None:
        self._wipe()
        self._print(text)

    def progress(self, doing: str) -> None:
        """The live line on a terminal; elsewhere a plain one now and then, so that a log shows where time went."""
        if not self.steps:
            return
        step, now = self.steps[-1], time.monotonic()
        parts = [f"{now - step.begun:4.0f} s", self.aside(), doing]
        line = f"[{step.number}/{self.count}] {step.title}  " + "  ".join(part for part in parts if part)
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._out.write(f"\r\033[K{line[:width]}")
            self._out.flush()
        elif now - self._said_at >= _PLAIN_SECONDS:
            self._said_at = now
            self._print(f"    {line}")

    def run(
        self,
        command: Sequence[str | Path],
        environment: dict[str, str] | None = None,
        check: bool = True,
        timeout: float = 900,
    ) -> Ran:
        """Run a command with its output in the log; raise when it fails, unless the caller wants to judge."""
        words = [str(word) for word in command]
        env = os.environ | {"PYTHONUNBUFFERED": "1", "ANSIBLE_NOCOLOR": "1"} | (environment or {})
        began = time.monotonic()
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(words)}\n".encode())
            log.flush()
            start = log.tell()
            process = subprocess.Popen(
                words, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            try:
                code, cpu = self._follow(process, start, began + timeout)
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                process.wait()
                raise
        seconds = time.monotonic() - began
        with self.log.open("rb") as written:
            written.seek(start)
            output = written.read().decode(errors="replace")
        if code and check:
            raise StepFailed(f"`{' '.join(words)}` ended with code {code}", self.log)
        return Ran(code, seconds, cpu, self.log, output)

    def _follow(self, process: subprocess.Popen[bytes], start: int, deadline: float) -> tuple[int, float]:
        looked_at = 0.0
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return process.returncode, usage.ru_utime + usage.ru_stime
            now = time.monotonic()
            if now > deadline:
                raise StepFailed("it took too long and was stopped", self.log)
            if now - looked_at >= _LIVE_SECONDS:
                looked_at = now
                self.progress(self._doing(start))
            time.sleep(0.02)

    def _doing(self, start: int) -> str:
        """The last task that a playbook named, or the last line that anything else said."""
        with self.log.open("rb") as written:
            written.seek(max(start, written.seek(0, os.SEEK_END) - 8192))
            text = written.read()
        if tasks := _TASK.findall(text):
            return str(tasks[-1].decode(errors="replace"))
        lines = text.decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def failed(self, error: BaseException) -> None:
        """The end of a story that went wrong: why, the last lines of the log, and where the rest is."""
        self._wipe()
        log = error.log if isinstance(error, StepFailed) else None
        if log is not None and log.is_file():
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
            self._print("\n".join(f"    {line}" for line in lines))
            self._print(f"The whole log: {log}")
        self._print(f"Failed: {error}" if str(error) else f"Failed: {type(error).__name__}")

    def _wipe(self) -> None:
        if self._live:
            self._out.write("\r\033[K")

    def _print(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need be; the first row is the heading, numbers stand to the right."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    numeric = [
        all(re.fullmatch(r"[-+]?[\d.,]*%?( ?(s|ms|x))?|-", row[place]) for row in rows[1:])
        for place in range(len(widths))
    ]
    lines = []
    for number, row in enumerate(rows):
        cells = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        lines.append("  ".join(cells).rstrip())
        if number == 0:
            lines.append("  ".join("-" * width for width in widths))
    return "\n".join(lines)
