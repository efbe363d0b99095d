"""Watching a release that has just gone live: its processes, its health path, and what nginx wrote of its answers."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from . import app as apps
from . import health
from .config import Config
from .files import write_json
from .names import Generation
from .systemd import Systemd

TICK = 0.5  # seconds between two looks
PROBE_EVERY = 1.0  # seconds between two questions for the health path
PROBE_TIMEOUT = 5.0
TELL_EVERY = 10.0
CHUNK = 1 << 20
LINE_MAX = 1 << 16  # bytes; a longer line is none of nginx's
SOCKET = "unix:"


class Failed(Exception):
    """The release has to go back; the text is the end of a sentence that says why."""


class Interrupted(Exception):
    """The app was stopped meanwhile, by a person or with the host: nothing can be said of the release."""


@dataclass(frozen=True)
class Seen:
    """What a watch saw: how long, and how many answers of the release, of which so many were errors."""

    seconds: float
    requests: int
    errors: int

    def __str__(self) -> str:
        if not self.requests:
            return "no request came"
        return f"{self.requests} requests, {self.errors} of them errors ({percent(self.errors / self.requests)})"


def percent(share: float) -> str:
    """A share as people write it."""
    return f"{100 * share:.3g} %"


class Answers:
    """Counts what nginx writes of one release's answers from now on, also when the log is rotated meanwhile.

    nginx writes its lines up to a second late, and those of other releases among them. An answer without the name of a
    release that the app was asked for (it broke off, or died) counts when the request came after the switch.
    """

    def __init__(self, path: str, release: str, since: float) -> None:
        self.path, self.release, self.since = path, release, since
        self.requests = self.errors = 0
        self._rest = b""
        self._file = self._open()
        if self._file is not None:
            os.lseek(self._file, 0, os.SEEK_END)

    def _open(self) -> int | None:
        if not self.path:
            return None
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
        os.close(descriptor)
        return None

    @property
    def readable(self) -> bool:
        """Whether there is a log to count by."""
        return self._file is not None

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def read(self) -> None:
        """Count what came since the last time."""
        if self._file is not None:
            self._drain(self._file)
        if self._rotated():
            fresh = self._open()
            if fresh is not None:
                self.close()
                self._file, self._rest = fresh, b""
                self._drain(fresh)

    def _rotated(self) -> bool:
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        if self._file is None:
            return True
        mine = os.fstat(self._file)
        if (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            return True
        if mine.st_size < os.lseek(self._file, 0, os.SEEK_CUR):  # it was cut, not renamed
            os.lseek(self._file, 0, os.SEEK_SET)
            self._rest = b""
        return False

    def _drain(self, descriptor: int) -> None:
        while piece := os.read(descriptor, CHUNK):
            *lines, self._rest = (self._rest + piece).split(b"\n")
            self._rest = self._rest[:LINE_MAX]
            for line in lines:
                self._count(line)

    def _count(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            status = int(entry["status"])
            asked = str(entry["upstream_status"])
            release, place = str(entry["release"]), str(entry.get("backend", SOCKET))
            last = _last(asked)
            named = release == self.release
            # An edge that balances writes of other hosts' answers as well: theirs are theirs to count.
            here = place.startswith(SOCKET)
            began = datetime.fromisoformat(entry["time"]).timestamp() - float(entry["request_time"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        if here and (named or (release == "" and last and began >= self.since)):
            self.requests += 1
            self.errors += status >= 500 or last >= 500


def _last(asked: str) -> int:
    """The last status of $upstream_status ('502', '502, 200', '502 : 200'), 0 when the app was not asked."""
    word = asked.replace(":", ",").rpartition(",")[2].strip()
    return int(word) if word.isdecimal() else 0


class Watch:
    """One watch: made before the switch, so that no answer is missed, and `run` after it."""

    def __init__(
        self, config: Config, systemd: Systemd, generation: Generation, units: list[str], say: Callable[[str], None]
    ) -> None:
        self.config, self.systemd, self.generation, self.units, self.say = config, systemd, generation, units, say
        self.restarts = {unit: systemd.restarts(unit) for unit in units}
        self.answers = Answers(
            config.watch_log if "gunicorn" in config.processes else "", generation.release, time.time()
        )
        self.health_path = apps.of(config, generation.release).health_path
        self.unwell = 0
        self.since = time.monotonic()
        withdraw(config)

    def run(self, seconds: int) -> Seen:
        """Return what was seen in so many seconds; raises `Failed` at once when the release has to go back."""
        probe = tell = self.since = time.monotonic()
        try:
            while (elapsed := time.monotonic() - self.since) < seconds:
                self._asked_to_end()
                self._processes()
                if time.monotonic() >= probe and "gunicorn" in self.config.processes:
                    self._probe()
                    probe = time.monotonic() + PROBE_EVERY
                self.answers.read()
                self._errors()
                if time.monotonic() >= tell + TELL_EVERY:
                    tell = time.monotonic()
                    self.say(f"watched for {elapsed:.0f} of {seconds} s: {self.seen()}")
                time.sleep(min(TICK, max(0.0, seconds - elapsed)))
            self.answers.read()
            self._errors()
            return self.seen()
        finally:
            self.answers.close()

    def seen(self) -> Seen:
        """What was seen up to now."""
        return Seen(time.monotonic() - self.since, self.answers.requests, self.answers.errors)

    def _asked_to_end(self) -> None:
        actor = asked_to_end(self.config, self.generation)
        if actor is not None:
            raise Failed(f"{actor} asked for it")

    def _processes(self) -> None:
        for unit in self.units:
            active, restarts = self.systemd.active(unit), self.systemd.restarts(unit)
            if active in ("active", "reloading") and restarts <= self.restarts[unit]:
                continue
            if self.systemd.active("app.service") != "active":
                raise Interrupted
            raise Failed(f"{unit} ended ({active}, started again {restarts - self.restarts[unit]} times)")

    def _probe(self) -> None:
        config = self.config
        try:
            path = config.generation_socket(self.generation)
            status, said = health.probe(path, self.health_path, config.domain, PROBE_TIMEOUT)
            reason = (
                ""
                if health.well(self.health_path, status)
                else f"it answered {status}" + (f" ({said})" if said else "")
            )
        except OSError as error:
            reason = f"it did not answer ({error.strerror or error})"
        except http.client.HTTPException as error:
            reason = f"it did not speak HTTP ({type(error).__name__})"
        self.unwell = self.unwell + 1 if reason else 0
        if self.unwell >= config.health_failures:
            raise Failed(
                f"{self.health_path or health.ANYWHERE} was not healthy {self.unwell} times in a row: {reason}"
            )

    def _errors(self) -> None:
        requests, errors, limit = self.answers.requests, self.answers.errors, self.config.watch_error_rate
        if requests >= self.config.watch_min_requests and errors / requests > limit:
            raise Failed(
                f"{errors} of {requests} answers were errors ({percent(errors / requests)}, more than {percent(limit)})"
            )


# A person who wants the watched release gone need not wait: the verb that watches is asked to go back.


def end(config: Config, generation: Generation, actor: str) -> None:
    """Ask the verb that watches ``generation`` to go back now."""
    write_json(config.private_run / "watch-end.json", {"generation": str(generation), "actor": actor})


def asked_to_end(config: Config, generation: Generation) -> str | None:
    """Who asked for that, None when nobody did."""
    try:
        note = json.loads((config.private_run / "watch-end.json").read_text())
        return str(note["actor"]) if note["generation"] == str(generation) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def withdraw(config: Config) -> None:
    """Forget what was asked for an earlier watch."""
    with contextlib.suppress(FileNotFoundError):
        (config.private_run / "watch-end.json").unlink()
