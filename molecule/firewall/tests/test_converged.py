"""As the role leaves a host: what is listed gets in and out, over IPv4 and IPv6, and nothing else does."""

from __future__ import annotations

import re
import socket
import time

import pytest

from tests.inside import FAMILIES, live_rules, reaches
from tests.outside import is_open, play

WEB = {22, 80, 443}
DATA = {22, 5432, 6379}


def test_from_outside_nmap_finds_what_is_listed_and_nothing_else(lab, places):
    """All TCP ports of both hosts, both families; 8080 and 9999 have a listener as well."""
    done = play(lab, "playbooks/verify_ports.yml")
    assert done.returncode == 0, done.stdout[-3000:]
    for host, ports in (("app1", WEB), ("data1", DATA)):
        for family in FAMILIES:
            seen = re.search(
                rf"{host} \({re.escape(places.of(host, family))}\), seen from \S+: open ([0-9, ]+)", done.stdout
            )
            assert seen, done.stdout[-3000:]
            assert set(map(int, seen[1].split(", "))) == ports


@pytest.mark.parametrize("family", FAMILIES)
def test_from_inside_what_is_not_listed_is_refused_at_once(app1, places, family):
    assert reaches(app1, places.of("data1", family), 5432)
    here = places.near(family, 1)
    version = socket.AF_INET if family == "ipv4" else socket.AF_INET6
    with socket.create_server((here, 0), family=version) as listener:
        port = listener.getsockname()[1]
        assert is_open(here, port)
        begun = time.monotonic()
        assert not reaches(app1, here, port)
        assert time.monotonic() - begun < 3, "it was dropped, and a program would hang"


def test_packages_can_be_had_by_name_and_their_mirror_is_open_for_no_more(app1):
    assert app1.run("apt-get update -qq").rc == 0
    mirror = app1.check_output("getent ahostsv4 pypi.org | head -n1").split()[0]
    assert mirror in app1.check_output("ipset list slipway-pypi-4")
    assert reaches(app1, mirror, 443)
    assert not reaches(app1, mirror, 8443)


def test_only_the_hosts_own_resolver_asks_other_resolvers(app1, lab):
    ask = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2);"
        "s.connect(('192.0.2.53', 53)); s.send(b'x' * 17); s.recv(99)"
    )
    done = app1.run(f'python3 -c "{ask}"')
    assert "Connection refused" in done.stderr or "Operation not permitted" in done.stderr


def test_ufw_says_so_itself(app1):
    said = app1.check_output("ufw status verbose")
    # "disabled" where the kernel forwards nothing at all, as hardening has it.
    assert re.search(
        r"^Default: deny \(incoming\), reject \(outgoing\), (deny|disabled) \(routed\)", said, re.MULTILINE
    )
    assert re.search(r"^80,443/tcp +ALLOW IN +Anywhere", said, re.MULTILINE)
    assert re.search(r"^5432,6379|5432,6379/tcp +ALLOW OUT", said, re.MULTILINE)


def test_whoever_makes_the_sets_at_the_same_moment_all_succeed(app1):
    """At boot UFW does, whose rules do not load otherwise, and the resolver; here after one was killed half-way."""
    app1.check_output("cp -p /etc/slipway/firewall/sets /root/sets && ipset create slipway-pypi-4~ hash:ip")
    try:
        for seconds in (70001, 70002, 70003):
            app1.check_output(f"sed -i -E '/^slipway/s/[0-9]+$/{seconds}/' /etc/slipway/firewall/sets")
            create = "/usr/local/libexec/slipway/firewall-sets create"
            app1.check_output(
                f'set -e; for i in 1 2 3 4; do {create} & all="$all $!"; done; for i in $all; do wait $i; done'
            )
            assert f"timeout {seconds} " in app1.check_output("ipset list -t slipway-pypi-4")
    finally:
        app1.check_output("mv /root/sets /etc/slipway/firewall/sets && /usr/local/libexec/slipway/firewall-sets create")
    assert "~" not in app1.check_output("ipset list -n")


def test_sets_and_rules_are_there_again_after_a_reboot(lab, app1, restart):
    """An address that only an answer of long ago put there, and that no resolver will give now."""
    before = live_rules(app1)
    app1.check_output("ipset -exist add slipway-pypi-4 192.0.2.77; ipset -exist add slipway-pypi-6 2001:db8::77")
    restart("app1")
    assert live_rules(app1) == before
    assert "192.0.2.77 timeout 60" in app1.check_output("ipset list slipway-pypi-4")
    assert "2001:db8::77 timeout 60" in app1.check_output("ipset list slipway-pypi-6")
    assert "127.0.0.1" in app1.check_output("grep ^nameserver /etc/resolv.conf")
    assert app1.run("apt-get update -qq").rc == 0
    assert is_open(lab["hosts"]["app1"]["ipv4"], 22)


def test_a_lease_can_be_renewed_and_root_may_ask_the_metadata(app1):
    rules = live_rules(app1)
    assert "-A ufw-before-output -p udp -m udp --sport 68 --dport 67 -j ACCEPT" in rules
    asked = [rule for rule in rules.splitlines() if "169.254.169.254" in rule]
    assert len(asked) == 1
    assert "--uid-owner 0 " in asked[0]


def test_an_app_that_is_made_to_fetch_addresses_gets_no_metadata(app1):
    """They often hold the keys of the provider's account."""
    ask = 'import socket; socket.create_connection(("169.254.169.254", 80), 3)'
    done = app1.run(f"runuser -u nobody -- python3 -c '{ask}'")
    assert "Connection refused" in done.stderr
