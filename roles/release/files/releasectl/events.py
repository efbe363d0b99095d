"""The record of every lifecycle event: one JSON object a line, one file a month, only ever appended to."""

from __future__ import annotations

import errno
import json
import os
import time
from datetime import datetime, timezone
from pathlib import Path


def timestamp(at: float | None = None) -> str:
    """Seconds since the epoch as RFC 3339 in UTC."""
    moment = datetime.fromtimestamp(time.time() if at is None else at, tz=timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


class Events:
    """Appends to and reads from /var/log/app/releases/YYYY-MM.jsonl."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def append(self, **event: object) -> None:
        """Write one event by one write(2) call, so that a crash leaves a whole line or none."""
        now = time.time()
        line = (json.dumps({"at": timestamp(now), **event}, sort_keys=True) + "\n").encode()
        path = self.directory / (timestamp(now)[:7] + ".jsonl")
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)
        try:
            written = os.write(descriptor, line)
            if written != len(line):
                # The disk became full in the middle: half a line would hide the next one.
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def recent(self, limit: int) -> list[dict[str, object]]:
        """The newest events, oldest first; a line that is no JSON is shown as such instead of hiding the rest."""
        found: list[dict[str, object]] = []
        for path in sorted(self.directory.glob("[0-9][0-9][0-9][0-9]-[0-9][0-9].jsonl"), reverse=True):
            for line in reversed(path.read_text(errors="replace").splitlines()):
                if len(found) == limit:
                    return found[::-1]
                try:
                    event = json.loads(line)
                    if not isinstance(event, dict):
                        raise ValueError
                except ValueError:
                    event = {"at": "?", "verb": "?", "outcome": "unreadable", "message": line[:200]}
                found.append(event)
        return found[::-1]
