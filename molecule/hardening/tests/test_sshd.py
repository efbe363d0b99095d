"""sshd, asked from outside: what it offers, whom it lets in, and that it runs what its files say."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.keys import give_key, take_key
from tests.outside import ROOT, changes, play, ssh

CONVERGE = "molecule/hardening/converge.yml"
OURS = "/etc/ssh/sshd_config.d/30-slipway-hardening.conf"
# The name-lists of SSH_MSG_KEXINIT, in order (RFC 4253, 7.1).
LISTS = (
    "kex", "host_key", "cipher_in", "cipher_out", "mac_in", "mac_out", "compression_in", "compression_out",
    "language_in", "language_out",
)  # fmt: skip
KEX = {
    "sntrup761x25519-sha512@openssh.com", "curve25519-sha256", "curve25519-sha256@libssh.org",
    "diffie-hellman-group16-sha512", "diffie-hellman-group18-sha512",
}  # fmt: skip
# Not algorithms: these say which extensions the server speaks. The second is the cure for Terrapin.
SIGNS = {"ext-info-s", "kex-strict-s-v00@openssh.com"}
CIPHERS = {"aes256-gcm@openssh.com", "aes128-gcm@openssh.com", "aes256-ctr", "aes192-ctr", "aes128-ctr"}
MACS = {"hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com", "umac-128-etm@openssh.com"}


def offer(address: str) -> dict[str, set[str]]:
    """What the server that answers there offers in the handshake."""
    with socket.create_connection((address, 22), timeout=20) as connection, connection.makefile("rwb") as stream:
        while not stream.readline().startswith(b"SSH-"):
            continue
        stream.write(b"SSH-2.0-slipway_test\r\n")
        stream.flush()
        length = int.from_bytes(stream.read(4), "big")
        packet = stream.read(length)
    payload = packet[1 : length - packet[0]]
    assert payload[0] == 20, "no SSH_MSG_KEXINIT"
    rest, lists = payload[17:], []
    for _ in LISTS:
        size = int.from_bytes(rest[:4], "big")
        lists.append(set(rest[4 : 4 + size].decode().split(",")) - {""})
        rest = rest[4 + size :]
    return dict(zip(LISTS, lists, strict=True))


@pytest.fixture(params=["app1", "data1"])
def name(request):
    return request.param


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_nothing_is_offered_that_an_auditor_would_flag(lab, name, family):
    offered = offer(lab["hosts"][name][family])
    assert offered["kex"] - SIGNS == KEX
    assert "kex-strict-s-v00@openssh.com" in offered["kex"]
    assert offered["host_key"] == {"ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"}
    for way in ("in", "out"):
        assert offered[f"cipher_{way}"] == CIPHERS
        assert offered[f"mac_{way}"] == MACS
        assert offered[f"compression_{way}"] == {"none"}


@pytest.mark.parametrize(
    "option",
    [
        *(f"KexAlgorithms={kex}" for kex in sorted(KEX)),
        *(f"Ciphers={cipher}" for cipher in sorted(CIPHERS)),
        *(f"HostKeyAlgorithms={kind}" for kind in ("ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256")),
    ],
)
def test_each_that_is_offered_works(lab, option):
    seen = ssh(lab, "ops", "app1", "id -un", "-o", option)
    assert seen.stdout.strip() == "ops", seen.stderr


@pytest.mark.parametrize(
    "option",
    [
        "KexAlgorithms=ecdh-sha2-nistp256", "KexAlgorithms=diffie-hellman-group14-sha256", "MACs=hmac-sha2-256",
        "KexAlgorithms=diffie-hellman-group-exchange-sha256", "Ciphers=chacha20-poly1305@openssh.com",
        "HostKeyAlgorithms=ecdsa-sha2-nistp256",
    ],
)  # fmt: skip
def test_a_client_that_knows_nothing_better_is_turned_away(lab, option):
    more = ("-o", "Ciphers=aes256-ctr") if option.startswith("MACs") else ()
    seen = ssh(lab, "ops", "app1", "true", "-o", "LogLevel=INFO", "-o", option, *more)
    assert seen.returncode == 255
    assert "no matching" in seen.stderr


def test_the_rsa_host_key_is_long_enough(lab, name):
    scanned = subprocess.run(
        ["ssh-keyscan", "-t", "rsa", lab["hosts"][name]["ipv4"]], capture_output=True, text=True, timeout=60, check=True
    )
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", "-"], input=scanned.stdout, capture_output=True, text=True, timeout=60, check=True
    )
    assert int(shown.stdout.split()[0]) >= 3072


def test_nothing_but_a_key_is_asked_for(lab, name):
    seen = ssh(lab, "ops", name, "true", "-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password")
    assert seen.returncode == 255
    assert "Permission denied (publickey)." in seen.stderr


def test_whoever_is_in_none_of_the_groups_is_refused(lab, app1):
    key = Path(lab["keys"]["admin"] + ".pub").read_text().strip()
    options = ("-i", lab["keys"]["admin"])
    app1.check_output("useradd -m -s /bin/bash -p '*' outsider && install -d -o outsider -m 0700 ~outsider/.ssh")
    try:
        give_key(app1, "outsider", key)
        seen = ssh(lab, "outsider", "app1", "true", *options)
        assert seen.returncode == 255
        assert "Permission denied" in seen.stderr
        app1.check_output("usermod -aG operators outsider")
        assert ssh(lab, "outsider", "app1", "id -un", *options).stdout.strip() == "outsider"
    finally:
        take_key(app1, "outsider")
        app1.check_output("userdel -r -f outsider 2>/dev/null")


def test_root_is_refused(lab, name):
    seen = ssh(lab, "root", name, "true")
    assert seen.returncode == 255
    assert "Permission denied" in seen.stderr


def test_the_banner_says_what_it_must_and_names_no_system(lab, app1, name):
    seen = ssh(lab, "nobody-here", name, "true", "-o", "LogLevel=INFO")
    assert "Unauthorised access is prohibited" in seen.stderr
    # Whoever reads it has not logged in.
    for word in ("Debian", "Ubuntu", "Linux", "Slipway"):
        assert word not in seen.stderr


def test_operators_are_led_nowhere_else(lab):
    seen = ssh(lab, "ops", "app1", "", "-W", f"{lab['hosts']['data1']['ipv4']}:22")
    assert seen.returncode != 0
    assert "SSH-2.0" not in seen.stdout


@pytest.mark.full
def test_through_a_bastion_operators_go_on(lab):
    done = play(lab, CONVERGE, "--limit", "app1", hardening_ssh_forwarding_groups=["operators"])
    assert done.returncode == 0, done.stdout[-3000:]
    try:
        jump = f"ssh -F {lab['ssh_config']} -W %h:%p -l ops app1"
        seen = ssh(lab, "ops", "data1", "hostname", "-o", f"ProxyCommand={jump}")
        assert seen.stdout.strip() == "data1", seen.stderr
        # What listens on the bastion would be open to all who are on it.
        back = ssh(lab, "ops", "app1", "true", "-R", "12345:127.0.0.1:22", "-o", "ExitOnForwardFailure=yes")
        assert back.returncode == 255
        # A deployer's key is no tunnel there either.
        seen = ssh(lab, "deployer", "app1", "", "-W", f"{lab['hosts']['data1']['ipv4']}:22")
        assert "SSH-2.0" not in seen.stdout
    finally:
        assert play(lab, CONVERGE, "--limit", "app1").returncode == 0
    test_operators_are_led_nowhere_else(lab)


def test_ten_forks_over_one_connection_all_get_through(lab, tmp_path):
    """As Ansible shares its connections: those that find no session left open a connection of their own."""
    argv = ["ssh", "-F", lab["ssh_config"], "-o", "BatchMode=yes", "-o", f"ControlPath={tmp_path}/cp", "-l", "ops"]
    subprocess.run(
        [*argv, "-o", "ControlMaster=yes", "-o", "ControlPersist=60", "app1", "true"], timeout=60, check=True
    )
    try:
        running = [
            subprocess.Popen(
                [*argv, "app1", f"sleep 2; echo {n}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for n in range(10)
        ]
        answers = [process.communicate(timeout=60) for process in running]
        assert sorted(int(out) for out, _ in answers) == list(range(10)), [err for _, err in answers]
    finally:
        subprocess.run([*argv, "-O", "exit", "app1"], capture_output=True, timeout=60, check=False)


def test_a_run_that_would_bar_itself_says_so_before_it_changes_anything(lab):
    done = play(lab, CONVERGE, "--limit", "app1", hardening_ssh_groups=["nobody-is-in-it"])
    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert "app1 was logged in to as ops, who is in none of the groups that hardening_ssh_groups lets in" in said
    assert changes(done.stdout) == {"app1": 0}


def test_a_run_that_was_killed_before_sshd_was_told_is_finished_by_the_next(lab, app1):
    address = lab["hosts"]["app1"]["ipv4"]
    app1.check_output(f"rm {OURS} && systemctl reload ssh && sleep 1")
    assert "ecdh-sha2-nistp256" in offer(address)["kex"]
    started = app1.check_output("systemctl show -p ActiveEnterTimestampMonotonic --value ssh")

    program = str(Path(sys.executable).with_name("ansible-playbook"))
    arguments = ["-i", str(ROOT / ".config/molecule/inventory"), CONVERGE, "--limit", "app1"]
    environment = {**os.environ, "SLIPWAY_LAB": lab["name"], "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    run = subprocess.Popen(
        [program, *arguments], cwd=ROOT, env=environment, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while not app1.file(OURS).exists:
            assert run.poll() is None, "the run ended before it had written the file"
            assert time.monotonic() < deadline, "the file did not come"
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    # The file is new, the daemon is old: that is what a lost restart leaves.
    assert app1.file(OURS).exists
    assert app1.check_output("systemctl show -p ActiveEnterTimestampMonotonic --value ssh") == started
    assert "ecdh-sha2-nistp256" in offer(address)["kex"]

    done = play(lab, CONVERGE, "--limit", "app1")
    assert done.returncode == 0, done.stdout[-3000:]
    assert offer(address)["kex"] - SIGNS == KEX
