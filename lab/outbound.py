"""What hosts on this machine reach the world by: its resolvers, and the mirrors and proxies that its apt names.

The firewall's role lets out what its list says; this is what the list lacks here, and differs from machine to machine.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lab import image
from lab.state import LabError

RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
# What the engine asks when the machine has only resolvers of its own loopback.
FALLBACK = ["8.8.8.8", "8.8.4.4"]
PORTS = {"http": 80, "https": 443, "socks5h": 1080}


def outbound() -> list[dict[str, Any]]:
    """Entries for firewall_outbound_extra."""
    texts = [path.read_text() for path in RESOLVERS if path.is_file()]
    try:
        mirrors = list(image.mirrors())
    except LabError:
        mirrors = []
    return entries(texts, [*mirrors, *proxies(image.apt_settings())])


def entries(resolv_confs: list[str], addresses: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": "lab-dns",
            "purpose": "the engine asks the machine's resolvers from within each host",
            "protos": ["udp", "tcp"],
            "ports": ["53"],
            "networks": resolvers(resolv_confs) or FALLBACK,
        }
    ]
    for number, (port, places) in enumerate(sorted(by_port(addresses).items())):
        entry: dict[str, Any] = {"name": f"lab-apt-{number}", "purpose": "the machine's mirror", "ports": [str(port)]}
        for kind in ("names", "networks"):
            if places[kind]:
                entry[kind] = sorted(places[kind])
        found.append(entry)
    return found


def resolvers(resolv_confs: list[str]) -> list[str]:
    """Those that the engine hands questions on to: not the machine's own loopback."""
    found = []
    for text in resolv_confs:
        for word in re.findall(r"^\s*nameserver\s+(\S+)", text, re.MULTILINE):
            address = ipaddress.ip_address(word.partition("%")[0])
            if not address.is_loopback and str(address) not in found:
                found.append(str(address))
    return found


def proxies(apt_settings: str) -> list[str]:
    """The proxies in what `apt-config dump` prints."""
    return re.findall(r'Proxy(?:::\S*)? "([a-z0-9]+://[^"]+)"', apt_settings)


def by_port(addresses: list[str]) -> dict[int, dict[str, set[str]]]:
    found: dict[int, dict[str, set[str]]] = {}
    for address in addresses:
        parts = urlsplit(address)
        port = parts.port or PORTS.get(parts.scheme, 80)
        place = found.setdefault(port, {"names": set(), "networks": set()})
        host = parts.hostname or ""
        try:
            place["networks"].add(str(ipaddress.ip_address(host)))
        except ValueError:
            place["names"].add(host)
    return found
