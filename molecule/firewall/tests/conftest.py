"""What the firewall's tests stand on: listeners, a zone whose answers change, a list that tells the hosts apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from lab import tools
from tests.inside import CONVERGE, FAMILIES, Places, Zone, listen
from tests.outside import ROOT, play


@pytest.fixture(scope="session", autouse=True)
def scanner():
    """What verify_ports.yml scans with, on this machine."""
    tools.ensure("verify_ports.yml", "nmap", "nmap", print)


@pytest.fixture(scope="session", autouse=True)
def listeners(app1, data1):
    for host in (app1, data1):
        listen(host)
    yield
    for host in (app1, data1):
        host.check_output("systemctl stop test-listeners")


@pytest.fixture
def restart(lab, request):
    """What a reboot is to a server."""

    def do(name):
        program = [sys.executable, str(ROOT / "lab/lab.py"), "restart", name]
        subprocess.run(program, env={**os.environ, "SLIPWAY_LAB": lab["name"]}, check=True, timeout=180)
        listen(request.getfixturevalue(name))

    return do


@pytest.fixture(scope="session")
def places(lab):
    return Places(lab)


@pytest.fixture(scope="session")
def narrow(places):
    """The list as these tests need it: ssh from the controller alone, the data services from the hosts alone, a name
    that moves, and data1 as a bastion."""
    everybody = {"networks": ["any"], "groups": ["data"]}
    extra = [
        {"name": "moving", "purpose": "a name that moves", "ports": [8080], "names": ["moving.test"]},
        {
            "name": "zone", "purpose": "its zone", "protos": ["udp"], "ports": [53], "user": "dnsmasq",
            "networks": [places.of("data1", "ipv4")],
        },
        {
            "name": "bastion", "purpose": "operators come by here", "ports": [22], "groups": ["data"],
            "networks": [places.of("app1", family) for family in FAMILIES],
        },
    ]  # fmt: skip
    return {
        "app_operator_networks": [places.near(family, 1) for family in FAMILIES],
        "firewall_private_networks": [places.of(host, family) for host in ("app1", "data1") for family in FAMILIES],
        "firewall_inbound_extra": [
            {"name": "zone", "purpose": "a zone", "protos": ["udp"], "ports": [53], **everybody},
            {"name": "target", "purpose": "where a name leads", "ports": [8080], **everybody},
        ],
        "firewall_outbound_extra": "{{ lab_outbound + " + json.dumps(extra) + " }}",
        "firewall_resolver_domains": {"moving.test": [places.of("data1", "ipv4")]},
    }


@pytest.fixture(scope="session")
def narrowed(lab, narrow, data1, places):
    """The narrow list in force; and at the end, whatever was done in between, the lab's own again."""
    done = play(lab, CONVERGE, **narrow)
    assert done.returncode == 0, done.stdout[-3000:]
    yield narrow
    done = play(lab, CONVERGE)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture(scope="session")
def zone(data1, places, narrowed):
    made = Zone(data1, places)
    made.lead_to(113)
    made.start()
    yield made
    made.remove()
