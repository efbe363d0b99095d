"""Auditing and integrity, as far as a container goes: rules are well-formed, logs are kept a year, changes are told."""

from __future__ import annotations

import re
import time

import pytest

RULES = "/etc/audit/rules.d/50-slipway.rules"
LOGS = "/var/log/audit"
NOT_HEARD = "not permitted"
YEAR = 365 * 86400


@pytest.fixture(params=["app1", "data1"])
def host(request):
    return request.getfixturevalue(request.param)


def test_auditd_is_in_place_and_not_started_where_it_cannot_run(host):
    assert host.exists("auditctl")
    assert host.run("systemctl is-enabled auditd").stdout.strip() == "disabled"
    assert host.check_output("systemctl is-system-running") == "running"


def test_the_rules_are_joined(host):
    assert "No change" in host.check_output("augenrules --check")
    joined = host.check_output("cat /etc/audit/audit.rules")
    for key in ("identity", "scope", "sshd", "systemd", "privileged", "access", "delete", "time-change"):
        assert re.search(rf"-k {key}$", joined, re.MULTILINE), key


def test_auditctl_understands_every_rule(host):
    """The kernel does not listen in a container; what auditctl finds wrong with a rule it says in lines of its own."""
    rules = [line for line in host.check_output(f"cat {RULES}").splitlines() if line.startswith(("-a", "-w"))]
    assert len(rules) > 60
    script = "\n".join(f"echo '## {rule}'; auditctl {rule.replace('!', chr(92) + '!')} 2>&1" for rule in rules)
    said = host.run("sh -c %s", script.replace("!=", "'!='")).stdout
    wrong = [line for line in said.splitlines() if not line.startswith("##") and NOT_HEARD not in line]
    assert wrong == []


def test_a_rule_that_auditctl_does_not_understand_shows(host):
    said = host.run("auditctl -a always,exit -F arch=b64 -S no_such_call -k x").stderr
    assert [line for line in said.splitlines() if NOT_HEARD not in line] == ["Syscall name unknown: no_such_call"]


def test_every_program_with_more_rights_than_its_caller_is_audited(host):
    joined = host.check_output("cat /etc/audit/audit.rules")
    for path in host.check_output("find / -xdev -type f -perm /6000").split():
        assert f"-F path={path} -F perm=x" in joined, path


def test_the_settings_and_the_releases_are_audited_where_there_are_some(app1, data1):
    assert "-w /etc/app -p wa -k settings" in app1.check_output("cat /etc/audit/audit.rules")
    assert "-F dir=/opt/app -F perm=wa" in app1.check_output("cat /etc/audit/audit.rules")
    assert "/opt/app" not in data1.check_output("cat /etc/audit/audit.rules")


@pytest.fixture
def logs(app1):
    """Logs as auditd leaves them after rotating: the higher the number, the older."""
    app1.check_output(f"rm -rf {LOGS}/audit.log* {LOGS}/archive/*")
    for number, line in ((1, "newer"), (2, "older")):
        path = f"{LOGS}/audit.log.{number}"
        app1.check_output(f"echo type=USER_CMD msg={line} >{path} && chmod 0440 {path} && chgrp adm {path}")
        app1.check_output(f"touch -d @{int(time.time()) - number * 3600} {path}")
    yield app1
    app1.check_output(f"rm -rf {LOGS}/audit.log* {LOGS}/archive/*; systemctl reset-failed slipway-audit-archive")


def archived(host):
    return host.check_output(f"ls {LOGS}/archive").split()


def test_rotated_logs_are_compressed_and_can_be_read_again(logs):
    logs.check_output("systemctl start slipway-audit-archive")
    names = archived(logs)
    assert len(names) == 2
    assert logs.check_output(f"ls {LOGS}") == "archive"
    assert logs.check_output(f"zcat {LOGS}/archive/{names[0]}") == "type=USER_CMD msg=older"
    kept = logs.file(f"{LOGS}/archive/{names[0]}")
    assert (kept.user, kept.group, kept.mode) == ("root", "adm", 0o440)


def test_a_log_goes_when_it_is_a_year_old_and_not_before(logs):
    now = int(time.time())
    for name, age in (("audit-20200101T000000Z.log.gz", YEAR + 86400), ("audit-20200201T000000Z.log.gz", YEAR - 86400)):
        logs.check_output(f"touch -d @{now - age} {LOGS}/archive/{name}")
    logs.check_output("systemctl start slipway-audit-archive")
    names = archived(logs)
    assert "audit-20200101T000000Z.log.gz" not in names
    assert "audit-20200201T000000Z.log.gz" in names
    assert len(names) == 3


def test_logs_that_take_too_much_go_early_and_loudly(logs):
    program = "/usr/local/libexec/slipway/audit-archive"
    logs.check_output(f"head -c 2000000 /dev/urandom >{LOGS}/archive/audit-20200101T000000Z.log.gz")
    done = logs.run(f"python3 -I {program} --days 365000 --megabytes 1")
    assert done.rc == 1
    assert "AUDIT LOGS LOST: 1 logs" in done.stderr
    assert "hardening_audit_archive_megabytes" in done.stderr
    assert len(archived(logs)) == 2


def test_the_archive_runs_each_hour(host):
    assert host.check_output("systemctl is-active slipway-audit-archive.timer") == "active"
    assert host.check_output("systemctl is-enabled slipway-audit-archive.timer") == "enabled"


@pytest.mark.full
def test_a_changed_file_is_told_once_on_its_day(app1):
    app1.check_output("systemctl start slipway-integrity")
    app1.check_output("touch /etc/slipway-integrity-test")
    try:
        assert "/etc/slipway-integrity-test" in look(app1)
        assert "/etc/slipway-integrity-test" not in look(app1)
        app1.check_output("cp -p /usr/bin/lsof /root/lsof.kept && echo '#' >>/usr/bin/lsof")
        said = look(app1)
        assert "/usr/bin/lsof" in said
        assert "Files that are not as their packages brought them" in said
    finally:
        app1.check_output(
            "rm /etc/slipway-integrity-test; [ ! -e /root/lsof.kept ] || mv /root/lsof.kept /usr/bin/lsof"
        )
        app1.check_output("systemctl start slipway-integrity")


def look(host):
    """What one look told the journal."""
    mark = host.check_output("journalctl --sync; journalctl -n 0 --show-cursor | sed -n 's/^-- cursor: //p'")
    host.check_output("systemctl start slipway-integrity")
    host.check_output("journalctl --sync")
    return host.check_output(f"journalctl -u slipway-integrity -o cat --after-cursor '{mark}'")


@pytest.mark.parametrize("unit", ["slipway-audit-archive", "slipway-integrity"])
def test_our_own_units_can_do_little(host, unit):
    line = host.check_output(f"systemd-analyze security --no-pager {unit}.service").splitlines()[-1]
    assert float(re.search(r"(\d+\.\d+)", line)[1]) <= 2.5, line
