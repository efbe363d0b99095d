"""The lab's private network: IPv4 and IPv6, in a range that nothing on this machine uses."""

from __future__ import annotations

import hashlib
import ipaddress
import subprocess
from pathlib import Path

from lab import engine
from lab.state import Lab, LabError

# Labs are given /24 networks out of this one. It is private, and not among those that engines take by themselves.
RANGE = ipaddress.IPv4Network("10.213.0.0/16")
FIRST_HOST = 11


def ensure(lab: Lab) -> dict[str, dict[str, str]]:
    """Create the network unless it stands; give each host's addresses, which stay the same over restarts."""
    found = engine.inspect("network", [lab.network])
    if not found:
        _create(lab)
        found = engine.inspect("network", [lab.network])
    subnets = [ipaddress.ip_network(entry["Subnet"]) for entry in found[0]["IPAM"]["Config"]]
    addresses: dict[str, dict[str, str]] = {}
    for number, host in enumerate(lab.hosts, FIRST_HOST):
        addresses[host] = {f"ipv{net.version}": str(net.network_address + number) for net in subnets}
    return addresses


def remove(lab: Lab) -> None:
    if engine.inspect("network", [lab.network]):
        engine.run("network", "rm", lab.network)


def _create(lab: Lab) -> None:
    digest = hashlib.sha256(lab.name.encode()).digest()
    options = ["--label", "slipway.lab=" + lab.name]
    if Path("/proc/sys/net/ipv6").is_dir():
        options += ["--ipv6", "--subnet", f"fd{digest[:5].hex()[:2]}:{digest[1:3].hex()}:{digest[3:5].hex()}::/64"]
    taken = _taken()
    candidates = list(RANGE.subnets(new_prefix=24))
    start = digest[5]
    trouble = "every network of the range is taken"
    # Another lab may take the same one in the meantime: the engine refuses, and the next is tried.
    for candidate in candidates[start:] + candidates[:start]:
        if any(candidate.overlaps(network) for network in taken):
            continue
        try:
            engine.run("network", "create", *options, "--subnet", str(candidate), lab.network)
        except LabError as error:
            trouble = str(error)
            if "overlap" not in trouble:
                raise
            continue
        return
    raise LabError(f"No free network for the lab in {RANGE}: {trouble}")


def _taken() -> list[ipaddress.IPv4Network]:
    """What the machine has routes to, networks of other labs included."""
    routes = subprocess.run(["ip", "-4", "-o", "route"], capture_output=True, text=True, check=False).stdout
    taken = []
    for line in routes.splitlines():
        destination = line.split()[0]
        if destination != "default":
            taken.append(ipaddress.IPv4Network(destination, strict=False))
    return taken
