"""What goes wrong is made to go wrong, and has to reach a webhook on another machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import engine, hosts, pki
from lab.state import Lab
from tests.outside import changes, play, secrets, ssh
from tests.webhook import CANARY, LOOK, PATH, PORT

ROOT = Path(__file__).resolve().parents[3]
PLACE = "/srv/slipway-alerts"
TLS = "/etc/slipway/tls"
SHOWN = "openssl s_client -connect 127.0.0.1:443 -servername bookshop.localhost </dev/null 2>/dev/null"


def test_a_test_message_arrives_from_every_host(app1, data1, webhook):
    for name, host in (("app1", app1), ("data1", data1)):
        assert "Sent: " in host.check_output("alerts test")
        assert len(webhook.told("test", host=name)) == 1
    assert webhook.paths == {PATH}


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("slack", lambda body: body["text"]),
        ("teams", lambda body: body["attachments"][0]["content"]["body"][0]["text"]),
    ],
    ids=["slack", "teams"],
)
def test_slack_and_teams_get_what_they_take(app1, webhook, form, line):
    configuration = "/etc/slipway/alerts.json"
    app1.check_output(f"cp -p {configuration} /run/alerts.kept")
    app1.check_output(f'sed -i \'s/"format": "json"/"format": "{form}"/\' {configuration}')
    try:
        app1.check_output("alerts test")
    finally:
        app1.check_output(f"cp -p /run/alerts.kept {configuration} && rm /run/alerts.kept")
    (body,) = webhook.bodies
    assert line(body).startswith("[bookshop app1] This is a test, sent at 20")


def test_a_service_that_fails_is_told_at_once_and_once(app1, webhook, over):
    app1.run("systemd-run --unit=test-broken false")
    told = webhook.wait("unit:test-broken.service", "problem")
    assert told["text"].startswith("test-broken.service has failed (exit-code), since 20")
    assert told["do"] == "systemctl status test-broken.service; journalctl -u test-broken.service -n 50"
    app1.check_output(f"{LOOK} && {LOOK}")
    assert len(webhook.told("unit:test-broken.service")) == 1
    app1.check_output("systemctl reset-failed test-broken.service")
    assert "It lasted" in over("unit:test-broken.service")["text"]


def test_one_that_flaps_does_not_flood(app1, webhook):
    script = (
        "printf '[Service]\\nExecStart=/bin/sh -c \"sleep 0.1; exit 3\"\\n' >/run/systemd/system/test-flaps.service"
    )
    app1.check_output(f"{script}; systemctl daemon-reload")
    for _ in range(3):
        app1.check_output("systemctl start test-flaps.service; sleep 0.8; systemctl reset-failed test-flaps.service")
        app1.check_output(LOOK)
    assert len(webhook.told("unit:test-flaps.service")) == 1
    app1.check_output("rm /run/systemd/system/test-flaps.service && systemctl daemon-reload")
    # It came three times: it has to stay away four times as long.
    app1.check_output(f"sleep 5; {LOOK}")
    assert not webhook.told("unit:test-flaps.service", "over")
    app1.check_output(f"sleep 4; {LOOK}")
    assert "came 3 times" in webhook.wait("unit:test-flaps.service", "over")["text"]


def test_a_failed_alert_starts_no_alert(app1):
    assert app1.check_output("systemctl show -P OnFailure nginx.service") == "slipway-alert@nginx.service.service"
    assert app1.check_output("systemctl show -P OnFailure slipway-alert@nginx.service.service") == ""


def test_a_full_file_system_is_told_by_space_and_by_inodes(app1, webhook, over):
    app1.check_output(f"mkdir -p {PLACE} && mount -t tmpfs -o size=4M,nr_inodes=40 none {PLACE}")
    try:
        app1.check_output(f"head -c 3900000 /dev/zero >{PLACE}/full && {LOOK}")
        told = webhook.wait(f"disk:{PLACE}", "problem")
        assert told["text"].startswith(f"the disk {PLACE} is 9")
        assert told["do"] == f"du -xh -d 2 {PLACE} | sort -h | tail"
        assert not webhook.told(f"inodes:{PLACE}")
        app1.check_output(f"rm {PLACE}/full; for n in $(seq 38); do : >{PLACE}/$n; done; {LOOK}")
        webhook.wait(f"inodes:{PLACE}", "problem")
    finally:
        app1.check_output(f"umount {PLACE} && rmdir {PLACE}")
    over(f"disk:{PLACE}")
    assert webhook.told(f"inodes:{PLACE}", "over")


@pytest.fixture
def short_certificate(lab, app1):
    """A generation of the edge's certificate with ten days left, which `live` leads to."""
    known = secrets(lab)
    authority = (known["ca_certificate"], known["ca_private_key"])
    certificate, key = pki.new_server(authority, ["app1", lab["edge_name"]], [lab["edge_address"]], days=10)
    before = app1.check_output(f"readlink {TLS}/live")
    app1.check_output(f"cp -a {TLS}/{before} {TLS}/store/short")
    for name, content in (("fullchain.pem", certificate), ("privkey.pem", key)):
        app1.check_output(f"cat >{TLS}/store/short/{name} <<'PEM'\n{content}PEM")
    app1.check_output(f"ln -sfn store/short {TLS}/live")
    yield before
    app1.check_output(f"ln -sfn {before} {TLS}/live && rm -r {TLS}/store/short && systemctl reload nginx")
    app1.check_output("systemctl reset-failed slipway-tls-check.service")


def test_a_certificate_near_its_end_is_told_on_disk_and_at_the_edge(lab, app1, webhook, short_certificate):
    app1.check_output(LOOK)
    told = webhook.wait(f"certificate:{TLS}/live/fullchain.pem", "problem")
    assert "expires in 9 days, at 20" in told["text"]
    # The edge still shows the old one. When a new one lies on disk and the edge shows the short one, that is told.
    app1.check_output("systemctl reload nginx")
    app1.check_output(
        f"timeout 10 sh -c 'until {SHOWN} | openssl x509 -noout -checkend 864000; [ $? = 1 ]; do :; done'"
    )
    app1.check_output(f"ln -sfn {short_certificate} {TLS}/live && {LOOK}")
    told = webhook.wait(f"served:{lab['edge_name']}", "problem")
    assert "which is not the one on disk, expires in 9 days" in told["text"]
    assert told["do"] == "nginx -t && systemctl reload nginx"
    # The daily look at the edge sees the same, and a unit that fails is told by itself.
    assert app1.run("systemctl start slipway-tls-check.service").rc != 0
    told = webhook.wait("unit:slipway-tls-check.service", "problem")
    assert told["text"].startswith("slipway-tls-check.service has failed (exit-code), since 20")


def test_a_disk_that_is_full_to_the_last_byte_is_told_once_all_the_same(app1, webhook, over):
    """The very disk that the state is on."""
    place = "/var/lib/slipway-alerts"
    app1.check_output(
        f"mount -t tmpfs -o size=64k,mode=0750,uid=slipway-alerts,gid=slipway-alerts none {place}"
        f" && ! head -c 1M /dev/zero >{place}/full"
    )
    try:
        app1.check_output(f"{LOOK} && {LOOK}")
        assert webhook.wait(f"disk:{place}", "problem")["text"].startswith(
            f"the disk {place} is 100 % full, 0 MiB left"
        )
        assert len(webhook.told(f"disk:{place}")) == 1
        app1.check_output(f"rm {place}/full")
        over(f"disk:{place}")
    finally:
        app1.check_output(f"umount {place}")


def test_a_backup_that_is_overdue_is_told(app1, webhook, over):
    for name, age in (("old", "60 hours ago"), ("new", "30 hours ago")):
        app1.check_output(f"touch -d '{age}' /var/lib/slipway/test-backup-{name}")
    app1.check_output("rm -f /var/lib/slipway-alerts/state.json")
    app1.check_output(LOOK)
    told = webhook.wait("file:/var/lib/slipway/test-backup-*", "problem")
    assert told["text"].startswith("the nightly backup is overdue: /var/lib/slipway/test-backup-* is 30 hours old")
    assert told["do"] == "systemctl start test-backup"
    app1.check_output("touch /var/lib/slipway/test-backup-new")
    over("file:/var/lib/slipway/test-backup-*")


def test_a_reboot_and_a_crash_are_told_apart(lab, app1, webhook):
    # What has run with the lab's first boot.
    app1.check_output(LOOK)
    subprocess.run([sys.executable, "lab/lab.py", "restart", "app1"], cwd=ROOT, check=True)
    app1.check_output(LOOK)
    assert "it was shut down in order at 20" in webhook.wait("rebooted", "event")["text"]
    webhook.forget()
    container = lab["hosts"]["app1"]["container"]
    engine.run("kill", container)
    engine.run("start", container)
    hosts.wait(Lab(lab["name"]), "app1", lab["edge_address"])
    app1.check_output(LOOK)
    told = webhook.wait("rebooted", "event")
    assert "without having been shut down (power, reset, or a panic); it was last seen well at 20" in told["text"]
    app1.check_output(LOOK)
    assert len(webhook.told("rebooted")) == 1


def test_a_webhook_that_is_down_hears_it_later(app1, webhook):
    webhook.down()
    app1.run("systemd-run --unit=test-unheard false")
    time.sleep(2)
    app1.check_output(f"systemctl reset-failed test-unheard.service; {LOOK}; sleep 2.5; {LOOK}")
    seen = json.loads(app1.check_output("alerts status --json"))
    assert seen["waiting"] >= 2
    assert "Connection refused" in seen["trouble"]
    assert "Nobody was told anything since" in app1.check_output("run-parts /etc/update-motd.d")
    webhook.up()
    app1.check_output(LOOK)
    heard = [(one["key"], one["kind"]) for one in webhook.messages if one["host"] == "app1"]
    assert heard[0] == ("webhook", "event")
    assert [kind for key, kind in heard if key == "unit:test-unheard.service"] == ["problem", "over"]
    assert "Nobody" not in app1.check_output("run-parts /etc/update-motd.d")


def test_the_timer_runs_and_comes_again(app1):
    assert app1.service("slipway-alerts.timer").is_enabled
    shown = app1.check_output("systemctl list-timers --no-legend slipway-alerts.timer")
    assert "slipway-alerts.service" in shown
    assert not shown.startswith("n/a")


def test_the_account_can_do_nothing_else(app1):
    assert app1.check_output("systemctl show -P User slipway-alerts.service") == "slipway-alerts"
    for unit in ("slipway-alerts.service", "slipway-alert@x.service"):
        assert app1.run(f"systemd-analyze security --no-pager --threshold=20 {unit}").rc == 0


def test_the_address_is_roots_alone(lab, app1):
    assert app1.check_output("stat -c '%U %a' /etc/slipway/alerts.webhook") == "root 600"
    assert ssh(lab, "ops", "app1", "cat /etc/slipway/alerts.webhook").returncode != 0
    # Neither what runs nor what it says holds it.
    assert app1.run(f"journalctl -o cat | grep -F {CANARY}").rc == 1
    assert app1.run(f"grep -rF {CANARY} /etc/slipway/alerts.json /var/lib/slipway-alerts /etc/systemd/system").rc == 1


def test_a_webhook_that_the_firewall_keeps_back_is_refused_before_anything_changes(lab, app1):
    before = app1.check_output("stat -c %Y /etc/slipway/alerts.webhook")
    run = play(
        lab, "playbooks/site.yml", "--tags", "alerts", "--diff",
        alerts_webhook=f"https://hooks.example.com/services/{CANARY}",
    )  # fmt: skip
    said = run.stdout + run.stderr
    assert run.returncode != 0
    assert "alerts_webhook leads to hooks.example.com on port 443, and the firewall lets nothing out to there" in said
    assert CANARY not in said
    assert app1.check_output("stat -c %Y /etc/slipway/alerts.webhook") == before


def test_another_address_shows_in_no_diff(lab, app1):
    address = app1.check_output("cut -d/ -f3 /etc/slipway/alerts.webhook")
    assert address.endswith(f":{PORT}")
    run = play(
        lab, "playbooks/site.yml", "--tags", "alerts", "--diff", "--check",
        alerts_webhook=f"https://{address}/services/another-{CANARY}",
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    # Other files of the role differ as well, and are shown.
    assert "/etc/slipway/alerts.json" in run.stdout
    assert changes(run.stdout)["app1"] == 1
    assert CANARY not in run.stdout + run.stderr


def test_without_a_webhook_those_who_log_in_hear_that_nobody_is_told(lab, app1, webhook):
    """Last: the hosts are left as the lab's own variables have them."""
    run = play(lab, "playbooks/site.yml", "--tags", "alerts")
    assert run.returncode == 0, run.stdout + run.stderr
    app1.run("systemd-run --unit=test-alone false")
    app1.check_output(f"sleep 1; {LOOK}")
    assert not webhook.messages
    said = app1.check_output("run-parts /etc/update-motd.d")
    assert "Nobody is told when something is wrong with this host" in said
    assert "test-alone.service has failed" in said
    assert "test-alone.service has failed" in app1.check_output("journalctl -t slipway-alerts -o cat -n 5")
    app1.check_output("systemctl reset-failed test-alone.service; rm -f /var/lib/slipway/test-backup-*")
