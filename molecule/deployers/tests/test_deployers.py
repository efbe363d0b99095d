"""The deployer gets in with a key, may run releasectl as root, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.outside import ssh


@pytest.fixture(params=["app1", "data1"])
def name(request):
    return request.param


def test_the_key_lets_the_deployer_in(lab, name):
    seen = ssh(lab, "deployer", name, "id -un; id -gn")
    assert seen.stdout.split() == ["deployer", "deployers"], seen.stderr


def test_sudo_shows_releasectl_alone(lab, name):
    seen = ssh(lab, "deployer", name, "sudo -n -l")
    rights = seen.stdout.partition("may run the following commands")[2].splitlines()[1:]
    assert [line.strip() for line in rights if line.strip()] == ["(root) NOPASSWD: /usr/local/sbin/releasectl"]


@pytest.mark.parametrize(
    "command", ["id", "sh", "cat /etc/shadow", "/usr/local/sbin/releasectl-other", "sudoedit /etc/hosts"]
)
def test_sudo_refuses_everything_else(lab, command):
    seen = ssh(lab, "deployer", "app1", f"sudo -n {command}")
    assert seen.returncode != 0
    assert "password is required" in seen.stderr


@pytest.fixture
def releasectl(app1):
    """The program, or a stand-in where the role release has not been."""
    program = "/usr/local/sbin/releasectl"
    there = app1.file(program).exists
    if not there:
        app1.check_output(f"printf '#!/bin/sh\\nenv\\n' >{program} && chmod 755 {program}")
    yield program
    if not there:
        app1.check_output(f"rm {program}")


def test_sudo_refuses_to_hand_variables_on(lab, releasectl):
    seen = ssh(lab, "deployer", "app1", "sudo -n PYTHONPATH=/tmp /usr/local/sbin/releasectl status")
    assert seen.returncode != 0
    assert "not allowed to set the following environment variables" in seen.stderr


def test_there_is_no_password(app1):
    assert app1.run("passwd -S deployer").stdout.split()[1] == "L"


def test_the_key_works_without_pam_as_well(lab, app1):
    """A locked password counts as a locked account there, unless it is locked the right way."""
    # Where there is a firewall it has no such port on its list.
    opening = "if command -v iptables >/dev/null; then iptables {} INPUT -p tcp --dport 2022 -j ACCEPT; fi"
    app1.check_output("/usr/sbin/sshd -o UsePAM=no -o Port=2022 -o PidFile=/run/sshd-2022.pid")
    app1.check_output(opening.format("-I"))
    try:
        # It is in the background before it listens, and writes that file after.
        app1.check_output("for _ in $(seq 100); do [ -s /run/sshd-2022.pid ] && exit; sleep 0.1; done; exit 1")
        seen = ssh(lab, "deployer", "app1", "id -un", "-p", "2022", "-o", "StrictHostKeyChecking=no")
        assert seen.stdout.strip() == "deployer", seen.stderr
    finally:
        app1.check_output("kill $(cat /run/sshd-2022.pid)")
        app1.check_output(opening.format("-D"))


def test_who_has_the_key_cannot_add_another(lab):
    other = Path(lab["keys"]["provider"] + ".pub").read_text().strip()
    planted = ssh(lab, "deployer", "app1", f"mkdir -p .ssh && echo '{other}' > .ssh/authorized_keys")
    assert planted.returncode == 0
    try:
        only = ("-o", "IdentitiesOnly=yes", "-o", "IdentityFile=none", "-i", lab["keys"]["provider"])
        # ssh tries the identities of its configuration as well: take those away by a configuration of one's own.
        bare = ("-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", *only)
        seen = ssh(lab, "deployer", lab["hosts"]["app1"]["ipv4"], "true", *bare)
        assert seen.returncode == 255
        assert "Permission denied" in seen.stderr
    finally:
        ssh(lab, "deployer", "app1", "rm -r .ssh")


def test_the_key_is_no_tunnel(lab):
    seen = ssh(lab, "deployer", "app1", "", "-W", f"{lab['hosts']['data1']['ipv4']}:22")
    assert seen.returncode != 0
    assert "SSH-2.0" not in seen.stdout


def test_the_home_is_nobody_elses(app1):
    home = app1.file("/home/deployer")
    assert (home.user, home.group, home.mode) == ("deployer", "deployers", 0o750)


def test_the_rule_is_readable_by_root_alone(app1):
    rule = app1.file("/etc/sudoers.d/20-slipway-deployers")
    assert (rule.user, rule.mode) == ("root", 0o440)
