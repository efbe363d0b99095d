"""Upgrades by plan: what waits is said, a host is upgraded and rebooted, and nothing begins where all is not well."""

from __future__ import annotations

import json
import re
import subprocess
import time

import pytest

PLAYBOOK = "playbooks/patch.yml"
ARCHIVE = "/var/lib/slipway-archive"


def publish(host, name: str, *versions: str) -> None:
    """An archive on the host itself that holds these versions of an empty package."""
    script = [f"set -e; rm -rf {ARCHIVE}/{name}; mkdir -p {ARCHIVE}/{name}; cd {ARCHIVE}/{name}"]
    for version in versions:
        control = (
            rf"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: t <t@example.org>\nDescription: t\n"
        )
        script.append(f"mkdir -p x/DEBIAN; printf '{control}' > x/DEBIAN/control")
        script.append(f"dpkg-deb --build -Zgzip x {name}_{version}_all.deb >/dev/null")
        entry = control.removesuffix(r"\n") + rf"\nFilename: ./{name}_{version}_all.deb\n"
        script.append(
            f"printf '{entry}' >> Packages; stat -c 'Size: %s' {name}_{version}_all.deb >> Packages;"
            f" sha256sum {name}_{version}_all.deb | sed 's/ .*//; s/^/SHA256: /' >> Packages; echo >> Packages"
        )
    script.append("rm -rf x")
    assert host.run("\n".join(script)).rc == 0


def offer(host, name: str, **release: str) -> None:
    """Have apt read that archive; what it says of itself is in its Release file."""
    fields = "".join(rf"{key}: {value}\n" for key, value in release.items())
    script = f"""set -e
cd {ARCHIVE}/{name}
printf '{fields}Date: %s\\nSHA256:\\n %s %s Packages\\n' "$(LC_ALL=C date -Ru | sed 's/+0000/UTC/')" \
  "$(sha256sum Packages | cut -d' ' -f1)" "$(stat -c %s Packages)" > Release
echo 'deb [trusted=yes] file:{ARCHIVE}/{name} ./' > /etc/apt/sources.list.d/{name}.list
apt-get -qq update -o Dir::Etc::sourcelist=sources.list.d/{name}.list -o Dir::Etc::sourceparts=- \
  -o APT::Get::List-Cleanup=0
"""
    run = host.run(script)
    assert run.rc == 0, run.stderr


@pytest.fixture
def probe(app1):
    """An installed package of which a newer version waits in an archive that is no security archive."""
    publish(app1, "slipway-probe", "1.0", "2.0")
    app1.check_output(f"dpkg -i {ARCHIVE}/slipway-probe/slipway-probe_1.0_all.deb")
    offer(app1, "slipway-probe", Origin="Elsewhere", Label="Elsewhere", Codename="any")
    yield "slipway-probe"
    withdraw(app1, "slipway-probe")


def withdraw(host, name: str) -> None:
    host.check_output(
        f"dpkg --purge {name}; rm -rf {ARCHIVE} /etc/apt/sources.list.d/{name}.list /var/lib/apt/lists/*{name}*"
    )


@pytest.fixture
def comes_back(lab):
    """A container ends when it is rebooted; for a while the engine starts it again, as a server's firmware would."""
    container = lab["hosts"]["app1"]["container"]
    subprocess.run(["docker", "update", "--restart=always", container], check=True, capture_output=True)
    yield
    subprocess.run(["docker", "update", "--restart=no", container], check=True, capture_output=True)


def version(host, name: str) -> str:
    return host.check_output(f"dpkg-query -W -f '${{Version}}' {name}")


def started(host) -> str:
    return host.check_output("systemctl show --property=UserspaceTimestampMonotonic,UserspaceTimestamp --value")


def test_a_host_is_upgraded_rebooted_and_serves_again(app1, ops, edge, live, probe, comes_back):
    app1.check_output("touch /run/reboot-required && echo linux-image-probe > /run/reboot-required.pkgs")
    before = started(app1)
    said = ops.playbook(PLAYBOOK, "--limit", "app1", "--check")
    assert said.code == 0, said.output
    assert "slipway-probe 1.0 -> 2.0" in said.output
    assert "asks for a reboot for linux-image-probe" in said.output
    assert (version(app1, probe), started(app1)) == ("1.0", before)

    done = ops.playbook(PLAYBOOK, "--limit", "app1")
    assert done.code == 0, done.output
    edge.wait(5, release=live)
    assert version(app1, probe) == "2.0"
    assert started(app1) != before
    assert not app1.file("/run/reboot-required").exists
    report = re.search(r"app1: .*slipway-probe 1\.0 -> 2\.0.*; rebooted; away for (\d+) s", done.output)
    assert report, done.output
    assert 0 < int(report[1]) < 300
    status = ops.status()
    assert status["lease"] is None
    assert status["live"]["release"] == live
    # Who logs in is reminded of nothing, the next run has nothing to do and does not take the host away.
    assert app1.check_output("/usr/local/libexec/slipway/host-notice") == ""
    after = started(app1)
    again = ops.playbook(PLAYBOOK, "--limit", "app1")
    assert again.code == 0, again.output
    assert "app1: nothing to upgrade." in again.output
    assert started(app1) == after


@pytest.mark.full
def test_without_a_flag_the_app_is_renewed_and_nobody_is_sent_away(app1, ops, edge, live, probe):
    before, generation = started(app1), ops.status()["live"]["generation"]
    done = ops.playbook(PLAYBOOK, "--limit", "app1")
    assert done.code == 0, done.output
    assert version(app1, probe) == "2.0"
    assert started(app1) == before
    status = ops.status()
    assert (status["live"]["release"], status["lease"]) == (live, None)
    assert status["live"]["generation"] != generation
    edge.wait(5, release=live)


def test_it_waits_for_a_deploy(app1, ops, live, probe):
    lease = ops.releasectl("lock", "--purpose=deploying", "--seconds=900")
    try:
        run = ops.playbook(PLAYBOOK, "--limit", "app1")
    finally:
        ops.releasectl("unlock", "--token", lease["token"])
    assert run.code != 0
    assert "holds the lease for 'deploying'" in run.output
    assert "Patching stopped at app1" in run.output
    assert version(app1, probe) == "1.0"


@pytest.mark.full
def test_it_does_not_begin_while_users_are_not_served(app1, ops, edge, live, probe):
    app1.check_output("systemctl stop app.service")
    try:
        run = ops.playbook(PLAYBOOK, "--limit", "app1")
    finally:
        app1.check_output("systemctl start app.service")
    edge.wait(30, release=live)
    assert run.code != 0
    assert "answered 503" in run.output
    assert version(app1, probe) == "1.0"


def test_it_does_not_begin_while_another_host_is_away(app1, lab, ops, live, probe):
    container = lab["hosts"]["data1"]["container"]
    subprocess.run(["docker", "exec", container, "systemctl", "stop", "ssh.socket", "ssh.service"], check=True)
    # A host that is away takes with it the connections that Ansible keeps open; there may be none.
    subprocess.run(["docker", "exec", container, "pkill", "-x", "sshd"], check=False)
    try:
        run = ops.playbook(PLAYBOOK, "--limit", "app1")
    finally:
        subprocess.run(["docker", "exec", container, "systemctl", "start", "ssh.service"], check=True)
    assert run.code != 0
    assert "data1" in run.output
    assert "UNREACHABLE" in run.output or "unreachable" in run.output
    assert version(app1, probe) == "1.0"


def test_security_updates_install_themselves_and_the_rest_waits(app1, probe):
    """The nightly run itself is asked, with an archive that calls itself this system's security archive."""
    release = dict(
        line.split("=", 1)
        for line in app1.check_output("cat /etc/os-release").replace('"', "").splitlines()
        if "=" in line
    )
    codename = release["VERSION_CODENAME"]
    says = {
        "debian": {"Origin": "Debian", "Label": "Debian-Security", "Codename": f"{codename}-security"},
        "ubuntu": {"Origin": "Ubuntu", "Label": "Ubuntu", "Suite": f"{codename}-security", "Codename": codename},
    }[release["ID"]]
    publish(app1, "slipway-fix", "1.0", "2.0")
    app1.check_output(f"dpkg -i {ARCHIVE}/slipway-fix/slipway-fix_1.0_all.deb")
    offer(app1, "slipway-fix", **says)
    try:
        said = app1.run("unattended-upgrade --dry-run --verbose --debug")
        output = said.stdout + said.stderr
        wanted = re.search(
            r"^(?:pkgs that look like they should be upgraded|Packages that will be upgraded):(.*(?:\n\S+)?)",
            output,
            re.M,
        )
    finally:
        app1.check_output("dpkg --purge slipway-fix; rm -f /etc/apt/sources.list.d/slipway-fix.list")
    assert wanted, output
    assert "slipway-fix" in wanted[1]
    assert "slipway-probe" not in wanted[1]


def test_a_waiting_reboot_is_said_to_who_logs_in_and_to_the_journal(app1):
    app1.check_output("touch /run/reboot-required && echo libc6 > /run/reboot-required.pkgs")
    begun = app1.check_output("date +%s")
    try:
        assert "wants a reboot" in app1.check_output("run-parts /etc/update-motd.d")
        # As after every run of apt.
        app1.check_output("apt-get -qq install --reinstall --no-install-recommends less")
        end = time.monotonic() + 30
        lines: list[str] = []
        while not any("wants a reboot" in line and "libc6" in line for line in lines):
            assert time.monotonic() < end, lines
            time.sleep(0.5)
            journal = app1.check_output(f"journalctl -t slipway-notice --since @{begun} -o json --no-pager")
            lines = [str(json.loads(line)["MESSAGE"]) for line in journal.splitlines()]
    finally:
        app1.check_output("rm -f /run/reboot-required /run/reboot-required.pkgs")


def test_a_patch_that_is_due_is_said(app1):
    kept = app1.run("stat -c %Y /var/lib/slipway/patched").stdout.strip()
    app1.check_output("touch -d '40 days ago' /var/lib/slipway/patched")
    assert "monthly playbooks/patch.yml is due" in app1.check_output("/usr/local/libexec/slipway/host-notice")
    app1.check_output("touch /var/lib/slipway/patched")
    assert "due" not in app1.check_output("/usr/local/libexec/slipway/host-notice")
    restore = f"touch -d @{kept} /var/lib/slipway/patched" if kept else "rm /var/lib/slipway/patched"
    app1.check_output(restore)
