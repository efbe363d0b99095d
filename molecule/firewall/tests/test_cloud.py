"""UFW as it runs, the neutral JSON and Terraform's rendering say the same."""

from __future__ import annotations

import ipaddress
import json
import re

import pytest

from tests.outside import play

ANYWHERE = frozenset({"0.0.0.0/0", "::/0"})


@pytest.fixture(scope="module")
def rendered(lab, tmp_path_factory):
    place = tmp_path_factory.mktemp("cloud")
    done = play(lab, "playbooks/cloud_firewall.yml", firewall_render_to=str(place))
    assert done.returncode == 0, done.stdout[-3000:]
    return {name: json.loads((place / name).read_text()) for name in ("firewall.json", "firewall.tf.json")}


def canonical(cidr):
    return str(ipaddress.ip_network(cidr))


def by_the_kernel(host):
    """{(direction, protocol, ports, network or set)} of every rule of the list that runs on a host, both families."""
    found = set()
    for program, everybody in (("iptables-save", "0.0.0.0/0"), ("ip6tables-save", "::/0")):
        for line in host.check_output(f"{program} -t filter").splitlines():
            rule = re.match(r"-A ufw6?-(user-input|user-output|slipway-names|after-output) .*-j ACCEPT", line)
            ports = re.search(r"--dports? (\S+)", line)
            if not rule or not ports:
                continue
            direction = "in" if rule[1] == "user-input" else "out"
            place = re.search(r" -[sd] (\S+)", line)
            named = re.search(r"--match-set slipway-(\S+)-[46] dst", line)
            where = f"name {named[1]}" if named else canonical(place[1]) if place else everybody
            for port in ports[1].split(","):
                found.add((direction, re.search(r"-p (\w+)", line)[1], port, where))
    return found


def by_the_document(host):
    found = set()
    for direction in ("in", "out"):
        for entry in host[direction]:
            places = [*entry.get("networks", []), *([f"name {entry['name']}"] if "names" in entry else [])]
            for protocol in entry["protos"]:
                found |= {(direction, protocol, port, place) for port in entry["ports"] for place in places}
    return found


def by_terraform(firewall):
    found = set()
    for direction, key, side in (
        ("in", "inbound_rule", "source_addresses"),
        ("out", "outbound_rule", "destination_addresses"),
    ):
        for rule in firewall[key]:
            if rule["protocol"] != "icmp":
                ports = rule["port_range"].replace("-", ":")
                found |= {(direction, rule["protocol"], ports, place) for place in rule[side]}
    return found


def without_names(rules):
    """What a cloud's firewall can hold of it: a name is anywhere, and what stays on the host or its link is nowhere."""
    found = set()
    for direction, protocol, port, place in rules:
        if place.startswith("name "):
            found |= {(direction, protocol, port, anywhere) for anywhere in ANYWHERE}
        elif not ipaddress.ip_network(place).is_loopback and not ipaddress.ip_network(place).is_link_local:
            found.add((direction, protocol, port, place))
    return found


@pytest.mark.parametrize("name", ["app1", "data1"])
def test_all_three_say_the_same(rendered, request, name):
    kernel = by_the_kernel(request.getfixturevalue(name))
    document = by_the_document(rendered["firewall.json"]["hosts"][name])
    assert {rule[0] for rule in kernel} == {"in", "out"}
    assert kernel == document
    firewalls = rendered["firewall.tf.json"]["resource"]["digitalocean_firewall"].values()
    (mine,) = [firewall for firewall in firewalls if f"slipway-{name}" in firewall["tags"]]
    assert by_terraform(mine) == without_names(document)


def test_the_document_says_what_each_entry_is_for(rendered):
    entries = [entry for host in rendered["firewall.json"]["hosts"].values() for entry in host["in"] + host["out"]]
    assert all(entry["purpose"] for entry in entries)
    pypi = next(entry for entry in entries if entry["name"] == "pypi")
    assert pypi["names"] == ["files.pythonhosted.org", "pypi.org"]
