"""A machine of its own, up with all that is ours, and serving: after each boot."""

from __future__ import annotations

import re

import pytest

from tests.vm.seen import STAGES, each, look, outcome, read

# Without these a host is not what the roles made it.
DAEMONS = ("ssh", "nginx", "app", "systemd-journald", "systemd-sysctl", "systemd-modules-load", "unattended-upgrades")
PROCESSES = ("gunicorn@", "celery-worker@", "celery-beat@")


@pytest.mark.parametrize("stage", STAGES)
def test_it_is_a_machine_with_a_kernel_of_its_own(stage):
    system = look(stage, "system")
    assert system["virtualization"] in ("qemu", "kvm")
    assert system["mounts"]["/"][0].startswith("/dev/vd")
    assert system["traces_of_a_container"] == []


def test_each_look_was_at_another_boot():
    assert len({look(stage, "system")["boot_id"] for stage in STAGES}) == len(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_everything_has_started_and_nothing_has_failed(stage):
    assert look(stage, "system")["failed"] == []
    assert look(stage, "state") == "running"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_runs(stage, daemon):
    unit = look(stage, "units")[f"{daemon}.service"]
    assert (unit["LoadState"], unit["ActiveState"]) == ("loaded", "active")


@pytest.mark.parametrize(("stage", "name"), each("units", "any unit"))
def test_a_unit_of_ours_is_as_it_should_be(stage, name):
    """Enabled, it is active; or it has run and ended well; or its own condition kept it from starting."""
    unit = look(stage, "units")[name]
    assert unit.get("Result", "success") == "success"
    if unit["UnitFileState"] in ("enabled", "enabled-runtime"):
        assert unit["LoadState"] == "loaded"
        done = unit.get("Type") == "oneshot" or unit["ConditionResult"] == "no"
        assert unit["ActiveState"] in (("active", "inactive") if done else ("active",))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("process", PROCESSES)
def test_one_generation_of_each_process_runs(stage, process):
    running = [
        name for name, unit in look(stage, "units").items()
        if name.startswith(process) and unit["ActiveState"] == "active"
    ]  # fmt: skip
    assert len(running) == 1
    assert outcome("release") in running[0]


@pytest.mark.parametrize("stage", STAGES)
def test_the_app_serves_and_reaches_its_data(stage):
    """The path asked answers 200 only when the database and the broker do."""
    assert look(stage, "edge") == {"status": 200, "release": outcome("release")}
    assert look(stage, "release")["live"]["release"] == outcome("release")


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_open_to_others_is_ssh_and_the_edge(stage):
    assert {line.split()[0] for line in look(stage, "listens")} == {"22", "80", "443"}


def test_nobody_was_let_in_once_the_way_was_cut_off():
    """By the firewall, which says nothing, or by sshd, which says no; that it only took long is no proof."""
    cut = outcome("cut")
    assert cut["code"] == 255, cut
    assert re.search("Permission denied|banner exchange|kex_exchange_identification", cut["said"])


def test_a_guard_that_was_armed_when_the_machine_went_down_put_everything_back():
    guard = look("rebooted", "guard")
    assert guard["armed"] is None
    assert (guard["last"]["outcome"], guard["last"]["why"]) == ("fired", "boot")
    assert any("00-cut.conf" in path or path.startswith("/etc/ssh") for path in guard["last"]["paths"])


def test_what_lets_people_in_is_as_it_was_before():
    for part in ("sshd", "ssh_files", "ways_in"):
        assert look("rebooted", part) == look("booted", part), part


def test_nothing_was_left_out():
    assert read("outcome").get("stopped") is None
