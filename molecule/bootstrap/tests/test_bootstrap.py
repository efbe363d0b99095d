"""The operators are in, root is out, and whatever goes wrong on the way locks nobody out."""

from __future__ import annotations

import pytest

from tests.outside import changes, play, ssh

BOOTSTRAP = "playbooks/bootstrap.yml"


@pytest.mark.parametrize("host", ["app1", "data1"])
def test_an_operator_logs_in_and_has_sudo(lab, host):
    seen = ssh(lab, "ops", host, "sudo -n id -u")
    assert (seen.returncode, seen.stdout.strip()) == (0, "0"), seen.stderr


@pytest.mark.parametrize("host", ["app1", "data1"])
def test_root_is_refused_with_the_providers_key(lab, host):
    seen = ssh(lab, "root", host, "true")
    assert seen.returncode == 255
    assert "Permission denied" in seen.stderr


def test_the_operators_have_no_password(app1):
    assert app1.run("passwd -S ops").stdout.split()[1] == "L"


def test_on_a_host_that_lets_neither_in_it_says_so_and_changes_nothing(lab):
    done = play(lab, BOOTSTRAP, "--limit", "app1", app_admin_user="nobody-here")
    assert done.returncode != 0
    assert "Neither nobody-here nor root may log in to app1" in done.stdout
    assert changes(done.stdout) == {"app1": 0}


def test_keys_that_let_nobody_in_are_taken_back(lab, app1):
    stranger = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0l5vN2QX3VbVJpJzOZk7vXJpW8m3kq1q9nB2c3d4e5 stranger"
    keys = app1.file("/home/ops/.ssh/authorized_keys").content_string
    done = play(lab, BOOTSTRAP, "--limit", "app1", bootstrap_admin_public_keys=[stranger])
    assert done.returncode != 0
    assert "app1 was put back as it was, at once" in " ".join(done.stdout.split())
    assert ssh(lab, "ops", "app1", "sudo -n true").returncode == 0
    assert app1.file("/home/ops/.ssh/authorized_keys").content_string == keys


@pytest.mark.full
def test_a_file_that_sshd_reads_first_is_not_overlooked(lab, app1):
    provider = "/etc/ssh/sshd_config.d/00-provider.conf"
    app1.check_output(f"printf 'PermitRootLogin yes\\n' >{provider}")
    try:
        done = play(lab, BOOTSTRAP, "--limit", "app1")
        assert done.returncode != 0
        assert "Root could not be barred on app1" in done.stdout
        assert ssh(lab, "ops", "app1", "sudo -n true").returncode == 0
    finally:
        app1.check_output(f"rm {provider}")
        assert play(lab, BOOTSTRAP, "--limit", "app1").returncode == 0
    assert ssh(lab, "root", "app1", "true").returncode == 255


@pytest.mark.full
def test_a_daemon_that_missed_its_configuration_is_caught_up(lab, app1):
    """As after a run that died between the file and the reload."""
    app1.check_output("sed -i s/no$/yes/ /etc/ssh/sshd_config.d/10-slipway-root.conf")
    app1.check_output("systemctl reload ssh && sleep 1")
    assert ssh(lab, "root", "app1", "true").returncode == 0
    app1.check_output("sed -i s/yes$/no/ /etc/ssh/sshd_config.d/10-slipway-root.conf")
    assert ssh(lab, "root", "app1", "true").returncode == 0
    assert play(lab, BOOTSTRAP, "--limit", "app1").returncode == 0
    assert ssh(lab, "root", "app1", "true").returncode == 255
