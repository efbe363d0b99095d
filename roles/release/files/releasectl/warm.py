"""Warming up: before the first user comes, every worker of a new generation has loaded the app and answered.

The health gate is passed by the first worker that answers. The others may still be importing, and what an app does once
in a process or a thread (templates, routes, a connection to its database) is done while somebody waits for it. So the
gate is followed by two things: each worker says that it is ready (slipway_app.py), and rounds of requests, several for
each worker at the same time, are asked until a round is no quicker than the one before.

Neither decides anything. What an answer says is the gate's and the smoke tests' to judge, and a generation that does
not get warm within `LONGEST` goes live as it is.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .health import as_nginx

READY = "ready-"  # a file of this name and the worker's id says that it has loaded the app (slipway_app.py)
LONGEST = 10.0  # seconds for all of it
# While it loads the app, a generation takes what the one that serves leaves over, and a tenth where that leaves
# nothing; for no more than so many seconds, or one that is well would miss its health gate where it is always busy.
NICE, USUAL, NICE_LONGEST = 10, 0, 10.0
LOOK = 0.05  # seconds between two looks at the workers
# gunicorn starts them one after the other, up to a tenth of a second apart (Arbiter.spawn_workers).
APART = 0.25
# So many requests for each worker at the same time: they spread over all of them, and over the threads of each.
EACH = 3
ROUNDS = 3
QUICKER = 0.8  # a round that takes no less than so much of the one before was warm


@dataclass(frozen=True)
class Warmth:
    """What came of it: how many workers there are, and are ready; how many rounds were asked, and how many seconds the
    first and the last of them took.
    """

    workers: int
    ready: int
    rounds: int = 0
    first: float = 0.0
    last: float = 0.0

    def __str__(self) -> str:
        if not self.rounds:
            return f"{self.ready} of {self.workers} workers are ready"
        slowest = f"{self.first * 1000:.0f} ms at first, {self.last * 1000:.0f} ms at last"
        return f"{self.ready} of {self.workers} workers are ready, the slowest answer took {slowest}"


def children(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """The processes that ``pid`` has started, proc(5)."""
    try:
        return [int(word) for word in (proc / str(pid) / "task" / str(pid) / "children").read_text().split()]
    except OSError:
        return []


def give_priority(pid: int, nice: int, proc: Path = Path("/proc")) -> None:
    """Give a process, what it has started and all their threads a priority, setpriority(2), as far as it can be had."""
    for process in (pid, *children(pid, proc)) if pid else ():
        for thread in (proc / str(process) / "task").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)


def can_be_given_back() -> bool:
    """Whether this process may take a low priority and have the usual one again: root may, but for some containers'."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, before + 1)
        os.setpriority(os.PRIO_PROCESS, 0, before)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def at_low_priority(main_pid: Callable[[], int]) -> Iterator[None]:
    """A generation is started in here, and loads the app at `NICE` (hostctl environment): see that this ends."""
    timer = threading.Timer(NICE_LONGEST, lambda: give_priority(main_pid(), USUAL))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def ready(run: Path) -> set[int]:
    """The processes of a generation that have said that they have loaded the app."""
    with contextlib.suppress(OSError):
        return {int(entry.name.removeprefix(READY)) for entry in run.glob(f"{READY}[0-9]*")}
    return set()


def wait(run: Path, main: int, deadline: float, proc: Path = Path("/proc")) -> tuple[int, int]:
    """Return when every worker has loaded the app, or at ``deadline``: how many there are, and how many are ready.

    An app that was loaded before the workers were started (gunicorn's --preload) is ready in all of them.
    """
    if not main:
        return 0, 0
    since, before = time.monotonic(), None
    while True:
        there, said = children(main, proc), ready(run)
        now = time.monotonic()
        if there != before:
            since, before = now, there
        count = len(there) if main in said else len(said.intersection(there))
        if (there and count == len(there) and now - since >= APART) or now >= deadline:
            return len(there), count
        time.sleep(LOOK)


def ask(path: Path, target: str, domain: str, count: int, deadline: float) -> float:
    """Ask ``count`` times at once, each over a connection of its own; how long the last answer took, in seconds."""
    headers = {**as_nginx(domain), "Connection": "close"}
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    began = time.monotonic()
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(count):
            connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            connection.settimeout(1.0)
            try:
                connection.connect(str(path))
                connection.sendall(request)
            except OSError:
                continue
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _events in selector.select(left):
                if _ended(key.fileobj):
                    selector.unregister(key.fileobj)
                    # At once: gunicorn's worker does nothing else until then, or for 2 s (util.close_graceful).
                    key.fileobj.close()  # type: ignore[union-attr]
    return time.monotonic() - began


def _ended(connection: object) -> bool:
    """Read what has come; whether that was the end."""
    assert isinstance(connection, socket.socket)
    try:
        return not connection.recv(1 << 16)
    except BlockingIOError:
        return False
    except OSError:
        return True


def up(path: Path, main: int, health: str, pages: Sequence[str], domain: str, say: Callable[[str], None]) -> Warmth:
    """Wait for the workers of the generation that listens at ``path``, then ask until they are warm.

    The health path once: it asks for all that the app needs, so it is worth more than a page, and costs more.
    """
    deadline = time.monotonic() + LONGEST
    workers, count = wait(path.parent, main, deadline)
    give_priority(main, USUAL)
    if health:
        ask(path, health, domain, 2 * max(1, workers), deadline)
    times = list(_rounds(path, pages, domain, EACH * max(1, workers), deadline))
    warmth = Warmth(workers, count, len(times), *((times[0], times[-1]) if times else ()))
    say(str(warmth))
    return warmth


def _rounds(path: Path, pages: Sequence[str], domain: str, count: int, deadline: float) -> Iterable[float]:
    before: float | None = None
    for _ in range(ROUNDS if pages else 0):
        took = max(ask(path, page, domain, count, deadline) for page in pages)
        yield took
        if time.monotonic() >= deadline or (before is not None and took >= QUICKER * before):
            return
        before = took
