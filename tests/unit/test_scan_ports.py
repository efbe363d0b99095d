"""What nmap saw, held against the list as it is for whoever scans."""

from __future__ import annotations

from plugins.action import scan_ports as subject

RULES = [
    {"direction": "in", "protos": ["tcp"], "ports": ["22"], "networks": ["192.0.2.0/24"]},
    {"direction": "in", "protos": ["tcp"], "ports": ["80", "8000:8002"], "networks": ["0.0.0.0/0", "::/0"]},
    {"direction": "in", "protos": ["udp"], "ports": ["53"], "networks": ["0.0.0.0/0"]},
    {"direction": "out", "protos": ["tcp"], "ports": ["25"], "networks": ["0.0.0.0/0"]},
]
XML = """<?xml version="1.0"?>
<nmaprun><host><ports><extraports state="filtered" count="65532"></extraports>
<port protocol="tcp" portid="22"><state state="open" reason="syn-ack"/></port>
<port protocol="tcp" portid="80"><state state="closed" reason="reset"/></port>
<port protocol="tcp" portid="5432"><state state="open" reason="syn-ack"/></port>
</ports></host></nmaprun>
"""


def test_the_list_depends_on_who_looks():
    assert subject.expected(RULES, "192.0.2.7") == {22, 80, 8000, 8001, 8002}
    assert subject.expected(RULES, "198.51.100.7") == {80, 8000, 8001, 8002}
    assert subject.expected(RULES, "2001:db8::7") == {80, 8000, 8001, 8002}


def test_open_shut_and_silent_are_told_apart():
    states, rest = subject.parse(XML), subject.rest_of(XML)
    assert rest == "filtered"
    assert subject.compare({22, 80, 443}, states, rest) == ([5432], [443], [80])
    assert subject.compare({22, 80, 5432}, states, rest) == ([], [], [80])


def test_a_host_that_gives_no_sign_lets_nobody_in():
    xml = '<nmaprun><runstats><hosts up="0" down="1" total="1"/></runstats></nmaprun>'
    assert subject.compare({22}, subject.parse(xml), subject.rest_of(xml)) == ([], [22], [])


def test_ipv6_is_asked_for():
    assert "-6" in subject.command("2001:db8::1", "-")
    assert "-6" not in subject.command("192.0.2.1", "-")
    assert subject.command("192.0.2.1", "22,80")[-1] == "192.0.2.1"
