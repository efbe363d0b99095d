"""What keeps an alert from reaching anybody, said before the first change."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

Entry = Mapping[str, Any]
# The account that tells it, should an entry be for one account alone.
ACCOUNT = "slipway-alerts"


def problems(webhook: str, outbound: Iterable[Entry], groups: Iterable[str], files: Iterable[Entry]) -> list[str]:
    """One sentence each. None of them holds more of the address than its host: the rest is a secret."""
    found = [
        f"alerts_files watches {entry.get('path')}, which is not an absolute path: name the file from / on."
        for entry in files
        if not str(entry.get("path", "")).startswith("/")
    ]
    entries = list(outbound)
    if not webhook or not entries:
        return found
    parts = urlsplit(webhook)
    host, port = (parts.hostname or "").lower(), parts.port or 443
    mine = set(groups) | {"all"}
    if not any(mine & set(entry.get("groups") or ["all"]) and lets_out(entry, host, port) for entry in entries):
        kind = "networks" if _address(host) else "names"
        found.append(
            f"alerts_webhook leads to {host} on port {port}, and the firewall lets nothing out to there: add "
            f"{{name: alerts, purpose: the webhook that is told what is wrong, ports: [{port}], {kind}: [{host}]}} to "
            "firewall_outbound_extra, in group_vars/<environment>/firewall.yml."
        )
    return found


def lets_out(entry: Entry, host: str, port: int) -> bool:
    """Whether an entry is for a host by its name, or a name above it, or for the network of its address."""
    if "tcp" not in (entry.get("protos") or ["tcp"]) or entry.get("user") not in (None, "", ACCOUNT):
        return False
    if not any(_holds(str(ports), port) for ports in entry.get("ports") or []):
        return False
    networks = [str(network) for network in entry.get("networks") or []]
    if address := _address(host):
        return any(network == "any" or address in ipaddress.ip_network(network) for network in networks)
    names = [str(name).lower() for name in entry.get("names") or []]
    return "any" in networks or any(host == name or host.endswith(f".{name}") for name in names)


def _holds(ports: str, port: int) -> bool:
    first, _, last = ports.partition(":")
    return int(first) <= port <= int(last or first)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"alerts_problems": problems}
