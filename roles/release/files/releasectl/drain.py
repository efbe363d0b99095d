"""Draining: a listener that closes loses the connections in its backlog, so wait until there are none."""

from __future__ import annotations

import time
from pathlib import Path

LISTENING = 0x10000  # SO_ACCEPTCON in the flags of /proc/net/unix, proc(5)
QUIET_SECONDS = 0.3  # nginx may have looked the link up just before it was renamed


def connections(table: str, path: Path) -> int:
    """How many connections to the listener at ``path`` are open or wait to be accepted.

    ``table`` is /proc/net/unix: Num RefCount Protocol Flags Type St Inode Path. The server's end of each
    connection carries the listener's path, queued ones included.
    """
    count = 0
    for line in table.splitlines()[1:]:
        parts = line.split(None, 7)
        if len(parts) == 8 and parts[7] == str(path) and not int(parts[3], 16) & LISTENING:
            count += 1
    return count


def wait(path: Path, timeout: float, table: Path = Path("/proc/net/unix")) -> bool:
    """Return True once the listener has had no connection for a moment, False after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    quiet_since: float | None = None
    while time.monotonic() < deadline:
        if connections(table.read_text(errors="replace"), path):
            quiet_since = None
        elif quiet_since is None:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= QUIET_SECONDS:
            return True
        time.sleep(0.05)
    return False
