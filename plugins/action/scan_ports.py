"""Scan a host from the controller with nmap, and compare what answers with what the firewall's list lets in."""

from __future__ import annotations

DOCUMENTATION = r"""
module: scan_ports
short_description: Compare a host's open ports with the firewall's list, from outside
description:
  - Runs nmap on the controller against every address given, over all TCP ports unless told otherwise, and holds the
    result against the list as it is for the address that the scan comes from. It changes nothing on the host.
  - Fails when a port is open that the list does not let in, or when one that it lets in is filtered on the way. One
    that is let in with nobody listening is only mentioned.
options:
  addresses:
    description: Where the host is, IPv4 and IPv6.
    type: list
    elements: str
    required: true
  rules:
    description: The list for this host, as the filter C(firewall_rules) gives it.
    type: list
    elements: dict
    required: true
  source:
    description: The address that the host sees the scan come from, where that is not this machine's own (NAT).
    type: str
  ports:
    description: What is scanned, as nmap writes it; C(-) is every port.
    type: str
    default: "-"
"""

import ipaddress
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from xml.etree import ElementTree

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

PATIENCE = 900  # seconds for one address


def command(address: str, ports: str) -> list[str]:
    """All TCP ports, with no look-ups, and without giving up on a host that answers no ping."""
    argv = ["nmap", "-n", "-Pn", "-p", ports, "-T4", "--min-rate", "3000", "--max-retries", "2", "-oX", "-"]
    return [*argv, *(["-6"] if ipaddress.ip_address(address).version == 6 else []), address]


def parse(xml: str) -> dict[int, str]:
    """{port: state} of every port that nmap names; those that it sums up as one are all not open."""
    root = ElementTree.fromstring(xml)  # noqa: S314 - nmap's own words, of its own process
    found = {}
    for port in root.iter("port"):
        state = port.find("state")
        if state is not None:
            found[int(port.get("portid", "0"))] = state.get("state", "")
    return found


def rest_of(xml: str) -> str:
    """The state of those that it sums up; a host that gave no sign at all is one that nothing gets to."""
    root = ElementTree.fromstring(xml)  # noqa: S314
    if root.find("host") is None:
        return "filtered"
    found = root.find(".//extraports")
    return "" if found is None else found.get("state", "")


def expected(rules: list[dict[str, Any]], source: str) -> set[int]:
    """The TCP ports that the list lets an address reach."""
    address = ipaddress.ip_address(source)
    ports: set[int] = set()
    for rule in rules:
        if rule["direction"] != "in" or "tcp" not in rule["protos"]:
            continue
        if any(address in ipaddress.ip_network(cidr) for cidr in rule["networks"]):
            for text in rule["ports"]:
                first, _, last = str(text).partition(":")
                ports.update(range(int(first), int(last or first) + 1))
    return ports


def compare(listed: set[int], states: dict[int, str], rest: str) -> tuple[list[int], list[int], list[int]]:
    """(open and not listed, listed and filtered, listed with nobody listening)."""
    strangers = sorted(port for port, state in states.items() if state == "open" and port not in listed)
    shut = sorted(port for port in listed if states.get(port, rest) == "filtered")
    silent = sorted(port for port in listed if states.get(port, rest) == "closed")
    return strangers, shut, silent


def own_address(address: str) -> str:
    """The address of this machine that packets to another one leave from."""
    version = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    with socket.socket(version, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return str(probe.getsockname()[0])


def numbers(ports: list[int]) -> str:
    return ", ".join(map(str, ports))


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            {
                "addresses": {"type": "list", "elements": "str", "required": True},
                "rules": {"type": "list", "elements": "dict", "required": True},
                "source": {"type": "str"},
                "ports": {"type": "str", "default": "-"},
            }
        )
        if not shutil.which("nmap"):
            raise AnsibleActionFail("nmap is not on this machine: sudo apt-get install nmap")
        host = (task_vars or {})["inventory_hostname"]
        wrong, said, found = [], [], {}
        sources = {}
        for address in args["addresses"]:
            try:
                sources[address] = args["source"] or own_address(address)
            except OSError as error:
                wrong.append(f"{address} of {host} cannot be reached from here: {error.strerror}.")
        # A scan of what answers nothing is all waiting.
        with ThreadPoolExecutor(max_workers=max(1, len(sources))) as pool:
            scans = list(pool.map(lambda address: self._scan(address, args["ports"]), sources))
        for (address, source), (states, rest) in zip(sources.items(), scans, strict=True):
            strangers, shut, silent = compare(expected(args["rules"], source), states, rest)
            opened = sorted(port for port, state in states.items() if state == "open")
            found[address] = opened
            said.append(f"{host} ({address}), seen from {source}: open {numbers(opened) or 'nothing'}")
            if silent:
                said[-1] += f"; let in, with nobody listening: {numbers(silent)}"
            if strangers:
                wrong.append(f"{host} ({address}) answers on {numbers(strangers)}, which the list does not let in.")
            if shut:
                wrong.append(f"{host} ({address}) does not let {source} reach {numbers(shut)}, which the list lets in.")
        result.update(changed=False, open=found, msg="\n".join(wrong or said), failed=bool(wrong))
        return result

    def _scan(self, address: str, ports: str) -> tuple[dict[int, str], str]:
        try:
            done = subprocess.run(
                command(address, ports),
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise AnsibleActionFail(f"nmap did not end within {PATIENCE} s on {address}.") from None
        if done.returncode:
            raise AnsibleActionFail(f"nmap failed on {address}: {done.stderr.strip()}")
        return parse(done.stdout), rest_of(done.stdout)
