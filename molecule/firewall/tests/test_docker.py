"""What a container publishes is not open to the world, and a container goes out where its host may.

No engine runs in the lab's hosts: a network namespace stands for a container, with the very rules that Docker makes."""

from __future__ import annotations

import shlex

import pytest

from tests.inside import CONNECT
from tests.outside import is_open

PORT = 7777
AS_DOCKER = (
    "ip netns add box; ip link add docker0 type veth peer name inner; ip link set inner netns box",
    "ip address add 172.17.0.1/16 dev docker0; ip link set docker0 up",
    "ip -n box address add 172.17.0.2/16 dev inner; ip -n box link set inner up; ip -n box link set lo up",
    "ip -n box route add default via 172.17.0.1; sysctl -qw net.ipv4.ip_forward=1",
    "iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
    f"iptables -t nat -A PREROUTING ! -i docker0 -p tcp --dport {PORT} -j DNAT --to-destination 172.17.0.2:80",
    "iptables -N DOCKER; iptables -A DOCKER ! -i docker0 -o docker0 -p tcp -d 172.17.0.2 --dport 80 -j ACCEPT",
    "iptables -I FORWARD -i docker0 ! -o docker0 -j ACCEPT; iptables -I FORWARD -o docker0 -j DOCKER",
    "iptables -I FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "iptables -I FORWARD -j DOCKER-USER",
    "systemd-run --quiet --unit=test-box ip netns exec box python3 -m http.server 80",
)
CLEAN_UP = (
    # The kernel takes ICMP redirects again once it stops forwarding (ip-sysctl, accept_redirects): put back what was.
    "systemctl stop test-box; ip netns delete box; sysctl -qw net.ipv4.ip_forward=0",
    "sysctl -qw net.ipv4.conf.all.accept_redirects=0",
    "iptables -D FORWARD -j DOCKER-USER; iptables -D FORWARD -i docker0 ! -o docker0 -j ACCEPT",
    "iptables -D FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    "iptables -D FORWARD -o docker0 -j DOCKER; iptables -F DOCKER; iptables -X DOCKER",
    "iptables -t nat -D POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
    f"iptables -t nat -D PREROUTING ! -i docker0 -p tcp --dport {PORT} -j DNAT --to-destination 172.17.0.2:80",
)


@pytest.fixture(scope="module")
def box(app1):
    for command in AS_DOCKER:
        app1.check_output(command)
    app1.check_output("while ! ip netns exec box ss -Hltn | grep -q :80; do sleep 0.1; done")
    yield "ip netns exec box"
    for command in CLEAN_UP:
        app1.check_output(command)


def test_a_published_port_is_open_to_nobody_outside(lab, app1, box):
    address = lab["hosts"]["app1"]["ipv4"]
    assert not is_open(address, PORT)
    # It is this very chain that bars it: without its last word the port is open.
    app1.check_output("iptables -I DOCKER-USER -j RETURN")
    try:
        assert is_open(address, PORT)
    finally:
        app1.check_output("iptables -D DOCKER-USER -j RETURN")
    assert not is_open(address, PORT)


def test_a_container_goes_out_where_its_host_may(app1, box, places):
    def gets(address, port):
        return app1.run(f"{box} python3 -c {shlex.quote(CONNECT)} {address} {port}").rc == 0

    assert gets(places.of("data1", "ipv4"), 5432)
    mirror = app1.check_output("getent ahostsv4 pypi.org | head -n1").split()[0]
    assert gets(mirror, 443)
    assert not gets(mirror, 8443)
    app1.check_output("ipset del slipway-pypi-4 " + mirror)
    try:
        in_others = app1.run(f"ipset list | grep -c '^{mirror} '").stdout.strip() != "0"
        assert gets(mirror, 443) is in_others
    finally:
        app1.check_output(f"ipset add slipway-pypi-4 {mirror}")
