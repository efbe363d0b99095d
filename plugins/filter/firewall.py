"""One list of what may come in and go out, and what UFW, the resolver and a cloud's firewall make of it.

Every rendering starts from `rules`, so that they cannot say different things.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

Rule = dict[str, Any]

ANY = {4: "0.0.0.0/0", 6: "::/0"}
PROTOCOLS = ("tcp", "udp")
# It becomes the name of a set, slipway-<name>-4, of which the kernel takes 31 characters.
RULE_NAME = re.compile(r"[a-z][a-z0-9-]{0,19}")
LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
HOST_NAME = re.compile(rf"{LABEL}(\.{LABEL})*")
# What iptables' multiport takes in one rule; a range counts twice.
PORTS_AT_MOST = 15


class Problem(ValueError):
    """An entry that cannot be: one sentence."""


def network(value: Any) -> list[str]:
    """A network or an address in canonical form; `any` is every address of both families."""
    if value == "any":
        return [ANY[4], ANY[6]]
    try:
        return [str(ipaddress.ip_network(str(value)))]
    except ValueError as error:
        raise Problem(f"{value} is not a network: {error}") from None


def family(cidr: str) -> int:
    return ipaddress.ip_network(cidr).version


def port(value: Any) -> str:
    """A port, or a range as 6000:6010."""
    text = str(value)
    first, _, last = text.partition(":")
    ends = [first, last] if ":" in text else [first]
    if not all(re.fullmatch(r"[1-9][0-9]{0,4}", end) and int(end) <= 65535 for end in ends):
        raise Problem(f"{text} is neither a port nor a range of ports such as 6000:6010")
    if len(ends) == 2 and int(first) >= int(last):
        raise Problem(f"the range of ports {text} does not go up")
    return text


def rule(direction: str, item: Mapping[str, Any]) -> Rule:
    """One entry of the list, checked and in canonical form."""
    name = str(item.get("name"))
    if not RULE_NAME.fullmatch(name):
        raise Problem(f"{name} is not a name of up to 20 lower-case letters, digits and hyphens")
    ports = [port(value) for value in item.get("ports") or []]
    protocols = list(item.get("protos") or ["tcp"])
    networks: list[str] = []
    for value in item.get("networks") or []:
        networks += network(value)
    names = [str(value).rstrip(".").lower() for value in item.get("names") or []]
    if not ports or sum(2 if ":" in value else 1 for value in ports) > PORTS_AT_MOST:
        raise Problem(f"{name} has {len(ports)} ports: give it 1 to {PORTS_AT_MOST} (a range counts twice)")
    if not set(protocols) <= set(PROTOCOLS):
        raise Problem(f"{name} has protos {protocols}: there are {', '.join(PROTOCOLS)}")
    if not str(item.get("purpose") or "").strip():
        raise Problem(f"{name} does not say what it is for: give it a purpose")
    for value in names:
        if not HOST_NAME.fullmatch(value) or re.fullmatch(r"[0-9.]+", value):
            raise Problem(f"{value}, among the names of {name}, is not the name of a host")
    if direction == "in" and (names or item.get("user")):
        raise Problem(f"{name} lets something in by name or user: only networks can be told apart on the way in")
    if names and item.get("user"):
        raise Problem(f"{name} has names and a user: only networks go with a user")
    return {
        "direction": direction,
        "name": name,
        "purpose": " ".join(str(item["purpose"]).split()),
        "protos": sorted(set(protocols)),
        "ports": ports,
        "networks": sorted(set(networks), key=lambda cidr: (family(cidr), cidr)),
        "names": sorted(set(names)),
        "user": str(item.get("user") or ""),
    }


def rules(inbound: Iterable[Any], outbound: Iterable[Any], groups: Iterable[str]) -> list[Rule]:
    """What the list says for a host of these groups."""
    mine = {"all", *groups}
    return [
        rule(direction, item)
        for direction, items in (("in", inbound), ("out", outbound))
        for item in items
        if mine & set(item.get("groups") or ["all"])
    ]


def problems(inbound: list[Any], outbound: list[Any], groups: Iterable[str]) -> list[str]:
    """What is wrong with the list, one sentence for each; groups are all that the inventory has."""
    found = []
    known = {"all", *groups}
    for direction, variable, items in (("in", "firewall_inbound", inbound), ("out", "firewall_outbound", outbound)):
        seen: set[str] = set()
        for item in items:
            try:
                name = rule(direction, item)["name"]
            except Problem as problem:
                found.append(f"{variable}: {problem}.")
                continue
            if name in seen:
                found.append(f"{variable}: {name} is there twice.")
            seen.add(name)
            for group in sorted(set(item.get("groups") or []) - known):
                found.append(f"{variable}: {name} is for the group {group}, which the inventory does not have.")
    return found


def admits(listed: Iterable[Rule], client: str, to_port: int | str) -> bool:
    """Whether a TCP connection from an address to a port of the host is let in."""
    address = ipaddress.ip_address(client.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(
        entry["direction"] == "in"
        and "tcp" in entry["protos"]
        and any(_within(int(to_port), value) for value in entry["ports"])
        and any(address in ipaddress.ip_network(cidr) for cidr in entry["networks"])
        for entry in listed
    )


def ssh_networks(listed: Iterable[Rule]) -> list[str]:
    """Where the list lets ssh come from, for a message."""
    ssh = [entry for entry in listed if entry["direction"] == "in" and "22" in entry["ports"]]
    return [cidr for entry in ssh for cidr in entry["networks"]]


def _within(number: int, ports: str) -> bool:
    first, _, last = ports.partition(":")
    return int(first) <= number <= int(last or first)


# What UFW reads: user.rules holds all that can be said by address, in UFW's own words, so that `ufw status` is true;
# what needs a set or an owner stands in after.rules.


def ufw_user_rules(listed: Iterable[Rule], version: int) -> list[str]:
    """The rules by address for one family: a line for `ufw status` and one for the kernel, in pairs."""
    any_network = ANY[version]
    prefix = "ufw" if version == 4 else "ufw6"
    lines = []
    for entry in listed:
        if entry["user"]:
            continue
        for protocol in entry["protos"]:
            for cidr in (cidr for cidr in entry["networks"] if family(cidr) == version):
                place = _ufw_place(cidr)
                ports = ",".join(entry["ports"])
                ends = (any_network, place) if entry["direction"] == "in" else (place, any_network)
                comment = f"{entry['name']}: {entry['purpose']}".encode().hex()
                lines.append(
                    f"### tuple ### allow {protocol} {ports} {ends[0]} any {ends[1]} {entry['direction']}"
                    f" comment={comment}"
                )
                chain = "input" if entry["direction"] == "in" else "output"
                side = "" if cidr == any_network else f" {'-s' if entry['direction'] == 'in' else '-d'} {place}"
                lines.append(f"-A {prefix}-user-{chain} -p {protocol} {_ports(entry['ports'])}{side} -j ACCEPT")
    return lines


def _ufw_place(cidr: str) -> str:
    """UFW writes a single address without its mask."""
    found = ipaddress.ip_network(cidr)
    return str(found.network_address) if found.num_addresses == 1 else cidr


def _ports(ports: list[str]) -> str:
    if len(ports) == 1 and ":" not in ports[0]:
        return f"--dport {ports[0]}"
    return f"-m multiport --dports {','.join(ports)}"


def owner_rules(listed: Iterable[Rule], version: int) -> list[str]:
    """Outbound rules that are one account's, for one family: matches and target, without the chain."""
    return [
        f"-p {protocol} {_ports(entry['ports'])}{'' if cidr == ANY[version] else f' -d {cidr}'}"
        f" -m owner --uid-owner {entry['user']} -m comment --comment {entry['name']} -j ACCEPT"
        for entry in listed
        if entry["user"] and entry["direction"] == "out"
        for protocol in entry["protos"]
        for cidr in entry["networks"]
        if family(cidr) == version
    ]


def set_rules(listed: Iterable[Rule], version: int) -> list[str]:
    """Outbound rules by name, for one family: matches and target, without the chain."""
    return [
        f"-p {protocol} {_ports(entry['ports'])} -m set --match-set {set_name(entry, version)} dst"
        f" -m comment --comment {entry['name']} -j ACCEPT"
        for entry in listed
        if entry["names"]
        for protocol in entry["protos"]
    ]


def set_name(entry: Rule, version: int) -> str:
    return f"slipway-{entry['name']}-{version}"


def sets(listed: Iterable[Rule]) -> list[list[str]]:
    """[name of a set, its family as ipset calls it] for each that the rules need."""
    return [
        [set_name(entry, version), "inet" if version == 4 else "inet6"]
        for entry in listed
        if entry["names"]
        for version in (4, 6)
    ]


def name_sets(listed: Iterable[Rule]) -> list[list[str]]:
    """[name, sets that its addresses go into], for the resolver. A name stands for those below it as well.

    The resolver goes by the longest name that fits alone: so each takes the sets of the names above it along.
    """
    named = [entry for entry in listed if entry["names"]]
    every = sorted({name for entry in named for name in entry["names"]})
    return [
        [
            name,
            ",".join(
                set_name(entry, version)
                for entry in named
                if any(name == other or name.endswith(f".{other}") for other in entry["names"])
                for version in (4, 6)
            ),
        ]
        for name in every
    ]


# What a cloud's firewall can be made from. It knows addresses only: what goes by name goes to anywhere on these ports.


def document(hosts: Mapping[str, list[Rule]]) -> dict[str, Any]:
    """The list for each host, for whatever shall read it."""
    kept = ("name", "purpose", "protos", "ports", "networks", "names")
    return {
        "version": 1,
        "policy": {"in": "drop", "out": "reject"},
        "hosts": {
            host: {
                direction: [
                    {key: entry[key] for key in kept if entry[key]}
                    for entry in listed
                    if entry["direction"] == direction
                ]
                for direction in ("in", "out")
            }
            for host, listed in sorted(hosts.items())
        },
    }


def terraform(hosts: Mapping[str, list[Rule]]) -> dict[str, Any]:
    """The same for DigitalOcean, in Terraform's JSON syntax. Hosts with the same rules share a firewall, by tags."""
    shared: dict[str, tuple[list[str], list[Rule]]] = {}
    for host, listed in sorted(hosts.items()):
        shared.setdefault(repr(listed), ([], listed))[0].append(host)
    resources = {}
    for members, listed in shared.values():
        name = "slipway-" + _slug(members[0])
        resources[name.replace("-", "_")] = {
            "name": name,
            "tags": [f"slipway-{_slug(host)}" for host in members],
            "inbound_rule": _cloud_rules(listed, "in", "source_addresses"),
            "outbound_rule": _cloud_rules(listed, "out", "destination_addresses"),
        }
    return {
        "terraform": {"required_providers": {"digitalocean": {"source": "digitalocean/digitalocean"}}},
        "resource": {"digitalocean_firewall": resources},
    }


def _slug(host: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", host.lower()).strip("-")


def _cloud_rules(listed: Iterable[Rule], direction: str, side: str) -> list[dict[str, Any]]:
    # Path MTU discovery and ping, which UFW's own first rules let through.
    found: list[dict[str, Any]] = [{"protocol": "icmp", side: [ANY[4], ANY[6]]}]
    for entry in listed:
        if entry["direction"] != direction:
            continue
        places = [ANY[4], ANY[6]] if entry["names"] else [cidr for cidr in entry["networks"] if _routed(cidr)]
        if not places:
            continue
        for protocol in entry["protos"]:
            for value in entry["ports"]:
                found.append({"protocol": protocol, "port_range": value.replace(":", "-"), side: places})
    return found


def _routed(cidr: str) -> bool:
    """Whether packets to it pass a cloud's firewall at all: the host's own loopback and its link do not."""
    found = ipaddress.ip_network(cidr)
    return not found.is_loopback and not found.is_link_local


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "firewall_rules": rules,
            "firewall_problems": problems,
            "firewall_admits": admits,
            "firewall_ssh_networks": ssh_networks,
            "firewall_user_rules": ufw_user_rules,
            "firewall_owner_rules": owner_rules,
            "firewall_set_rules": set_rules,
            "firewall_sets": sets,
            "firewall_name_sets": name_sets,
            "firewall_document": document,
            "firewall_terraform": terraform,
        }
