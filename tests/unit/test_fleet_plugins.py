"""What makes several hosts one fleet: the groups, the certificates between them, the door."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from plugins.action import backend_trust, check_hosts

ROOT = Path(__file__).resolve().parents[2]
WHOLE = {"edge": ["edge1"], "app": ["app1", "app2"], "worker": ["worker1"], "scheduler": ["worker1"]}
ADDRESSES = {"edge1": ["192.0.2.10", "2001:db8::10"], "app1": ["192.0.2.11"]}


def load(path: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


certificate = load("plugins/modules/backend_certificate.py")
door = load("roles/nginx/files/door.py")


# The groups


@pytest.mark.parametrize(
    "groups",
    [
        WHOLE,
        {"edge": ["a"], "app": ["a"], "worker": ["a"], "scheduler": ["a"]},
        {"edge": ["a"], "app": ["a"]},
        {"data": ["d"]},
        {"edge": [], "app": []},
    ],
)
def test_groups_that_make_a_whole(groups: dict[str, list[str]]) -> None:
    assert list(check_hosts.group_problems(groups)) == []


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({**WHOLE, "scheduler": ["app1", "worker1"]}, "scheduler has 2 hosts, app1, worker1"),
        ({**WHOLE, "scheduler": []}, "the group scheduler has none"),
        ({**WHOLE, "worker": []}, "worker1 schedules tasks, and the group worker has no host"),
        ({**WHOLE, "edge": []}, "The group app has hosts and the group edge has none"),
        ({**WHOLE, "app": []}, "The group edge has hosts and the group app has none"),
    ],
)
def test_groups_that_do_not(groups: dict[str, list[str]], words: str) -> None:
    [problem] = check_hosts.group_problems(groups)
    assert words in problem


@pytest.mark.parametrize(
    ("addresses", "transport", "private", "words"),
    [
        ({"edge1": []}, "tls", None, "app_addresses of edge1 is empty"),
        ({"edge1": ["edge1.example.com"]}, "tls", None, "'edge1.example.com', which is no address"),
        (ADDRESSES, "private", ["192.0.2.0/24"], "2001:db8::10 of edge1 is in none of firewall_private_networks"),
        (ADDRESSES, "private", [], "192.0.2.10 of edge1 is in none of firewall_private_networks (empty)"),
    ],
)
def test_hosts_that_cannot_reach_each_other_as_they_shall(
    addresses: dict[str, list[str]], transport: str, private: list[str] | None, words: str
) -> None:
    assert words in next(iter(check_hosts.address_problems(addresses, transport, private)))


def test_hosts_that_can() -> None:
    networks = ["192.0.2.0/24", "2001:db8::/64"]
    assert check_hosts.problems(WHOLE, ADDRESSES, "private", 8443, networks) == []
    assert check_hosts.problems(WHOLE, ADDRESSES, "tls", 8443, []) == []


@pytest.mark.parametrize(("transport", "port", "word"), [("plain", 8443, "'plain'"), ("tls", 443, "is 443")])
def test_a_way_between_them_that_is_none(transport: str, port: int, word: str) -> None:
    [problem] = check_hosts.problems(WHOLE, {}, transport, port, None)
    assert word in problem


# What an edge trusts

ONE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
TWO = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n"


def test_what_is_written_is_read_again() -> None:
    known = {"app1.example.com": [ONE], "app2.example.com": [ONE, TWO]}
    assert backend_trust.parse(backend_trust.write(known)) == known


def test_what_was_told_counts_and_else_what_was_known() -> None:
    before = backend_trust.write({"app1": [ONE], "app2": [ONE], "gone": [ONE]})
    known, missing = backend_trust.settle(["app1", "app2", "app3"], {"app1": [TWO, ONE], "app2": []}, before)
    assert known == {"app1": [TWO, ONE], "app2": [ONE]}
    assert missing == ["app3"]


# The certificate of a host

DATES = "notBefore={} GMT\nnotAfter={} GMT\nX509v3 Subject Alternative Name: \n    DNS:a.internal, DNS:app1\n"


@pytest.mark.parametrize(
    ("end", "names", "due"),
    [
        ("Jan  1 00:00:00 2036", ["a.internal", "app1"], False),
        ("Jan  1 00:00:00 2036", ["a.internal"], True),
        ("Jan  1 00:00:00 2029", ["a.internal", "app1"], True),
    ],
)
def test_a_new_certificate_is_due(end: str, names: list[str], due: bool) -> None:
    text = DATES.format("Jan  1 00:00:00 2026", end)
    assert certificate.is_due(text, names, certificate.moment("Jan 10 00:00:00 2028 GMT")) is due


class Module:
    """As much of AnsibleModule as the pairs use; OpenSSL is the real one."""

    def __init__(self, directory: Path, days: int = 3650, names: tuple[str, ...] = ("a.internal",)) -> None:
        self.params = {"directory": str(directory), "days": days, "names": list(names)}

    def run_command(self, words: list[str]) -> tuple[int, str, str]:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def fail_json(self, msg: str) -> None:
        raise AssertionError(msg)


def settle(directory: Path, show_next: bool = False, dry: bool = False, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = certificate.settle(certificate.Pairs(Module(directory, **more)), show_next, dry)
    return found


def test_the_key_stays_and_the_certificate_is_told(tmp_path: Path) -> None:
    directory = tmp_path / "backend"
    assert settle(directory, dry=True) == {"changed": True, "certificates": [], "next": False}
    first = settle(directory)
    assert (first["changed"], first["next"], len(first["certificates"])) == (True, False, 1)
    assert (directory / "live/key.pem").stat().st_mode & 0o777 == 0o600
    assert "PRIVATE" not in str(first)
    again = settle(directory)
    assert again == {**first, "changed": False}


def test_the_next_one_is_shown_only_when_it_is_told_so(tmp_path: Path) -> None:
    first = settle(tmp_path)["certificates"]
    both = settle(tmp_path, names=("b.internal",))
    assert both["changed"]
    assert both["next"]
    assert both["certificates"][0] == first[0]
    assert (tmp_path / "live/certificate.pem").read_text() == first[0]
    assert settle(tmp_path, names=("b.internal",)) == {**both, "changed": False}
    shown = settle(tmp_path, show_next=True, names=("b.internal",))
    assert shown == {"changed": True, "certificates": both["certificates"][1:], "next": False}
    assert [path.name for path in tmp_path.iterdir() if path.is_dir() and not path.is_symlink()] == ["2"]


def test_openssl_trusts_it_by_its_name_and_not_by_another(tmp_path: Path) -> None:
    settle(tmp_path)
    pem = str(tmp_path / "live/certificate.pem")

    def verify(name: str) -> int:
        words = ["openssl", "verify", "-CAfile", pem, "-purpose", "sslserver", "-verify_hostname", name, pem]
        return subprocess.run(words, capture_output=True, check=False).returncode

    assert verify("a.internal") == 0
    assert verify("b.internal") != 0


# The door

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue\n"


def row(port: int, state: str) -> str:
    return f"   0: 0B05D50A:{port:04X} 0A05D50A:D431 {state} 00000000:00000000\n"


def test_connections_to_the_port_are_counted() -> None:
    table = HEADER + row(8443, "01") + row(8443, "0A") + row(8443, "06") + row(443, "01") + row(8443, "01")
    assert door.connections(table, 8443) == 2


def test_it_waits_for_those_that_are_connected(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text(HEADER + row(8443, "01"))
    begun = time.monotonic()
    assert not door.wait(8443, 0.5, (str(table),))
    assert time.monotonic() - begun >= 0.5
    table.write_text(HEADER + row(443, "01"))
    assert door.wait(8443, 5, (str(table), str(tmp_path / "none")))


def test_who_serves_is_let_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shut: list[int] = []
    monkeypatch.setattr(door, "shut", lambda port: shut.append(port) or 0)
    path = str(tmp_path / "s")
    assert door.main(["guard", "8443", path]) == 0
    assert shut == [8443]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        assert door.main(["guard", "8443", path]) == 0
    assert shut == [8443]


def test_its_rules_name_the_port_and_first_packets_only() -> None:
    assert "tcp dport 8443 tcp flags & (fin | syn | rst | ack) == syn reject with tcp reset" in door.rules(8443)
