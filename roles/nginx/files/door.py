#!/usr/bin/python3 -I
"""The door that the edges come through: door open|shut|guard PORT [SOCKET|SECONDS].

Shut, the kernel refuses new connections to the port, so an edge takes the next host before it has sent anything,
whatever the method; what is connected stays so and is finished. It is a table of its own: no reload of the firewall
touches it, and a reboot takes it away. Run by systemd alone.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

TABLE = "slipway-door"
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
ESTABLISHED = "01"
QUIET_SECONDS = 0.3  # one that was let in a moment ago may not be in the table yet


def rules(port: int) -> str:
    """What refuses a first packet and lets all others pass; loading it again changes nothing."""
    return (
        f"add table inet {TABLE}\ndelete table inet {TABLE}\n"
        f"table inet {TABLE} {{\n  chain input {{\n    type filter hook input priority -10; policy accept;\n"
        f"    tcp dport {port} tcp flags & (fin | syn | rst | ack) == syn reject with tcp reset\n  }}\n}}\n"
    )


def connections(table: str, port: int) -> int:
    """How many connections to the port are established, by /proc/net/tcp: sl local_address rem_address st …"""
    rows = [line.split() for line in table.splitlines()[1:]]
    return sum(1 for row in rows if row[1].endswith(f":{port:04X}") and row[3] == ESTABLISHED)


def wait(port: int, seconds: float, tables: tuple[str, ...] = TABLES) -> bool:
    """Whether nobody was connected for a moment before the time was over."""
    deadline = time.monotonic() + seconds
    quiet_since: float | None = None
    while time.monotonic() < deadline:
        if any(connections(Path(table).read_text(), port) for table in tables if Path(table).exists()):
            quiet_since = None
        elif quiet_since is None:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= QUIET_SECONDS:
            return True
        time.sleep(0.05)
    return False


def serves(path: str) -> bool:
    """Whether somebody listens on the app's socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def nft(*words: str, given: str = "") -> int:
    return subprocess.run(["/usr/sbin/nft", *words], input=given, text=True, check=False).returncode


def shut(port: int) -> int:
    return nft("-f", "-", given=rules(port))


def main(argv: list[str]) -> int:
    verb, port, *rest = argv
    if verb == "open":
        return nft("-f", "-", given=f"add table inet {TABLE}\ndelete table inet {TABLE}\n")
    if verb == "guard":
        # Before nginx at boot, and where it is new: nobody is let in to a host that does not serve yet.
        return 0 if serves(rest[0]) else shut(int(port))
    code = shut(int(port))
    if code == 0 and not wait(int(port), float(rest[0])):
        print(f"still connected after {rest[0]} s: going on all the same")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
