"""The system as it runs: mounts, the kernel's parameters, modules, core dumps, modes, jobs, the clock, the journal."""

from __future__ import annotations

import json

import pytest

OPTIONS = ("nodev", "nosuid", "noexec")


@pytest.fixture(params=["app1", "data1"])
def host(request):
    return request.getfixturevalue(request.param)


# Mounts


@pytest.mark.parametrize("path", ["/tmp", "/var/tmp", "/dev/shm"])
def test_nothing_that_lies_where_everybody_may_write_can_run(host, path):
    program = f"{path}/slipway-test-program"
    host.check_output(f"printf '#!/bin/sh\\necho ran\\n' >{program} && chmod 0755 {program}")
    try:
        ran = host.run(program)
        assert "ran" not in ran.stdout
        assert "Permission denied" in ran.stderr
        # The shell reads it as text, which no mount option hinders.
        assert host.check_output(f"sh {program}") == "ran"
    finally:
        host.check_output(f"rm {program}")


@pytest.mark.parametrize("path", ["/tmp", "/var/tmp", "/dev/shm"])
def test_they_are_mounted_with_all_three_options(host, path):
    shown = host.check_output(f"findmnt -no OPTIONS {path} | tail -n 1").split(",")
    assert set(OPTIONS) <= set(shown)


def test_tmp_is_memory_and_in_place_after_a_boot(host):
    assert host.check_output("findmnt -no FSTYPE /tmp | tail -n 1") == "tmpfs"
    for unit in ("tmp.mount", "var-tmp.mount", "slipway-mount-options.service"):
        assert host.check_output(f"systemctl is-enabled {unit}") == "enabled"
        assert host.check_output(f"systemctl is-active {unit}") == "active"


def test_packages_that_ask_questions_still_install(host):
    """apt unpacks and runs what asks: with /tmp noexec that has to be somewhere else."""
    place = host.check_output("apt-config dump APT::ExtractTemplates::TempDir").split('"')[1]
    assert host.file(place).is_directory
    assert "noexec" not in host.check_output(f"findmnt -nT {place} -o OPTIONS").split(",")


# The kernel


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("net.ipv4.ip_forward", "0"),
        ("net.ipv4.tcp_syncookies", "1"),
        ("net.ipv4.icmp_echo_ignore_broadcasts", "1"),
        ("net.ipv4.conf.*.accept_redirects", "0"),
        ("net.ipv4.conf.*.send_redirects", "0"),
        ("net.ipv4.conf.*.accept_source_route", "0"),
        ("net.ipv4.conf.*.log_martians", "1"),
        ("net.ipv4.conf.*.rp_filter", "1"),
        ("net.ipv6.conf.*.accept_ra", "0"),
        ("net.ipv6.conf.*.accept_redirects", "0"),
    ],
)
def test_the_kernel_has_the_value_on_every_interface(host, parameter, value):
    files = "/proc/sys/" + parameter.replace(".", "/")
    values = host.check_output(f"cat {files}").split()
    assert values
    assert set(values) == {value}


def test_what_a_boot_sets_is_what_runs(host):
    """systemd-sysctl reads all files in its order; none after ours may set a value back."""
    read = host.check_output("/lib/systemd/systemd-sysctl --cat-config")
    last = {}
    for line in read.splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.lstrip("-").split("=", 1)
            last[name.strip().replace("/", ".")] = value.strip()
    assert last["net.ipv4.conf.all.rp_filter"] == "1"
    assert last["net.ipv4.ip_forward"] == "0"
    assert last["kernel.kptr_restrict"] == "2"
    assert last["fs.suid_dumpable"] == "0"


def test_a_boot_of_the_lab_leaves_the_machines_kernel_alone(host):
    """hardening_sysctl is `network` there: the unit says so."""
    assert "--prefix=/net" in host.check_output("systemctl show -p ExecStart systemd-sysctl")


@pytest.mark.parametrize("module", ["cramfs", "udf", "usb_storage", "dccp", "sctp", "rds", "tipc"])
def test_the_module_cannot_be_loaded(host, module):
    listed = host.check_output("modprobe -c").splitlines()
    assert f"install {module} /bin/false" in listed
    assert f"blacklist {module}" in listed


@pytest.mark.parametrize("who", ["nobody", "root"])
def test_a_crash_leaves_no_core(host, who):
    assert host.check_output(f"runuser -u {who} -- sh -c 'ulimit -Hc'") == "0"
    assert host.check_output("systemctl show -p DefaultLimitCORE --value") == "0"


# Packages, modes, jobs


def test_what_talks_in_clear_or_has_no_place_is_gone(host):
    for package in (
        "telnet",
        "rsh-client",
        "rpcbind",
        "autofs",
        "apport",
        "rsyslog",
        "systemd-timesyncd",
        "avahi-daemon",
    ):
        assert not host.package(package).is_installed, package
    assert host.run("systemctl start rsync").rc != 0


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/etc/passwd", 0o644),
        ("/etc/shadow", 0o640),
        ("/etc/gshadow", 0o640),
        ("/etc/crontab", 0o600),
        ("/etc/cron.d", 0o700),
        ("/etc/cron.daily", 0o700),
        ("/etc/cron.allow", 0o600),
        ("/etc/at.allow", 0o600),
        ("/etc/audit/auditd.conf", 0o640),
        ("/home/ops", 0o750),
    ],
)
def test_the_mode_gives_no_more_than_it_should(host, path, mode):
    assert host.file(path).mode & ~mode == 0


def test_logs_are_not_for_everybody(host):
    # Asked as somebody is who is in no group: what can nobody read?
    readable = host.run("runuser -u nobody -- find /var/log -type f -readable").stdout.split()
    assert {path.rpartition("/")[2].split(".")[0] for path in readable} <= {"wtmp", "lastlog"}


def test_only_those_who_build_can_compile(app1):
    compiler = app1.check_output("readlink -f /usr/bin/as")
    assert app1.run(f"runuser -u nobody -- {compiler} --version").rc != 0
    assert app1.run(f"runuser -u app-build -- {compiler} --version").rc == 0


def test_nobody_but_root_has_jobs(host):
    assert host.check_output("systemctl is-active cron") == "active"
    refused = host.run("runuser -u nobody -- crontab -l")
    assert refused.rc != 0
    assert "not allowed" in refused.stderr


# The clock and the journal


def test_chrony_runs_as_itself_and_only_watches_the_machines_clock(host):
    lines = host.check_output("ps -o user=,args= -C chronyd").splitlines()
    assert lines
    for line in lines:
        assert line.split()[0] == "_chrony"
        assert line.endswith(" -x")
    assert "506" not in host.check_output("chronyc -n tracking")
    assert host.run("ss -lnuH 'sport = :323 or sport = :123'").stdout == ""


def test_no_log_but_the_journal(host):
    host.check_output("logger -t slipway-hardening-test 'one line'")
    host.check_output("journalctl --sync")
    line = host.check_output("journalctl -t slipway-hardening-test -o json -n 1")
    assert json.loads(line)["MESSAGE"] == "one line"
    assert host.run("grep -rl 'slipway-hardening-test' /var/log --include='*.log' --include=syslog").stdout == ""


def test_a_kernel_that_an_upgrade_brings_is_roots_alone_to_read(app1):
    """As a kernel's package has its hooks run."""
    app1.check_output(
        "install -m 0644 /dev/null /boot/vmlinuz-0-test; install -m 0644 /dev/null /boot/System.map-0-test"
    )
    try:
        app1.check_output("run-parts --exit-on-error --arg=0-test /etc/kernel/postinst.d")
        assert app1.check_output("stat -c %a /boot/vmlinuz-0-test /boot/System.map-0-test").split() == ["600", "600"]
    finally:
        app1.check_output("rm /boot/vmlinuz-0-test /boot/System.map-0-test")
