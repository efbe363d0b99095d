"""The generator as a process of its own, so that nothing its user does delays a request."""

import json
import queue
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.loadgen.plan import Plan

_ROOT = Path(__file__).resolve().parents[2]


class LoadError(Exception):
    """The generator itself failed, which says nothing about the server."""


class Load:
    """A run under control: `with Load(plan) as load: load.mark("deploy"); …; result = load.stop()`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._process: subprocess.Popen[str] | None = None
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def __enter__(self) -> "Load":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.loadgen", "--plan", "-", "--control"],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the master, which stops the run and still gets the result
        )
        threading.Thread(target=self._read, daemon=True).start()
        self._tell(json.dumps(self.plan.as_dict()))
        self._await("started", 20)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None:
            return
        if process.stdin:
            process.stdin.close()
        try:
            process.wait(self.plan.timeout + 5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()

    def mark(self, name: str) -> float:
        """Begin a phase; what is due from now on belongs to it. Says when that was, seconds into the run."""
        self._tell(f"mark {name}")
        return float(self._await("marked", 20)["at"])

    def open(self, window: str) -> float:
        """Begin a window beside the phases, and end the one that is open. "switch/deploy" counts as "switch", too."""
        self._tell(f"open {window}")
        return float(self._await("opened", 20)["at"])

    def close(self) -> None:
        """End the window that is open: what is due from now on belongs to none."""
        self._tell("close")
        self._await("closed", 20)

    def refuse(self, release: str) -> None:
        self._tell(f"refuse {release}")
        self._await("refusing", 20)

    def snapshot(self) -> dict[str, Any]:
        self._tell("snapshot")
        return self._await("snapshot", 20)

    def stop(self) -> dict[str, Any]:
        """End the run and give its result, once the last request has come home."""
        self._tell("stop")
        result: dict[str, Any] = self._await("result", self.plan.timeout + 30)["result"]
        return result

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def _tell(self, line: str) -> None:
        if self._process is None or self._process.stdin is None:
            raise LoadError("the load generator was not started")
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise LoadError("the load generator has ended on its own") from None

    def _await(self, event: str, seconds: float) -> dict[str, Any]:
        while True:
            try:
                got = self._events.get(timeout=seconds)
            except queue.Empty:
                raise LoadError(f"the load generator did not answer ({event}) within {seconds:g} s") from None
            if got is None:
                raise LoadError("the load generator has ended on its own: its message is above")
            if got["event"] == "error":
                raise LoadError(got["message"])
            if got["event"] == event:
                return got
