"""Looks at the firewall from within lab hosts: what a program there reaches, what rules run, and a zone that moves."""

from __future__ import annotations

import ipaddress
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONVERGE = "molecule/firewall/converge.yml"
FAMILIES = ("ipv4", "ipv6")

LISTEN = """
import selectors, socket, sys
chosen = selectors.DefaultSelector()
for port in sys.argv[1:]:
    try:
        chosen.register(socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True), 1)
    except OSError:
        pass  # somebody listens there already, which does as well
while True:
    for key, _ in chosen.select():
        connection, _ = key.fileobj.accept()
        connection.close()
"""
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close()"


def reaches(host: Any, address: str, port: int) -> bool:
    """Whether a program on this host gets a connection to there."""
    return bool(host.run(f"python3 -c {shlex.quote(CONNECT)} {address} {port}").rc == 0)


def live_rules(host: Any) -> str:
    """The filter's rules of both families, without their counters."""
    text = host.check_output("iptables-save -t filter | grep -v '^#'; ip6tables-save -t filter | grep -v '^#'")
    return re.sub(r" \[\d+:\d+\]", "", str(text))


def listen(host: Any) -> None:
    """Have something listen, on ports that are let in and on ports that are not, until the host restarts."""
    ports = "80 443 5432 6379 8080 9999"
    host.check_output(f"systemd-run --quiet --unit=test-listeners python3 -c {shlex.quote(LISTEN)} {ports}")


@dataclass(frozen=True)
class Places:
    """Addresses of the lab, in both families."""

    facts: dict[str, Any]

    def of(self, host: str, family: str) -> str:
        return str(self.facts["hosts"][host][family])

    def near(self, family: str, number: int) -> str:
        """Another address of the lab's network; 1 is the controller's own."""
        prefix = 24 if family == "ipv4" else 64
        network = ipaddress.ip_network(f"{self.of('app1', family)}/{prefix}", strict=False)
        return str(network.network_address + number)


class Zone:
    """An authority for moving.test on data1."""

    def __init__(self, data1: Any, places: Places) -> None:
        self.data1, self.places = data1, places
        self.numbers: list[int] = []

    def start(self) -> None:
        self.data1.check_output(
            "dnsmasq --conf-file=/dev/null --no-resolv --no-hosts --local=/test/ --addn-hosts=/run/zone --local-ttl=1"
            f" --listen-address={self.places.of('data1', 'ipv4')} --bind-interfaces --pid-file=/run/zone.pid"
        )

    def stop(self) -> None:
        self.data1.check_output("kill $(cat /run/zone.pid) && rm /run/zone.pid")

    def lead_to(self, number: int) -> None:
        """moving.test has other addresses from now on; data1 answers there too."""
        lines = "".join(f"{self.places.near(family, number)} moving.test\\n" for family in FAMILIES)
        if number not in self.numbers:
            self.numbers.append(number)
            self._addresses("add", number)
        self.data1.check_output(f"printf '{lines}' >/run/zone")
        self.data1.check_output("if [ -e /run/zone.pid ]; then kill -HUP $(cat /run/zone.pid); fi; sleep 1.2")

    def remove(self) -> None:
        for number in self.numbers:
            self._addresses("del", number)
        self.data1.check_output(
            "if [ -e /run/zone.pid ]; then kill $(cat /run/zone.pid); fi; rm -f /run/zone /run/zone.pid"
        )

    def _addresses(self, verb: str, number: int) -> None:
        self.data1.check_output(f"ip address {verb} {self.places.near('ipv4', number)}/24 dev eth0")
        nodad = " nodad" if verb == "add" else ""
        self.data1.check_output(f"ip address {verb} {self.places.near('ipv6', number)}/64 dev eth0{nodad}")


def ssh_through(config: Path, user: str, host: str, command: str) -> subprocess.CompletedProcess[str]:
    argv = ["ssh", "-F", str(config), "-o", "ControlPath=none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"]
    return subprocess.run(
        [*argv, "-l", user, host, command],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
