"""A verb runs in a transient unit: a cut ssh connection does not kill it, and the same command attaches to it again."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .errors import Refusal
from .files import write_json
from .systemd import CONFINED, LET_GO, RUNNING, run

RESULT = "result.json"
REQUEST = "request.json"
LOG = "log"

# A verb is root's and runs no code of a release itself: it unpacks, gives files to root, links, records, asks systemd.
SANDBOX = (
    *CONFINED,
    "ProtectSystem=full",
    "CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_SYS_NICE",
    # It talks to systemd and to generations, both by sockets that are files.
    "PrivateNetwork=yes",
    "RestrictAddressFamilies=AF_UNIX",
    "MemoryDenyWriteExecute=yes",
    "UMask=0022",
    "KillMode=control-group",
    "StandardInput=null",
)


class Job:
    """One verb with its arguments: the same words are the same job."""

    def __init__(self, private_run: Path, key: str) -> None:
        self.key = key
        self.directory = private_run / "jobs" / key
        self.unit = f"releasectl-{key}.service"

    @classmethod
    def of(cls, private_run: Path, verb: str, arguments: dict[str, object]) -> Job:
        """The job for a verb; who asks, and under which lease, does not make it another one."""
        words = {name: value for name, value in arguments.items() if name not in ("actor", "token")}
        digest = hashlib.sha256(json.dumps([verb, words], sort_keys=True).encode()).hexdigest()
        return cls(private_run, f"{verb}-{digest[:12]}")

    def _running(self) -> bool:
        shown = run(["systemctl", "show", "--property=ActiveState", "--value", self.unit])
        return shown.stdout.strip() in (*RUNNING, "deactivating")

    def begin(self, program: list[str], request: dict[str, object], writable: Sequence[Path] = ()) -> bool:
        """Start the job unless it runs already; return whether it was started now. In /etc it writes ``writable``."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self.directory / "start.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._running():
                return False
            for name in (RESULT, LOG):
                (self.directory / name).unlink(missing_ok=True)
            write_json(self.directory / REQUEST, request)
            self._start([*program, self.key], str(request["verb"]), [f"ReadWritePaths=-{path}" for path in writable])
            return True

    def _start(self, program: list[str], verb: str, more: list[str]) -> None:
        command = [
            "systemd-run", "--quiet", "--collect", "--service-type=exec", f"--unit={self.unit}",
            f"--description=releasectl {verb}", *(f"--property={item}" for item in (*SANDBOX, *more)), "--", *program,
        ]  # fmt: skip
        deadline = time.monotonic() + LET_GO
        while (started := run(command)).returncode != 0:
            # It runs no more, as the caller saw; what is left of it goes once systemd gets to it.
            if "already loaded" not in started.stderr or time.monotonic() > deadline:
                raise Refusal(f"systemd did not start the job: {started.stderr.strip()[:300]}")
            time.sleep(0.2)

    def follow(self) -> dict[str, object]:
        """Show progress on standard error until the job has ended, and return its result."""
        shown = 0
        checks = 0
        while True:
            finished = (self.directory / RESULT).exists()
            shown = self._show_log(shown)
            if finished:
                answer: dict[str, object] = json.loads((self.directory / RESULT).read_text())
                return answer
            checks += 1
            if checks % 20 == 0 and not self._running() and not (self.directory / RESULT).exists():
                raise Refusal(
                    "The job was killed before its end: run the same command again, it goes on from a known state."
                )
            time.sleep(0.05)

    def _show_log(self, offset: int) -> int:
        try:
            with open(self.directory / LOG, "rb") as stream:
                stream.seek(offset)
                text = stream.read()
        except FileNotFoundError:
            return offset
        if text:
            with contextlib.suppress(OSError):
                sys.stderr.write(text.decode(errors="replace"))
                sys.stderr.flush()
        return offset + len(text)

    # Inside the unit

    def request(self) -> dict[str, object]:
        """What was asked for."""
        asked: dict[str, object] = json.loads((self.directory / REQUEST).read_text())
        return asked

    def say(self, line: str) -> None:
        """One line of progress, for whoever follows and for the journal."""
        with open(self.directory / LOG, "a") as stream:
            stream.write(line + "\n")
        print(line, flush=True)

    def finish(self, answer: dict[str, object]) -> None:
        """Leave the result; the last thing that a job does."""
        write_json(self.directory / RESULT, answer)


def who() -> str:
    """The account behind sudo, or root itself."""
    return os.environ.get("SUDO_USER") or "root"
