"""Who fails too often is shut out by the host itself; who comes from the operators' networks never is."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections.abc import Iterator

from tests.outside import ssh

# Addresses for documentation (RFC 5737, RFC 3849): nobody's, so an attacker's here.
ATTACKER = "198.51.100.7"
PROBER = "198.51.100.8"
FLOODER = "198.51.100.10"
PORT_OPEN = "timeout 4 bash -c 'exec 3<>/dev/tcp/{0}/22; head -c 4 <&3'"


@contextlib.contextmanager
def attacker(lab, app1, data1, address: str = ATTACKER) -> Iterator[str]:
    """data1 has an address that is in nobody's network, and app1 knows the way back."""
    data1.check_output(f"ip address add {address}/32 dev lo")
    app1.check_output(f"ip route add {address} via {lab['hosts']['data1']['ipv4']}")
    try:
        yield address
    finally:
        app1.run(f"fail2ban-client unban {address}")
        app1.check_output(f"ip route del {address}")
        data1.check_output(f"ip address del {address}/32 dev lo")


def knock(lab, host, source: str, times: int) -> None:
    """Fail to log in, from one of the host's addresses."""
    options = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ConnectTimeout=3"
    for _ in range(times):
        seen = host.run(f"ssh -b {source} {options} nobody-here@{lab['hosts']['app1']['ipv4']} true")
        assert seen.rc == 255


def reaches(lab, host, source: str) -> bool:
    address = lab["hosts"]["app1"]["ipv4"]
    probe = (
        f"import socket; s = socket.create_connection(('{address}', 22), 4, ('{source}', 0)); print(s.recv(4).decode())"
    )
    return host.run(f'python3 -c "{probe}"').stdout.strip() == "SSH-"


def banned(host, jail: str) -> list[str]:
    return host.check_output(f"fail2ban-client get {jail} banip").split()


def wait_for(condition, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.3)
    return False


def test_it_runs_and_watches(app1, data1):
    assert "sshd" in app1.check_output("fail2ban-client status")
    assert "slipway-nginx" in app1.check_output("fail2ban-client status")
    assert "nginx" not in data1.check_output("fail2ban-client status")
    assert app1.service("fail2ban").is_enabled


def test_who_guesses_is_shut_out_and_nobody_else_is(lab, app1, data1):
    own = lab["hosts"]["data1"]["ipv4"]
    with attacker(lab, app1, data1) as address:
        assert reaches(lab, data1, address)
        knock(lab, data1, address, 5)
        assert wait_for(lambda: address in banned(app1, "sshd"))
        assert wait_for(lambda: not reaches(lab, data1, address), 10)
        # The same machine by its address in the lab, an operators' network here; and the operators themselves.
        knock(lab, data1, own, 7)
        assert own not in banned(app1, "sshd")
        assert reaches(lab, data1, own)
        assert ssh(lab, "ops", "app1", "true").returncode == 0
        # In a table of its own: nothing of it is in the rules that UFW writes.
        assert address in app1.check_output("nft list table inet f2b-table")
        app1.check_output(f"fail2ban-client unban {address}")
        assert wait_for(lambda: reaches(lab, data1, address), 10)


def test_a_ban_outlives_a_restart(lab, app1, data1):
    with attacker(lab, app1, data1) as address:
        app1.check_output(f"fail2ban-client set sshd banip {address}")
        assert wait_for(lambda: not reaches(lab, data1, address), 10)
        app1.check_output("systemctl restart fail2ban")
        assert wait_for(lambda: app1.run("fail2ban-client ping").rc == 0)
        assert wait_for(lambda: not reaches(lab, data1, address), 10)


def line(client: str, uri: str, status: int, upstream: str = "") -> str:
    """As the edge writes it."""
    entry = {
        "time": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00"), "request_id": "0" * 32,
        "client": client, "host": "x", "method": "GET", "uri": uri, "protocol": "HTTP/1.1", "status": status,
        "bytes": 0, "request_time": 0.001, "upstream_status": upstream,
    }  # fmt: skip
    return json.dumps(entry, separators=(",", ":"))


def test_who_goes_on_over_a_limit_is_banned_and_whom_the_app_refuses_is_not(app1):
    lines = [line(FLOODER, "/api/", 429)] * 100 + [line("198.51.100.11", "/api/", 429)] * 20
    lines += [line("198.51.100.12", "/api/", 429, upstream="429")] * 120
    app1.check_output("cat >>/var/log/nginx/refused.log <<'END'\n" + "\n".join(lines) + "\nEND")
    try:
        assert wait_for(lambda: FLOODER in banned(app1, "slipway-limits"))
        assert banned(app1, "slipway-limits") == [FLOODER]
    finally:
        app1.run(f"fail2ban-client unban {FLOODER}")


def test_who_looks_for_leaks_on_the_edge_is_banned(lab, app1):
    operator = lab["hosts"]["data1"]["ipv4"]
    lines = [
        line(PROBER, uri, 404) for uri in ("/.env", "/wp-login.php", "/.git/config", "/a.php", "/cgi-bin/x", "/b.asp")
    ]
    lines += [line(operator, "/.env", 404)] * 7
    # Who misses a page is a visitor, and so is one whose program is there.
    lines += [line("198.51.100.9", "/books/7/", 404)] * 9 + [line("198.51.100.9", "/shop.php", 200)] * 9
    app1.check_output("cat >>/var/log/nginx/refused.log <<'END'\n" + "\n".join(lines) + "\nEND")
    try:
        assert wait_for(lambda: PROBER in banned(app1, "slipway-nginx"))
        assert banned(app1, "slipway-nginx") == [PROBER]
        # Of the web it is shut out, not of everything.
        assert PROBER not in banned(app1, "sshd")
    finally:
        app1.run(f"fail2ban-client unban {PROBER}")


def test_its_configuration_is_whole(app1):
    checked = app1.run("fail2ban-client -t")
    assert checked.rc == 0, checked.stderr
