"""What people do as root is recorded; what modules send and answer is written nowhere."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from tests.outside import ROOT, ssh

# Every log of the host, the sessions' compressed ones unpacked, and the journal.
EVERYTHING = "{ find /var/log -type f -exec zcat -f {} +; journalctl --no-pager -o verbose; }"


def written(host, word: str) -> int:
    """In how many lines of all logs a word stands."""
    return int(host.check_output(f"{EVERYTHING} | grep -a -c -F -- {word} | cat"))


def module(lab, name: str, arguments: str, pipelining: bool) -> subprocess.CompletedProcess[str]:
    """One module as root, as Ansible sends it."""
    program = str(Path(sys.executable).with_name("ansible"))
    argv = [program, "app1", "-i", "inventories/lab", "-u", "ops", "-b", "-m", name, "-a", arguments]
    environment = {
        **os.environ,
        "SLIPWAY_LAB": lab["name"],
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_PIPELINING": str(pipelining),
        "ANSIBLE_SSH_PIPELINING": str(pipelining),
    }
    return subprocess.run(
        argv,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "by file"])
def test_what_modules_send_and_answer_is_written_nowhere(lab, app1, pipelining):
    canary = f"canary-{secrets.token_hex(12)}"
    sent = module(lab, "ansible.builtin.copy", f"content={canary} dest=/root/canary mode=0600", pipelining)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    try:
        shown = module(lab, "ansible.builtin.command", f"grep {canary} /root/canary", pipelining)
        # It was sent as an argument, and came back as an answer.
        assert canary in shown.stdout
        assert written(app1, canary) == 0
    finally:
        app1.check_output("rm -f /root/canary")


def test_that_a_module_ran_is_in_the_log(lab, app1):
    assert module(lab, "ansible.builtin.ping", "data=pong", True).returncode == 0
    line = app1.check_output("grep BECOME-SUCCESS /var/log/sudo.log | tail -n 1")
    assert " ops : HOST=app1 ; " in line
    # No session of it was kept.
    assert "TSID=" not in line


def test_what_people_see_as_root_is_recorded(lab, app1):
    word = f"seen-{secrets.token_hex(8)}"
    seen = ssh(lab, "ops", "app1", f"sudo sh -c 'echo {word} | rev'", "-tt")
    assert word[::-1] in seen.stdout, seen.stderr
    line = app1.check_output(f"grep {word} /var/log/sudo.log")
    assert "ops : HOST=app1 ; TTY=" in line
    assert f"COMMAND=/usr/bin/sh -c 'echo {word} | rev'" in line
    session = app1.check_output(f"sudoreplay -l | grep {word}").partition("TSID=")[2].split()[0]
    assert word[::-1] in app1.check_output(f"sudoreplay -m 0 {session} </dev/null")


def test_the_records_are_roots_alone(lab, app1):
    for user in ("ops", "deployer"):
        for path in ("/var/log/sudo.log", "/var/log/sudo-io/seq"):
            assert "Permission denied" in ssh(lab, user, "app1", f"cat {path}").stderr
    assert app1.check_output("find /var/log/sudo-io /var/log/sudo.log -perm /077") == ""


def test_the_records_are_rotated(app1):
    checked = app1.run("logrotate --debug /etc/logrotate.d/slipway-sudo")
    assert checked.rc == 0
    assert "weekly (52 rotations)" in checked.stderr
    # No file can be made to look old to it, for it minds the time of the last chmod as well: so the age is cut.
    app1.check_output("sed 's/ 90d$/ 0/' /etc/tmpfiles.d/slipway-login.conf >/run/slipway-sudo-test.conf")
    app1.check_output("systemd-tmpfiles --clean /run/slipway-sudo-test.conf && rm /run/slipway-sudo-test.conf")
    assert app1.check_output("find /var/log/sudo-io -type f") == "/var/log/sudo-io/seq"
    assert app1.service("systemd-tmpfiles-clean.timer").is_running


def test_commands_have_a_terminal_of_their_own(lab):
    outer, inner = ssh(lab, "ops", "app1", "tty; sudo tty", "-tt").stdout.split()
    assert outer.startswith("/dev/pts/")
    assert inner.startswith("/dev/pts/")
    assert outer != inner


def test_a_full_disk_keeps_nobody_from_sudo(lab, app1):
    app1.check_output("mount -t tmpfs -o size=4k,mode=0700 none /var/log/sudo-io")
    assert app1.run("head -c 8k /dev/zero >/var/log/sudo-io/fill").rc != 0
    try:
        seen = ssh(lab, "ops", "app1", "sudo id -u", "-tt")
        assert "0" in seen.stdout.split(), seen.stdout + seen.stderr
    finally:
        app1.check_output("umount /var/log/sudo-io")


def test_what_root_makes_is_as_open_as_packages_expect_and_what_people_make_is_not(lab):
    assert ssh(lab, "ops", "app1", "umask").stdout.strip() == "0027"
    assert ssh(lab, "ops", "app1", "sudo sh -c umask").stdout.strip() == "0022"
    assert ssh(lab, "ops", "app1", "sudo -i umask").stdout.strip() == "0027"


def test_a_deployers_one_right_still_works_and_is_logged(lab, app1):
    program = "/usr/local/sbin/releasectl"
    there = app1.file(program).exists
    if not there:
        app1.check_output(f"printf '#!/bin/sh\\necho {{}}\\n' >{program} && chmod 755 {program}")
    try:
        seen = ssh(lab, "deployer", "app1", f"sudo -n {program} status --json")
        assert seen.stdout.strip().startswith("{"), seen.stderr
    finally:
        if not there:
            app1.check_output(f"rm {program}")
    line = app1.check_output("grep ' deployer : ' /var/log/sudo.log | tail -n 1")
    assert f"COMMAND={program} status --json" in line
