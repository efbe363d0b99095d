"""What every host stands on, seen in what its programs do."""

from __future__ import annotations

import json

import pytest


@pytest.fixture(params=["app1", "data1"])
def host(request):
    return request.getfixturevalue(request.param)


def test_the_clock_shows_utc_by_its_own_name(host):
    assert host.check_output("readlink -f /etc/localtime") == "/usr/share/zoneinfo/Etc/UTC"
    assert host.check_output("date +%Z") == "UTC"


def test_security_updates_install_themselves_and_never_reboot(host):
    settings = host.check_output("apt-config dump")
    assert 'APT::Periodic::Unattended-Upgrade "1";' in settings
    assert 'APT::Periodic::Update-Package-Lists "1";' in settings
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in settings
    assert host.run("unattended-upgrade --help").rc == 0
    assert host.service("apt-daily-upgrade.timer").is_enabled


@pytest.mark.parametrize(
    ("unit", "kept"),
    [
        ("gunicorn@bookshop-1.1.service", True),
        ("celery-worker@bookshop-1.1.service", True),
        ("app.service", True),
        ("nginx.service", False),
        ("app-armor.service", False),
    ],
)
def test_needrestart_leaves_the_app_alone(host, unit, kept):
    program = (
        "our %nrconf; do q(/etc/needrestart/needrestart.conf); die $@ if $@;"
        " for my $re (keys %{$nrconf{override_rc}}) { print qq($nrconf{override_rc}{$re}\\n) if $ENV{UNIT} =~ $re }"
    )
    answers = host.check_output(f"UNIT='{unit}' perl -e '{program}'").split()
    assert ("0" in answers) is kept


def test_the_journal_outlives_a_reboot(host):
    host.check_output("logger -t slipway-test 'a line that is kept'")
    host.check_output("journalctl --sync")
    machine = host.check_output("cat /etc/machine-id")
    lines = host.check_output(f"journalctl -D /var/log/journal/{machine} -t slipway-test -o json -n 1")
    assert json.loads(lines)["MESSAGE"] == "a line that is kept"


def test_the_running_journal_has_its_limit(host):
    said = host.check_output("journalctl -t systemd-journald -o cat -n 50")
    assert "max 1.0G" in said


def test_there_is_a_place_for_what_is_ours(host):
    place = host.file("/etc/slipway")
    assert place.is_directory
    assert (place.user, place.mode) == ("root", 0o755)


def test_the_tools_that_people_reach_for_are_there(host):
    for tool in ("curl", "less", "lsof", "openssl", "logrotate"):
        assert host.exists(tool), tool
