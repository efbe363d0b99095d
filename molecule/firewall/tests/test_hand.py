"""What somebody changed by hand in the rules that run is seen from outside, named by a run, and put right without
cutting a connection; what others keep beside UFW stays."""

from __future__ import annotations

import subprocess

import pytest

from tests.inside import CONVERGE, live_rules
from tests.outside import changes, is_open, play

BY_HAND = (
    "iptables -I INPUT -p tcp --dport 8080 -j ACCEPT",
    "iptables -N stranger; iptables -A stranger -p tcp --dport 9999 -j ACCEPT; iptables -A INPUT -j stranger",
    "iptables -A ufw-user-output -d 192.0.2.9 -j ACCEPT",
    "ip6tables -F ufw6-user-input",
    "ip6tables -P FORWARD ACCEPT",
    "ip6tables -D OUTPUT -j ufw6-before-output",
    # fail2ban's and an operator's own ban: nothing of UFW's business.
    "iptables -N f2b-sshd; iptables -A f2b-sshd -s 192.0.2.99 -j REJECT",
    "iptables -I INPUT -p tcp --dport 22 -j f2b-sshd",
    "iptables -I INPUT -s 192.0.2.98 -j DROP",
)
CLEAN_UP = (
    "iptables -D INPUT -p tcp --dport 22 -j f2b-sshd; iptables -F f2b-sshd; iptables -X f2b-sshd;"
    "iptables -D INPUT -s 192.0.2.98 -j DROP; iptables -F stranger; iptables -X stranger"
)


@pytest.fixture
def session(lab):
    """A connection that was there before."""
    process = subprocess.Popen(
        ["ssh", "-F", lab["ssh_config"], "-o", "ControlPath=none", "ops@app1", "cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    echo(process, "before")
    yield process
    process.kill()
    process.wait()


def echo(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{word}\n")
    return process.stdout.readline().strip()


def test_rules_changed_by_hand_are_seen_named_and_put_right(lab, app1, session):
    before = live_rules(app1)
    for command in BY_HAND:
        app1.check_output(command)
    address = lab["hosts"]["app1"]["ipv4"]
    assert is_open(address, 8080)
    assert is_open(address, 9999)

    seen = play(lab, "playbooks/verify_ports.yml", "--limit", "app1", firewall_scan_ports="22,80,443,8080,9999")
    said = " ".join(seen.stdout.split())
    assert seen.returncode != 0
    assert f"app1 ({address}) answers on 8080, 9999, which the list does not let in." in said
    assert "does not let" in said
    assert "which the list lets in" in said

    mended = play(lab, CONVERGE, "--limit", "app1", "--diff")
    assert mended.returncode == 0, mended.stdout[-3000:]
    for trace in (
        "INPUT: takes out a rule of others that accepts: -A INPUT -p tcp -m tcp --dport 8080 -j ACCEPT",
        "INPUT: takes out a rule of others that accepts: -A INPUT -j stranger",
        "ufw-user-output: takes out: -A ufw-user-output -d 192.0.2.9/32 -j ACCEPT",
        "ufw6-user-input: puts in:",
        "FORWARD: policy ACCEPT becomes DROP",
        "OUTPUT: the way into UFW's chains is not as UFW made it",
    ):
        assert trace in mended.stdout, trace
    assert changes(mended.stdout) == {"app1": 1}
    assert echo(session, "after") == "after"

    assert not is_open(address, 8080)
    assert not is_open(address, 9999)
    left = live_rules(app1)
    assert "-A INPUT -s 192.0.2.98/32 -j DROP" in left
    assert "-A INPUT -p tcp -m tcp --dport 22 -j f2b-sshd" in left
    app1.check_output(CLEAN_UP)
    assert live_rules(app1) == before
