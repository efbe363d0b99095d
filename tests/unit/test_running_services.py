"""What has to be done to a service follows from what runs, not from what a handler was told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugins.modules import running_services as subject

SERVICE = {
    "name": "nginx",
    "enabled": True,
    "started": True,
    "only_if_active": False,
    "process_groups": ["app-edge"],
    "reload_replaces_processes": True,
}
STATE = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "ActiveEnterTimestamp": "Mon 2026-11-23 16:00:00.000000 UTC",
    "StateChangeTimestamp": "Mon 2026-11-23 16:30:00.500000 UTC",
}
RELOADED = subject.parse_time(STATE["StateChangeTimestamp"])
STARTED = subject.parse_time(STATE["ActiveEnterTimestamp"])
WORKERS = {101: (RELOADED, {33, 900})}


def steps(service=None, state=None, reload_file=None, restart_file=None, processes=WORKERS):
    files = {"reload": reload_file or ("/etc/x", RELOADED - 5), "restart": restart_file or (None, 0.0)}
    return [verb for verb, _ in subject.plan(SERVICE | (service or {}), STATE | (state or {}), files, processes, {900})]


def test_a_service_as_it_should_be_is_left_alone():
    assert steps() == []


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"ActiveState": "inactive"}, ["start"]),
        ({"ActiveState": "failed"}, ["start"]),
        ({"UnitFileState": "disabled"}, ["enable"]),
        ({"UnitFileState": "disabled", "ActiveState": "inactive"}, ["enable", "start"]),
        ({"LoadState": "masked", "UnitFileState": "masked", "ActiveState": "inactive"}, ["unmask", "enable", "start"]),
        ({"NeedDaemonReload": "yes"}, ["daemon-reload"]),
    ],
)
def test_what_was_altered_by_hand_is_mended(state, expected):
    assert steps(state=state) == expected


def test_a_file_newer_than_the_last_reload_is_read_again():
    assert steps(reload_file=("/etc/x", RELOADED + 1)) == ["reload"]


def test_a_reload_that_left_the_old_processes_does_not_count():
    assert steps(processes={101: (RELOADED - 60, {900})}) == ["reload"]


def test_a_process_outside_a_group_is_replaced():
    assert steps(processes={101: (RELOADED, {33})}) == ["reload"]


def test_a_file_that_only_a_start_reads_asks_for_a_restart():
    assert steps(restart_file=("/etc/x", STARTED + 1)) == ["restart"]
    assert steps(restart_file=("/etc/x", STARTED - 1)) == []


def test_a_service_that_does_not_run_can_be_left_alone():
    assert steps(service={"only_if_active": True}, state={"ActiveState": "inactive", "LoadState": "not-found"}) == []


def test_enablement_is_left_alone_unless_asked_for():
    assert steps(service={"enabled": None}, state={"UnitFileState": "disabled"}) == []
    assert steps(service={"enabled": False}) == ["disable"]


def test_times_of_systemd_are_read():
    assert subject.parse_time("Thu 1970-01-01 00:00:01.500000 UTC") == 1.5
    assert subject.parse_time("n/a") == 0.0
    assert subject.parse_time("") == 0.0


def test_the_newest_file_below_a_directory_is_found(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    for number, name in enumerate(["a", "sub/b"], 1):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, (number, number))
    for directory in (tmp_path, tmp_path / "sub"):
        os.utime(directory, (1, 1))
    assert subject.newest([str(tmp_path), "/nowhere"]) == (str(tmp_path / "sub/b"), 2.0)


def test_processes_are_seen_with_their_groups():
    # This very process is a child of its parent.
    _, groups = subject.children(os.getppid())[os.getpid()]
    assert os.getgid() in groups


def test_what_shall_not_run_now_is_seen_to_at_boot_only():
    inactive = {"ActiveState": "inactive", "UnitFileState": "disabled"}
    assert steps(service={"started": False}, state=inactive) == ["enable"]
    assert steps(service={"started": False, "enabled": False}, state={"ActiveState": "failed"}) == ["disable"]
    assert steps(service={"started": False}, restart_file=("/etc/x", RELOADED + 99)) == []


def test_a_service_that_waits_to_be_started_is_read_anew_and_left_alone():
    waiting = {"ActiveState": "inactive"}
    assert steps(service={"only_if_active": True}, state=waiting) == []
    assert steps(service={"only_if_active": True}, state=waiting | {"NeedDaemonReload": "yes"}) == ["daemon-reload"]
