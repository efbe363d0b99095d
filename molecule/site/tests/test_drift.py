"""What was altered by hand is named by --check, and mended by a run; nothing else is touched."""

from __future__ import annotations

from tests.outside import canaries, changes, play, secrets

SITE = "playbooks/site.yml"
# Those that what is altered here belongs to; at the end all of them are asked.
CONCERNED = "--tags=base,deployers,redis,tls,nginx"


def test_what_was_altered_by_hand_is_named_and_mended(lab, app1, data1):
    app1.check_output("echo '# by hand' >>/etc/nginx/nginx.conf")
    app1.check_output("chmod 0644 /etc/slipway/tls/live/privkey.pem")
    app1.check_output("echo 'deployer ALL=(ALL) NOPASSWD: ALL' >>/etc/sudoers.d/20-slipway-deployers")
    data1.check_output("systemctl disable --now redis-server")
    app1.check_output("apt-get purge -qq -y lsof")

    named = play(lab, SITE, "--check", "--diff", CONCERNED)
    assert named.returncode == 0, named.stdout[-2000:]
    for trace in (
        "/etc/nginx/nginx.conf", "-# by hand",
        "/etc/slipway/tls/live/privkey.pem", "0644",
        "/etc/sudoers.d/20-slipway-deployers",
        "redis-server: enable, for", "redis-server: start, for",
        "lsof",
    ):  # fmt: skip
        assert trace in named.stdout, trace
    # nginx is named twice: its file, and the daemon that is older than it. So is the key: by what shows the certificate
    # before nginx comes, and by what obtains one afterwards.
    assert changes(named.stdout) == {"app1": 6, "data1": 1}
    assert not app1.exists("lsof")
    assert not data1.service("redis-server").is_running

    mended = play(lab, SITE, "--diff", CONCERNED)
    assert mended.returncode == 0, mended.stdout[-2000:]
    assert "by hand" not in app1.file("/etc/nginx/nginx.conf").content_string
    assert app1.file("/etc/slipway/tls/live/privkey.pem").mode == 0o600
    assert "ALL=(ALL)" not in app1.file("/etc/sudoers.d/20-slipway-deployers").content_string
    assert data1.service("redis-server").is_running
    assert data1.service("redis-server").is_enabled
    assert app1.exists("lsof")

    # On a converged host there is nothing to change.
    after = play(lab, SITE, "--check", "--diff")
    assert after.returncode == 0, after.stdout[-2000:]
    assert changes(after.stdout) == {"app1": 0, "data1": 0}
    assert "[WARNING]" not in after.stdout + after.stderr, after.stderr

    # What is secret is in none of what was printed.
    printed = named.stdout + named.stderr + mended.stdout + mended.stderr
    known = list(canaries(secrets(lab)))
    assert len(known) > 5
    assert not [canary for canary in known if canary in printed]
