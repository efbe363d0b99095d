"""Somebody joins, works as a deployer, leaves, and is refused: by real ssh connections. One story, in this order."""

from __future__ import annotations

import json
import time

import pytest

from tests.crew import shows, utc
from tests.outside import changes, ssh

REFUSED = "Permission denied"


@pytest.fixture(scope="module")
def joined(crew):
    """Alice deploys, bob is an admin, audit is automation; carol is an admin who will be shut out in an emergency."""
    crew.person("alice", 1)
    crew.person("bob", 2, role="admin", until=f"{utc(20 * 86400):%Y-%m-%d}")
    crew.person("carol", 3, role="admin", until=f"{utc(20 * 86400):%Y-%m-%d}")
    crew.identity(
        "audit", 4, report="/usr/local/libexec/slipway/access report", sshd="/usr/bin/systemctl is-active ssh"
    )
    return crew.play("onboard", person=crew.name("alice"), person_private_key_file=str(crew.key("alice")))


def test_onboarding_proves_itself_and_says_what_is_left_to_do(joined):
    assert joined.returncode == 0, joined.stdout
    assert "GitHub organisation" in joined.stdout
    assert "training" in joined.stdout


@pytest.mark.parametrize("host", ["app1", "data1"])
def test_a_deployer_is_in_everywhere_and_may_run_releasectl_alone(crew, joined, host):
    seen = crew.ssh("alice", host, "id -un; sudo -n -l")
    assert seen.stdout.split()[0] == crew.name("alice"), seen.stderr
    rights = seen.stdout.partition("may run the following commands")[2].splitlines()[1:]
    assert [line.strip() for line in rights] == ["(root) NOPASSWD: /usr/local/sbin/releasectl"]


@pytest.mark.parametrize("command", ["id", "sh", "cat /etc/shadow", "/usr/local/libexec/slipway/access report"])
def test_sudo_refuses_a_deployer_everything_else(crew, joined, command):
    seen = crew.ssh("alice", "app1", f"sudo -n {command}")
    assert seen.returncode != 0
    assert "password is required" in seen.stderr


def test_an_admin_has_sudo(crew, joined):
    seen = crew.ssh("bob", "app1", "sudo -n id -u")
    assert seen.stdout.strip() == "0", seen.stderr


def test_who_has_a_key_cannot_add_another(crew, joined):
    other = crew.key("mallory").with_suffix(".pub").read_text().strip()
    assert crew.ssh("alice", "app1", f"mkdir -p .ssh && echo '{other}' >.ssh/authorized_keys").returncode == 0
    seen = ssh(crew.lab, crew.name("alice"), "app1", "true", "-i", str(crew.key("mallory")))
    assert crew.ssh("alice", "app1", "rm -r .ssh").returncode == 0
    assert REFUSED in seen.stderr


def test_a_deployer_releases_and_the_record_shows_who(crew, joined, ops, cargo):
    release = cargo["good-2" if ops.live() == cargo["good-1"]["id"] else "good-1"]
    done = crew.play(
        "deploy",
        release_artifact=release["artifact"],
        release_deploy_user=crew.name("alice"),
        release_deploy_private_key_file=str(crew.key("alice")),
    )
    assert done.returncode == 0, done.stdout
    seen = crew.ssh("alice", "app1", "sudo -n /usr/local/sbin/releasectl status --json")
    assert json.loads(seen.stdout.splitlines()[-1])["live"]["release"] == release["id"]
    history = crew.ssh("alice", "app1", "sudo -n /usr/local/sbin/releasectl history --json")
    assert crew.name("alice") in history.stdout


def test_a_second_run_changes_nothing(crew, joined):
    again = crew.apply("--check", "--diff")
    assert again.returncode == 0, again.stdout
    assert changes(again.stdout) == {"app1": 0}


def test_automation_does_its_own_and_nothing_else(crew, joined):
    assert crew.ssh("audit", "app1", "sshd").stdout.strip() == "active"
    assert crew.name("alice") in json.loads(crew.ssh("audit", "app1", "report").stdout)["accounts"]
    for command in ("id", "sh", "sudo -n id", "/usr/bin/systemctl stop ssh", "sshd; id"):
        seen = crew.ssh("audit", "app1", command)
        assert seen.returncode != 0, command
        assert "uid=" not in seen.stdout
        assert "ask for one of" in seen.stderr
    assert "PTY allocation request failed" in crew.ssh("audit", "app1", "sshd", "-tt").stderr
    tunnel = crew.ssh("audit", "app1", "", "-W", f"{crew.lab['hosts']['data1']['ipv4']}:22")
    assert "SSH-2.0" not in tunnel.stdout


def test_the_report_finds_nothing_and_an_identity_of_automation_can_make_it(crew, joined):
    done = crew.play(
        "access_report", ansible_user=crew.name("audit"), ansible_ssh_private_key_file=str(crew.key("audit"))
    )
    assert done.returncode == 0, done.stdout
    newest = max((crew.directory / "reports").glob("*.json"))
    report = json.loads(newest.read_text())
    assert report["findings"] == []
    people = {one["name"]: one for one in report["hosts"]["app1"]}
    assert people[crew.name("alice")]["role"] == "deployer"
    assert people[crew.name("alice")]["last_login"]["time"]
    assert "| " + crew.name("bob") + " | admin |" in newest.with_suffix(".md").read_text()


def test_strangers_are_findings_each_by_name(crew, joined, app1):
    key = crew.key("mallory").with_suffix(".pub").read_text().strip()
    stranger = f"mallory-{crew.run}"
    app1.check_output(f"useradd -m -s /bin/bash -G operators {stranger} && usermod -p '*' {stranger}")
    app1.check_output(f"sh -c 'echo \"{key}\" >/etc/slipway/authorized_keys/{stranger}'")
    app1.check_output(f"sh -c 'echo \"{crew.name('alice')} ALL=(root) NOPASSWD: ALL\" >/etc/sudoers.d/99-other'")
    try:
        done = crew.play("access_report")
        assert done.returncode != 0
        report = json.loads(max((crew.directory / "reports").glob("*.json")).read_text())
        found = {(each["kind"], each["who"]) for each in report["findings"]}
        assert ("stranger", stranger) in found
        assert ("sudo", stranger) in found
        assert ("sudo", crew.name("alice")) in found
        assert crew.play("access_report", deployers_report_tolerates=True).returncode == 0
    finally:
        app1.check_output("rm /etc/sudoers.d/99-other")
    # A site run takes the stranger's way in.
    mended = crew.apply()
    assert mended.returncode == 0, mended.stdout
    assert REFUSED in crew.ssh("mallory", "app1", "true").stderr
    assert stranger not in app1.check_output("getent group operators")


@pytest.mark.full
def test_time_is_up_by_the_host_itself(crew, joined, app1):
    """sshd refuses at the second; sessions end with the next minute; nobody runs a playbook for that."""
    for number, patience in ((50, 45), (51, 300)):
        until = utc(patience)
        crew.person("dave", number, until=f"{until:%Y-%m-%dT%H:%M:%SZ}")
        assert crew.apply().returncode == 0
        if (until - utc()).total_seconds() > 8:
            break
    session = crew.session("dave", "sleep 900 & setsid nohup sleep 901 & wait")
    assert crew.ssh("dave", "app1", "true").returncode == 0
    while utc() <= until:
        assert session.poll() is None
        time.sleep(0.5)
    time.sleep(1)
    assert REFUSED in crew.ssh("dave", "app1", "true").stderr
    session.wait(timeout=75)
    name = crew.name("dave")
    app1.check_output(f"timeout 20 sh -c 'while pgrep -u {name}; do sleep 0.5; done'")
    seen = shows(app1, name)
    assert (seen["locked"], seen["keys"], seen["groups"]) == (True, [], [name])
    assert seen["record"]["why"] == "expired"


def test_with_the_clock_turned_keys_and_accounts_end_and_the_others_do_not_age(crew, joined, app1):
    """A second sshd for which it is 400 days later: bob's time is up, alice and CI have no end."""
    app1.check_output("apt-get install -y -q --no-install-recommends faketime")
    library = app1.check_output("find /usr/lib -name libfaketime.so.1")
    environment = "FAKETIME=+400d FAKETIME_DISABLE_SHM=1 FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1"
    keys = f"/etc/slipway/authorized_keys/{crew.name('bob')}"
    app1.check_output(f"cp {keys} /run/keys.kept")
    # Where there is a firewall it has no such port on its list.
    opening = "if command -v iptables >/dev/null; then iptables {} INPUT -p tcp --dport 2022 -j ACCEPT; fi"
    app1.check_output(f"env LD_PRELOAD={library} {environment} /usr/sbin/sshd -p 2022 -o PidFile=/run/sshd-2022.pid")
    app1.check_output(opening.format("-I"))
    other = ("-p", "2022", "-o", "StrictHostKeyChecking=no")
    try:
        assert crew.ssh("alice", "app1", "true", *other).returncode == 0
        assert REFUSED in crew.ssh("bob", "app1", "true", *other).stderr
        # Without its end on the key, the account's own end is what refuses.
        app1.check_output(f"sed -i 's/,expiry-time=\"[0-9]*\"//' {keys}")
        seen = crew.ssh("bob", "app1", "true", *other)
        assert seen.returncode == 255
        assert crew.ssh("bob", "app1", "true").returncode == 0
    finally:
        app1.check_output(f"kill $(cat /run/sshd-2022.pid) && cp /run/keys.kept {keys}")
        app1.check_output(opening.format("-D"))
    later = f"{utc(25 * 86400):%Y-%m-%dT%H:%M:%SZ}"
    app1.check_output("cp -p /etc/slipway/people.json /run/people.kept")
    session = crew.session("bob")
    time.sleep(3)
    assert session.poll() is None
    app1.check_output(f"/usr/local/libexec/slipway/access expire --now {later}")
    session.wait(timeout=20)
    assert REFUSED in crew.ssh("bob", "app1", "true").stderr
    # The days are turned back, as if this had not been.
    app1.check_output("cp -p /run/people.kept /etc/slipway/people.json")
    assert crew.apply().returncode == 0
    assert crew.ssh("bob", "app1", "sudo -n true").returncode == 0


def test_nobody_saws_off_the_branch_they_sit_on(crew, joined, app1):
    before = app1.check_output("sha256sum /etc/passwd /etc/shadow /etc/group /etc/slipway/people.json")
    kept = dict(crew.people["bob"])
    crew.leave("bob", 6)
    done = crew.apply(ansible_user=crew.name("bob"), ansible_ssh_private_key_file=str(crew.key("bob")))
    crew.people["bob"] = kept
    assert done.returncode != 0
    assert "whom it would shut out" in " ".join(done.stdout.split())
    assert app1.check_output("sha256sum /etc/passwd /etc/shadow /etc/group /etc/slipway/people.json") == before
    assert crew.ssh("bob", "app1", "sudo -n true").returncode == 0


def test_a_leaver_is_out_with_all_that_ran(crew, joined, app1):
    alice = crew.name("alice")
    app1.check_output("mkdir -p /var/spool/cron/crontabs")
    app1.check_output(f"sh -c 'echo \"* * * * * true\" >/var/spool/cron/crontabs/{alice}'")
    session = crew.session("alice", "trap '' TERM HUP; setsid nohup sleep 902 & while :; do sleep 1; done")
    time.sleep(3)
    assert session.poll() is None
    crew.leave("alice", 7)
    done = crew.play("offboard", person=alice, person_private_key_file=str(crew.key("alice")))
    assert done.returncode == 0, done.stdout
    session.wait(timeout=5)
    assert REFUSED in crew.ssh("alice", "app1", "true").stderr
    assert REFUSED in crew.ssh("alice", "data1", "true").stderr
    assert app1.run(f"pgrep -u {alice}").stdout == ""
    assert not app1.file(f"/var/spool/cron/crontabs/{alice}").exists
    shadow = app1.check_output(f"getent shadow {alice}").split(":")
    assert (shadow[1], shadow[7]) == ("*", "1")
    assert app1.user(alice).shell == "/usr/sbin/nologin"
    said = " ".join(done.stdout.split())
    for name in ("DJANGO_SECRET_KEY (app_secrets)", "DATABASE_URL (app_settings)", "REDIS_URL (app_settings)"):
        assert name in said
    assert "sops edit" in said
    assert "password manager" in said


def test_the_logs_say_who_did_what_under_which_ticket(crew, joined, app1):
    joined_line, left_line = crew.logged()
    assert (joined_line["action"], left_line["action"]) == ("onboard", "offboard")
    assert left_line["ticket"] == crew.ticket(7)
    assert left_line["hosts"] == {"app1": "done", "data1": "done"}
    assert left_line["actor"]
    newest = app1.check_output("ls /var/log/slipway/access*").split()[-1]
    lines = [json.loads(line) for line in app1.check_output(f"cat {newest}").splitlines()]
    mine = [(line["action"], line["ticket"]) for line in lines if line.get("person") == crew.name("alice")]
    assert ("joined", crew.ticket(1)) in mine
    assert ("shut-out", crew.ticket(7)) in mine
    assert app1.run(f"sh -c ': >{newest}'").rc != 0
    assert app1.run(f"rm {newest}").rc != 0


def test_in_an_emergency_the_file_is_not_waited_for(crew, joined):
    done = crew.play("offboard", "--limit", "app1", person=crew.name("carol"), offboard_ticket=crew.ticket(8))
    assert done.returncode == 0, done.stdout
    assert "own ssh keys: on each host" in " ".join(done.stdout.split())
    assert REFUSED in crew.ssh("carol", "app1", "true").stderr


def test_no_site_run_brings_a_leaver_back(crew, joined):
    """An old copy of the file still has alice; carol is still in the file; bob's entry is just gone."""
    left = dict(crew.people["alice"])
    for field in ("state", "left", "left_ticket"):
        del crew.people["alice"][field]
    gone = crew.people.pop("bob")
    done = crew.apply()
    crew.people["alice"], crew.people["bob"] = left, gone
    assert done.returncode == 0, done.stdout
    said = " ".join(done.stdout.split() + done.stderr.split())
    assert f"ticket {crew.ticket(1)} is of before that" in said
    for who in ("alice", "bob", "carol"):
        assert REFUSED in crew.ssh(who, "app1", "true").stderr, who


def test_an_account_that_came_back_by_hand_is_shut_again(crew, joined, app1):
    alice = crew.name("alice")
    app1.check_output(f"usermod -s /bin/bash -e '' -aG operators {alice}")
    app1.check_output(f"cp {'/etc/slipway/authorized_keys/deployer'} /etc/slipway/authorized_keys/{alice}")
    app1.check_output("systemctl start slipway-access.service")
    seen = shows(app1, alice)
    assert (seen["way_in"], seen["locked"], seen["groups"], seen["key_file"]) == (False, True, [alice], False)


def test_a_new_ticket_brings_somebody_back(crew, joined):
    crew.person("alice", 9)
    done = crew.apply()
    assert done.returncode == 0, done.stdout
    seen = crew.ssh("alice", "app1", "id -un && touch there && sudo -n -l | tail -n 1")
    assert seen.stdout.split()[0] == crew.name("alice"), seen.stderr
    assert seen.stdout.split()[-1] == "/usr/local/sbin/releasectl"
