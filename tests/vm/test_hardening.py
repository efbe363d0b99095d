"""What the kernel and its daemons make of hardening and firewall: what a container cannot show."""

from __future__ import annotations

import re

import pytest

from tests.vm.seen import STAGES, each, look, outcome, read

DAEMONS = ("auditd", "apparmor", "ufw", "fail2ban", "chrony", "cron", "slipway-resolver")
# What auditd is to watch, each by its key: an event of another kind must not be needed to find one's way.
WATCHED = ("/etc/sudoers", "/etc/passwd", "/etc/ssh", "/etc/systemd", "/etc/app", "/opt/app")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("daemon", DAEMONS)
def test_what_watches_the_host_runs(stage, daemon):
    unit = look(stage, "units")[f"{daemon}.service"]
    assert (unit["LoadState"], unit["ActiveState"]) == ("loaded", "active")


@pytest.mark.parametrize("stage", STAGES)
def test_the_kernel_audits_and_loses_nothing(stage):
    status = look(stage, "audit")["status"]
    assert status["enabled"] in ("1", "2")
    assert int(status["pid"]) > 0
    assert int(status["lost"]) == 0


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("place", WATCHED)
def test_the_kernel_has_our_rules(stage, place):
    assert any(
        f" {place}" in rule.replace("-F dir=", " ").replace("-F path=", " ") for rule in look(stage, "audit")["rules"]
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_planted_event_is_caught(stage):
    """A file that would have given rights to somebody was put beside the rules of sudo, and removed again."""
    assert look(stage, "audit")["planted"] != []


@pytest.mark.parametrize("stage", STAGES)
def test_apparmor_enforces(stage):
    found = look(stage, "apparmor")
    assert found["enabled"] == "Y"
    assert found.get("enforce")
    assert found.get("complain", []) == []


@pytest.mark.parametrize(("stage", "name"), each("sysctls", "any parameter"))
def test_a_parameter_of_the_kernel_is_what_our_files_say(stage, name):
    wanted, has = look(stage, "sysctls")[name]
    assert has == wanted


@pytest.mark.parametrize(("stage", "name"), each("modules", "any module"))
def test_a_module_cannot_be_loaded(stage, name):
    module = look(stage, "modules")[name]
    assert not module["loaded"]
    assert module["code"] != 0


@pytest.mark.parametrize("stage", STAGES)
def test_most_blocked_modules_could_be_loaded_otherwise(stage):
    """A refusal shows nothing where the kernel has no such module."""
    modules = look(stage, "modules").values()
    assert sum(module["exists"] for module in modules) > len(modules) / 2


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("place", ["/tmp", "/var/tmp", "/dev/shm"])
def test_what_everybody_may_write_to_runs_nothing(stage, place):
    mount = look(stage, "system")["mounts"][place]
    assert mount, f"{place} is no mount point"
    assert {"nodev", "nosuid", "noexec"} <= set(mount[-1].split(","))


@pytest.mark.parametrize("stage", STAGES)
def test_the_firewall_is_loaded_and_closed_both_ways(stage):
    found = look(stage, "firewall")
    assert "Status: active" in found["status"]
    for family in ("iptables", "ip6tables"):
        policies = found["policies"][family]
        assert (policies["INPUT"], policies["OUTPUT"], policies["FORWARD"]) == ("DROP", "DROP", "DROP")
        assert found["rules"][family] > 10


@pytest.mark.parametrize("stage", STAGES)
def test_names_that_may_be_reached_have_sets_with_addresses(stage):
    sets = look(stage, "firewall")["sets"]
    assert sets
    assert any(sets.values())


def test_every_control_that_was_asked_of_the_machine_is_as_it_should_be():
    audit = outcome("audit_host")
    assert audit["code"] == 0, audit["said"]


if read("outcome").get("full"):

    def test_lynis_gives_ninety_and_says_nothing_without_a_reason():
        audit = outcome("audit_host")
        assert audit["code"] == 0, audit["said"]
        score = re.search(r"Lynis (\d+)", audit["said"])
        assert score, audit["said"]
        assert int(score[1]) >= 90


def test_patch_reboots_once_and_the_host_comes_back_serving():
    patch = outcome("patch")
    assert patch["code"] == 0, patch["said"]
    assert patch["boots"] == 1
