"""What the app runs on: the right Python, a uv that can build, and accounts that reach what they need and no more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def as_user(host, user, command):
    return host.run(f"runuser -u {user} -- /bin/sh -c '{command}'")


def test_python_is_the_one_that_the_app_wants_and_whole(app1):
    run = app1.run("/usr/bin/python3.11 -c 'import ssl, sqlite3, ctypes, zoneinfo, sys; print(sys.version_info[:2])'")
    assert run.stdout.strip() == "(3, 11)", run.stderr


def test_uv_is_the_pinned_one_and_root_alone_can_change_it(app1):
    pinned = re.search(r"^uv==(\S+)", (ROOT / "roles/runtime/files/uv.txt").read_text(), re.MULTILINE)
    assert pinned
    assert app1.check_output("uv --version").split()[1] == pinned[1]
    real = app1.check_output("readlink -f /usr/local/bin/uv")
    while real != "/":
        assert app1.file(real).user == "root"
        assert not app1.file(real).mode & 0o022, real
        real = str(Path(real).parent)


def test_the_build_account_makes_a_virtual_environment_with_it(app1):
    command = "cd /var/cache/app-build && uv venv -q --no-cache --python 3.11 probe && probe/bin/python --version"
    run = as_user(app1, "app-build", command)
    app1.run("rm -rf /var/cache/app-build/probe")
    assert "Python 3.11" in run.stdout, run.stderr


@pytest.mark.parametrize("name", ["app", "app-build"])
def test_the_accounts_cannot_log_in_and_have_no_home(app1, name):
    user = app1.user(name)
    assert user.exists
    assert user.uid < 1000
    assert user.shell == "/usr/sbin/nologin"
    assert user.password in ("!", "!*", "*", "!!")
    assert not app1.file(user.home).exists


def test_the_app_is_of_the_edge_s_group_and_the_build_account_is_not(app1):
    assert set(app1.user("app").groups) == {"app", "app-edge"}
    assert app1.user("app-build").groups == ["app-build"]


@pytest.mark.parametrize("user", ["app", "app-build", "deployer"])
@pytest.mark.parametrize(
    "place",
    ["/opt/app", "/opt/app/releases", "/var/www/app/static", "/var/lib/app", "/var/log/app/releases", "/run/app",
     "/run/slipway", "/etc/app", "/usr/local/lib/slipway"],
)  # fmt: skip
def test_nobody_but_root_writes_where_releases_live(app1, user, place):
    assert app1.file(place).is_directory
    run = as_user(app1, user, f"touch {place}/probe")
    assert run.rc != 0
    assert "Permission denied" in run.stderr
    assert not app1.file(f"{place}/probe").exists


def test_the_app_writes_its_schedule_and_does_not_see_the_record(app1):
    assert as_user(app1, "app", "touch /var/lib/app/beat/probe && rm /var/lib/app/beat/probe").rc == 0
    assert as_user(app1, "app", "ls /var/lib/app").rc != 0


def test_a_deployer_may_put_files_into_incoming_and_not_take_those_of_others(app1):
    app1.check_output("touch /opt/app/incoming/others && chmod 666 /opt/app/incoming/others")
    assert as_user(app1, "deployer", "touch /opt/app/incoming/own && rm /opt/app/incoming/own").rc == 0
    assert as_user(app1, "deployer", "rm -f /opt/app/incoming/others").rc != 0
    assert as_user(app1, "app", "ls /opt/app/incoming").rc != 0
    app1.check_output("rm /opt/app/incoming/others")


def test_an_operator_may_read_the_events_and_the_app_may_not(app1):
    directory = app1.file("/var/log/app/releases")
    assert (directory.user, directory.group, directory.mode) == ("root", "adm", 0o750)
    assert as_user(app1, "app", "ls /var/log/app/releases").rc != 0


def test_what_a_boot_takes_away_it_brings_back(app1):
    made = app1.check_output("systemd-tmpfiles --cat-config | grep -E '^d /run/(app|slipway)'")
    assert made.splitlines() == [
        "d /run/app 0755 root root -",
        "d /run/slipway 0700 root root -",
        "d /run/slipway/env 0700 root root -",
    ]


def test_a_forgotten_artifact_goes_after_a_week_and_a_new_one_stays(app1):
    app1.check_output("touch /opt/app/incoming/new /opt/app/incoming/old")
    # The change time cannot be set, so the age is told by what tmpfiles would look at with the clock turned.
    run = app1.run("systemd-tmpfiles --cat-config | grep -c '^d /opt/app/incoming 1770 root deployers 7d$'")
    assert run.stdout.strip() == "1"
    app1.check_output("systemd-tmpfiles --clean /etc/tmpfiles.d/slipway-app.conf")
    assert app1.file("/opt/app/incoming/new").exists
    app1.check_output("rm /opt/app/incoming/new /opt/app/incoming/old")
