"""A proof of a login is a connection of its own, and what ssh said is not mistaken."""

from __future__ import annotations

import pytest

from plugins.action.ssh_login import command, outcome


def test_it_never_rides_a_connection_that_is_open():
    argv = command("ops", None, True, {"inventory_hostname": "app1", "ansible_ssh_common_args": "-F '/tmp/with blank'"})
    assert "ControlMaster=no" in argv
    assert "ControlPath=none" in argv
    assert "BatchMode=yes" in argv
    assert argv[-6:] == ["/tmp/with blank", "-l", "ops", "--", "app1", "sudo -n true"]


def test_it_goes_where_the_inventory_says_with_the_key_it_is_about():
    hostvars = {"inventory_hostname": "app1", "ansible_host": "192.0.2.1", "ansible_port": 2222}
    argv = command("root", "/keys/provider", False, hostvars)
    assert argv[argv.index("-i") + 1] == "/keys/provider"
    assert "IdentitiesOnly=yes" in argv
    assert argv[argv.index("-p") + 1] == "2222"
    assert argv[-4:] == ["root", "--", "192.0.2.1", "true"]


@pytest.mark.parametrize(
    ("code", "stderr", "sudo", "expected"),
    [
        (0, "", True, "accepted"),
        (255, "root@app1: Permission denied (publickey).", False, "refused"),
        (255, "Received disconnect: Too many authentication failures", False, "refused"),
        (255, "ssh: connect to host app1 port 22: Connection refused", False, "unreachable"),
        (255, "Host key verification failed.", False, "unreachable"),
        (1, "sudo: a password is required", True, "no sudo"),
        (1, "This account is currently not available.", False, "refused"),
    ],
)
def test_what_ssh_says_is_told_apart(code, stderr, sudo, expected):
    assert outcome(code, stderr, sudo)[0] == expected
