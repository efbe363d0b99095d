"""What hosts on a machine reach the world by is taken from the machine."""

from __future__ import annotations

from lab import outbound as subject
from plugins.filter import firewall


def test_the_machines_own_loopback_is_no_resolver_for_others():
    texts = [
        "# comment\nnameserver 127.0.0.53\nnameserver 192.0.2.53\n",
        "nameserver fe80::1%eth0\nnameserver 192.0.2.53",
    ]
    assert subject.resolvers(texts) == ["192.0.2.53", "fe80::1"]


def test_proxies_and_mirrors_become_entries_that_the_list_takes():
    proxies = subject.proxies('Acquire::http::Proxy "http://proxy.example:3142";\nAcquire::http::Proxy::x "DIRECT";\n')
    assert proxies == ["http://proxy.example:3142"]
    entries = subject.entries([], [*proxies, "https://mirror.example/debian", "http://192.0.2.80/debian-security"])
    assert firewall.problems([], entries, []) == []
    assert {tuple(entry["ports"]): (entry.get("names"), entry.get("networks")) for entry in entries[1:]} == {
        ("80",): (None, ["192.0.2.80"]),
        ("443",): (["mirror.example"], None),
        ("3142",): (["proxy.example"], None),
    }
