"""The open loop: request number n leaves at start + n / rate, whatever became of those before it."""

import asyncio
import contextlib
import re
import ssl
import time
from collections import Counter, deque

from benchmarks.loadgen.connection import Connection, Lost, Response
from benchmarks.loadgen.plan import Plan
from benchmarks.loadgen.result import Outcome, Window

_STATIC_LINK = re.compile(rb"""["'](/static/[A-Za-z0-9._/-]{1,200})["']""")
# Pages open in somebody's browser outlive a switch: their static files must still be there for a while.
_STATIC_MEMORY = 40


class Engine:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.outcomes: list[Outcome] = []
        self.marks: list[tuple[str, float]] = []
        self.windows: list[Window] = []
        self.scheduled = 0
        self.in_flight = 0
        self.started_at = 0.0  # wall clock, to find the run in other logs
        self.refused = set(plan.refused)
        self._origin = 0.0
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle: deque[Connection] = deque()
        self._kept = 0  # kept connections there are, idle or in use
        self._static = list(plan.static)
        self._lost = 0
        self._answered: Counter[str] = Counter()  # by release
        self._context = ssl.create_default_context(cafile=plan.ca_file)
        self._context.set_alpn_protocols(["http/1.1"])

    # Control.
    def now(self) -> float:
        return time.monotonic() - self._origin

    def mark(self, name: str) -> None:
        self.marks.append((name, self.now()))

    def open(self, name: str) -> float:
        """Begin a window, and end the one that is open; what is due from now on belongs to it."""
        now = self.now()
        self.close(now)
        self.windows.append(Window(name, now))
        return now

    def close(self, at: float | None = None) -> None:
        """End the window that is open, if there is one."""
        if self.windows and self.windows[-1].end is None:
            self.windows[-1].end = self.now() if at is None else at

    def refuse(self, release: str) -> None:
        """From now on, and looking back, an answer from this release is a loss."""
        self.refused.add(release)

    def stop(self) -> None:
        self._stopping = True

    def snapshot(self) -> dict[str, int | float]:
        lost = self._lost + sum(self._answered[release] for release in self.refused)
        return {"seconds": round(self.now(), 1), "sent": self.scheduled, "done": len(self.outcomes), "lost": lost}

    async def run(self) -> None:
        """Send until stopped or until a bound is reached, then wait for what is still under way."""
        self._origin = time.monotonic()
        self.started_at = time.time()
        self.mark("start")
        plan = self.plan
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(plan.max_seconds):
                while not self._stopping and self.scheduled < plan.max_requests:
                    due = self.scheduled / plan.rate
                    wait = due - self.now()
                    if wait > 0:
                        await asyncio.sleep(wait)
                        continue
                    task = asyncio.create_task(self._one(self.scheduled, due))
                    self.scheduled += 1
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                    if self.scheduled % 50 == 0:  # when far behind, still let answers in
                        await asyncio.sleep(0)
        self.mark("stop")
        self.close()
        if self._tasks:
            await asyncio.gather(*self._tasks)
        while self._idle:
            self._idle.pop().close()
        await asyncio.sleep(0.05)

    # One request.
    async def _one(self, number: int, due: float) -> None:
        kind, new = self.plan.kind(number), self.plan.is_new(number)
        path = self._path(kind, number)
        sent = self.now()
        outcome = Outcome(due, kind, new, late=sent - due)
        self.in_flight += 1
        try:
            response = await self._exchange(path, outcome)
            outcome.status = response.status
            outcome.release = response.headers.get("x-release", "")
            if not 200 <= response.status <= 299:
                outcome.lost = "status"
            elif kind == "page" and self.plan.follow_static:
                self._remember(response.body)
        except Lost as lost:
            outcome.lost, outcome.detail, outcome.status = lost.reason, lost.detail, lost.status
        finally:
            outcome.latency = self.now() - due
            self.in_flight -= 1
            self.outcomes.append(outcome)
            if outcome.lost:
                self._lost += 1
            else:
                self._answered[outcome.release] += 1

    async def _exchange(self, path: str, outcome: Outcome) -> Response:
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self.plan.timeout):
                if not outcome.new:
                    connection = self._take()
                if connection is not None:
                    reused_at = self.now()
                    try:
                        return await self._on(connection, path, keep=True)
                    except Lost as lost:
                        # The server closed an idle connection while our request was on its way to it. Nobody took
                        # the request in hand, and every client sends such a one again on a fresh connection (RFC 9112,
                        # 9.3.1). Only then: not when a byte had come back, not when the server had time to work on it.
                        raced = self.now() - reused_at <= self.plan.idle_race
                        if lost.seen or lost.reason not in ("closed", "reset") or not raced:
                            raise
                        outcome.retried = True
                keep = not outcome.new and self._kept < self.plan.kept
                if keep:
                    self._kept += 1
                try:
                    connection = await Connection.connect(
                        self.plan.address, self.plan.port, self.plan.host, self._context
                    )
                except BaseException:
                    if keep:
                        self._kept -= 1
                    raise
                return await self._on(connection, path, keep)
        except TimeoutError:
            raise Lost("timeout", f"no whole answer in {self.plan.timeout:g} s") from None

    async def _on(self, connection: Connection, path: str, keep: bool) -> Response:
        """One exchange on one connection, which then waits for the next, or ends."""
        try:
            response = await connection.request(self._head(path, keep))
        except BaseException:
            connection.abort()
            if keep:
                self._kept -= 1
            raise
        if not keep:
            connection.close()
        elif connection.open:
            self._idle.append(connection)
        else:
            self._kept -= 1
        return response

    def _take(self) -> Connection | None:
        """The connection that has been idle longest, once there are as many as there should be."""
        while self._idle:
            if self._idle[0].open:
                return self._idle.popleft() if self._kept >= self.plan.kept else None
            self._idle.popleft()
            self._kept -= 1
        return None

    def _head(self, path: str, keep: bool) -> bytes:
        ending = "" if keep else "Connection: close\r\n"
        return (
            f"GET {path} HTTP/1.1\r\nHost: {self.plan.host}\r\nUser-Agent: {self.plan.user_agent}\r\n"
            f"Accept: */*\r\n{ending}\r\n"
        ).encode("ascii")

    def _path(self, kind: str, number: int) -> str:
        if kind == "slow":
            return self.plan.slow_path
        choices = {"api": self.plan.api, "static": self._static}.get(kind) or self.plan.pages
        return choices[number % len(choices)]

    def _remember(self, body: bytes) -> None:
        for link in _STATIC_LINK.findall(body):
            path = link.decode("ascii")
            if path not in self._static:
                self._static.append(path)
        del self._static[len(self.plan.static) : max(len(self.plan.static), len(self._static) - _STATIC_MEMORY)]
