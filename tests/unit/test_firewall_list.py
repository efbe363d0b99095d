"""One list: refused with a sentence when it cannot be, and the same in whatever is made of it."""

from __future__ import annotations

import pytest

from plugins.filter import firewall as subject

SSH = {"name": "ssh", "purpose": "operators", "ports": [22], "networks": ["192.0.2.0/24", "2001:db8::/32"]}
WEB = {"name": "web", "purpose": "everybody", "ports": [80, 443], "networks": ["any"], "groups": ["edge"]}
SHOP = {"name": "shop", "purpose": "pays", "ports": ["443"], "names": ["Pay.Example.com."]}
ALL = {"name": "all", "purpose": "more of it", "ports": [8443, "9000:9010"], "names": ["example.com"]}
DNS = {
    "name": "dns",
    "purpose": "asks",
    "protos": ["udp", "tcp"],
    "ports": [53],
    "networks": ["any"],
    "user": "dnsmasq",
}


def rules(*groups, inbound=(SSH, WEB), outbound=(SHOP, ALL, DNS)):
    return subject.rules(inbound, outbound, groups)


def test_a_host_has_what_is_for_its_groups():
    assert [rule["name"] for rule in rules("data")] == ["ssh", "shop", "all", "dns"]
    assert [rule["name"] for rule in rules("edge")][:2] == ["ssh", "web"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"networks": ["192.0.2.1/24"]}, "192.0.2.1/24 is not a network"),
        ({"networks": ["example.com"]}, "example.com is not a network"),
        ({"ports": []}, "ssh has 0 ports"),
        ({"ports": [0]}, "0 is neither a port nor a range of ports"),
        ({"ports": ["22; reboot"]}, "22; reboot is neither a port"),
        ({"ports": ["9:8"]}, "the range of ports 9:8 does not go up"),
        ({"ports": list(range(1, 17))}, "ssh has 16 ports"),
        ({"name": "SSH in"}, "SSH in is not a name"),
        ({"protos": ["icmp"]}, "there are tcp, udp"),
        ({"purpose": " "}, "ssh does not say what it is for"),
        ({"names": ["example.com"]}, "only networks can be told apart on the way in"),
        ({"groups": ["egde"]}, "ssh is for the group egde, which the inventory does not have"),
    ],
)
def test_an_entry_that_cannot_be_is_one_sentence(change, sentence):
    (found,) = subject.problems([SSH | change], [], ["edge"])
    assert found.startswith("firewall_inbound: ")
    assert sentence in found


@pytest.mark.parametrize("name", ["-a.example.com", "a..b", "192.0.2.1", "a b", "a/b", "x" * 64 + ".com"])
def test_a_name_that_no_host_has_is_refused(name):
    (found,) = subject.problems([], [SHOP | {"names": [name]}], [])
    assert "is not the name of a host" in found


def test_a_name_is_there_once_in_each_direction():
    assert subject.problems([SSH, SSH], [SHOP | {"name": "ssh"}], []) == ["firewall_inbound: ssh is there twice."]


@pytest.mark.parametrize(
    ("client", "port", "let_in"),
    [
        ("192.0.2.9", 22, True),
        ("::ffff:192.0.2.9", "22", True),
        ("2001:db8::1%eth0", 22, True),
        ("198.51.100.1", 22, False),
        ("192.0.2.9", 2222, False),
        ("198.51.100.1", 443, True),
    ],
)
def test_who_is_let_in(client, port, let_in):
    assert subject.admits(rules("edge"), client, port) is let_in


def test_ufw_reads_a_line_for_people_and_one_for_the_kernel():
    assert subject.ufw_user_rules(rules("edge"), 4)[:4] == [
        f"### tuple ### allow tcp 22 0.0.0.0/0 any 192.0.2.0/24 in comment={b'ssh: operators'.hex()}",
        "-A ufw-user-input -p tcp --dport 22 -s 192.0.2.0/24 -j ACCEPT",
        f"### tuple ### allow tcp 80,443 0.0.0.0/0 any 0.0.0.0/0 in comment={b'web: everybody'.hex()}",
        "-A ufw-user-input -p tcp -m multiport --dports 80,443 -j ACCEPT",
    ]
    single = rules(outbound=[{"name": "one", "purpose": "it", "ports": ["6:8"], "networks": ["2001:db8::1"]}])
    assert subject.ufw_user_rules(single, 6)[-2:] == [
        f"### tuple ### allow tcp 6:8 2001:db8::1 any ::/0 out comment={b'one: it'.hex()}",
        "-A ufw6-user-output -p tcp -m multiport --dports 6:8 -d 2001:db8::1 -j ACCEPT",
    ]


def test_what_is_one_accounts_is_nobody_elses():
    assert not any("53" in line for line in subject.ufw_user_rules(rules(), 4))
    assert subject.owner_rules(rules(), 4)[0] == (
        "-p tcp --dport 53 -m owner --uid-owner dnsmasq -m comment --comment dns -j ACCEPT"
    )


def test_a_name_takes_the_sets_of_the_names_above_it_along():
    """The resolver goes by the longest name that fits, and by no other."""
    assert subject.name_sets(rules()) == [
        ["example.com", "slipway-all-4,slipway-all-6"],
        ["pay.example.com", "slipway-shop-4,slipway-shop-6,slipway-all-4,slipway-all-6"],
    ]
    assert ["slipway-shop-6", "inet6"] in subject.sets(rules())
    assert subject.set_rules(rules(), 6)[1] == (
        "-p tcp -m multiport --dports 8443,9000:9010 -m set --match-set slipway-all-6 dst"
        " -m comment --comment all -j ACCEPT"
    )


def test_the_longest_name_of_a_set_fits_the_kernel():
    entry = SHOP | {"name": "a" * 20}
    assert all(len(name) + len("~") <= 31 for name, _ in subject.sets(rules(outbound=[entry])))


def test_hosts_with_the_same_rules_share_a_cloud_firewall():
    made = subject.terraform({"app2.example.com": rules("edge"), "app1.example.com": rules("edge"), "data1": rules()})
    firewalls = made["resource"]["digitalocean_firewall"]
    assert firewalls["slipway_app1_example_com"]["tags"] == ["slipway-app1-example-com", "slipway-app2-example-com"]
    assert {"protocol": "tcp", "port_range": "9000-9010", "destination_addresses": ["0.0.0.0/0", "::/0"]} in (
        firewalls["slipway_data1"]["outbound_rule"]
    )
