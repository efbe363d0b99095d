"""The access log beside the repository: JSON lines, only ever appended to."""

from __future__ import annotations

import datetime
import fcntl
import json
import os
from pathlib import Path
from typing import Any


class Unfit(Exception):
    """The log is not as we left it; the text says how."""


def append(path: Path, entry: dict[str, Any], now: datetime.datetime) -> dict[str, Any]:
    """Append one line, and see it on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = {"time": now.strftime("%Y-%m-%dT%H:%M:%SZ"), **entry}
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            raise Unfit(f"{path} does not end with a whole line: a run was cut short; end that line by hand")
        os.write(descriptor, (json.dumps(line, ensure_ascii=False) + "\n").encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return line


def read(path: Path) -> list[dict[str, Any]]:
    found = []
    for number, text in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
        try:
            found.append(json.loads(text))
        except ValueError as error:
            raise Unfit(f"line {number} of {path} is no JSON") from error
    return found
