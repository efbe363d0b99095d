"""A list that leaves the operator out is refused, or taken back; and the way by a bastion."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from tests.inside import CONVERGE, FAMILIES, live_rules, ssh_through
from tests.outside import changes, is_open, play, ssh

ELSEWHERE = ["192.0.2.0/24", "2001:db8::/32"]


def moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def words(text: str) -> str:
    return " ".join(text.split())


def test_an_empty_list_is_refused_before_anything_changes(lab, narrowed):
    done = play(lab, "playbooks/site.yml", "--limit", "app1", app_operator_networks=[])
    assert done.returncode != 0
    assert "app_operator_networks is empty, so the firewall would let nobody in over ssh" in words(done.stdout)
    assert changes(done.stdout) == {"app1": 0}


def test_a_list_without_whoever_is_connected_is_refused_before_anything_changes(lab, narrowed, places):
    done = play(lab, CONVERGE, "--limit", "app1", **{**narrowed, "app_operator_networks": ELSEWHERE})
    assert done.returncode != 0
    assert f"The list lets nobody from {places.near('ipv4', 1)} reach port 22 of app1" in words(done.stdout)
    assert changes(done.stdout) == {"app1": 0}


def test_a_list_without_whoever_is_connected_is_taken_back(lab, narrowed, app1, places):
    before = live_rules(app1)
    files = app1.check_output("sha256sum /etc/ufw/*.rules /etc/default/ufw /etc/slipway/firewall/*")
    left_out = {**narrowed, "app_operator_networks": ELSEWHERE, "firewall_check_own_address": False}
    done = play(lab, CONVERGE, "--limit", "app1", **left_out)
    assert done.returncode != 0
    said = words(done.stdout)
    assert "a new login to app1 as ops was not accepted" in said
    assert "app1 was put back as it was" in said
    assert "The list lets in over ssh: 192.0.2.0/24, 2001:db8::/32" in said
    assert ssh(lab, "ops", "app1", "sudo -n true").returncode == 0
    last = json.loads(app1.check_output("/usr/local/libexec/slipway/guard status"))["last"]
    assert last["outcome"] == "fired"
    assert moment(last["at"]) - moment(last["armed_at"]) < datetime.timedelta(seconds=120)
    assert live_rules(app1) == before
    assert app1.check_output("sha256sum /etc/ufw/*.rules /etc/default/ufw /etc/slipway/firewall/*") == files


@pytest.fixture
def by_bastion(lab, data1, places, tmp_path):
    """An ssh configuration that goes to app1 by data1, which hands connections on for operators."""
    config = tmp_path / "ssh_config"
    hosts = " ".join(["app1", *(places.of("app1", family) for family in FAMILIES)])
    config.write_text(f"Host {hosts}\n  ProxyJump ops@data1\n\n{Path(lab['ssh_config']).read_text()}")
    # The first word counts: whatever hardening says of forwarding comes after it.
    drop_in = "/etc/ssh/sshd_config.d/05-test-bastion.conf"
    data1.check_output(f"printf 'AllowTcpForwarding yes\\n' >{drop_in} && systemctl reload ssh")
    yield config
    data1.check_output(f"rm {drop_in} && systemctl reload ssh")


@pytest.mark.full
def test_a_host_that_only_a_bastion_reaches_is_worked_on_by_it(lab, narrowed, by_bastion, places):
    from_data1 = {**narrowed, "app_operator_networks": [places.of("data1", family) for family in FAMILIES]}
    through = {"ansible_ssh_common_args": f"-F '{by_bastion}'", "ansible_control_path_dir": str(by_bastion.parent)}
    # As one moves: first a list with the new way beside the old one, then by the new way the list without the old one.
    for arguments in ({}, {**from_data1, **through}):
        done = play(lab, CONVERGE, "--limit", "app1", **arguments)
        assert done.returncode == 0, done.stdout[-3000:]
    try:
        for family in FAMILIES:
            assert not is_open(places.of("app1", family), 22)
        assert ssh(lab, "ops", "app1", "true", "-o", "ConnectTimeout=3").returncode == 255
        # People, deployers and playbooks come by the bastion; a run by it finds nothing to change.
        assert ssh_through(by_bastion, "ops", "app1", "sudo -n id -un").stdout.strip() == "root"
        assert ssh_through(by_bastion, "deployer", "app1", "id -un").stdout.strip() == "deployer"
        again = play(lab, CONVERGE, "--limit", "app1", **from_data1, **through)
        assert changes(again.stdout) == {"app1": 0}, again.stdout[-3000:]
    finally:
        # By the bastion again, and with a list that lets it in: whoever tightens from where it does not, is put back.
        opened = play(lab, CONVERGE, "--limit", "app1", **through)
    assert opened.returncode == 0, opened.stdout[-3000:]
