"""The app's settings: complete, root's alone, in whole versions, and never shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

CANARY = "canary-7d0f-do-not-show"


def test_the_settings_are_those_of_the_environment(app1):
    directory = app1.check_output("readlink -f /etc/app/env")
    names = app1.check_output(f"ls {directory}").split()
    assert {"DJANGO_SECRET_KEY", "DJANGO_ALLOWED_HOSTS", "DATABASE_URL", "REDIS_URL"} <= set(names)
    assert app1.file("/etc/app/env/DJANGO_ALLOWED_HOSTS").content_string == "bookshop.localhost\n"
    url = app1.file("/etc/app/env/DATABASE_URL").content_string
    assert url.startswith("postgres://app:")
    assert "sslmode=verify-full&sslrootcert=/etc/app/ca.pem" in url
    # A template that nobody filled, or a vault that nobody opened.
    everything = app1.check_output(f"cat {directory}/*")
    assert "{{" not in everything
    assert "$ANSIBLE_VAULT" not in everything


def test_root_alone_can_read_them(app1):
    directory = app1.check_output("readlink -f /etc/app/env")
    assert app1.file("/etc/app/env").is_symlink
    assert app1.check_output("readlink /etc/app/env").startswith("env.")
    assert app1.file(directory).mode == 0o700
    modes = app1.check_output(f"find {directory} -type f -printf '%m %u %g\\n' | sort -u")
    assert modes == "600 root root"
    for user in ("app", "app-build", "deployer", "www-data", "nobody"):
        assert app1.run(f"runuser -u {user} -- cat /etc/app/env/DJANGO_SECRET_KEY").rc != 0, user


def test_the_app_trusts_the_authority_of_its_data_and_no_other(app1, lab):
    trusted = app1.file("/etc/app/ca.pem")
    assert trusted.content_string == Path(lab["ca"]).read_text().strip() + "\n"
    assert trusted.mode == 0o644


@pytest.fixture
def probe(app1, ops, tmp_path):
    """Apply the role to an envdir beside the app's own, with the settings given."""

    def apply(settings, *options):
        variables = tmp_path / "settings.json"
        given = {"envdir_settings": settings, "app_env_dir": "/etc/app/probe", "app_ca_file": "/etc/app/probe.pem"}
        variables.write_text(json.dumps(given))
        return ops.playbook("molecule/envdir/converge.yml", "-e", f"@{variables}", *options)

    yield apply
    app1.check_output("rm -rf /etc/app/probe /etc/app/probe.*")


def test_a_change_waits_as_a_new_version_and_what_was_removed_is_gone(app1, probe):
    run = probe({"A": "one", "KEY": "line 1\nline 2\n", "GONE": CANARY}, "--diff")
    assert run.code == 0, run.output
    assert CANARY not in run.output
    assert "+GONE" in run.output
    held = app1.check_output("readlink -f /etc/app/probe")
    assert app1.check_output("od -An -c /etc/app/probe/KEY").split()[-7:] == [*"line2", "\\0", "\\n"]

    would = probe({"A": "two", "KEY": "line 1\nline 2\n"}, "--check", "--diff")
    assert would.code == 0, would.output
    assert "+A (new value)" in would.output
    assert "-GONE" in would.output
    assert app1.check_output("readlink -f /etc/app/probe") == held, "check mode changed something"

    run = probe({"A": "two", "KEY": "line 1\nline 2\n"})
    assert "changed=1" in run.output, run.output
    assert app1.check_output("readlink -f /etc/app/probe") == held, "it was not tried yet"
    assert app1.check_output("ls /etc/app/probe.next/").split() == ["A", "KEY"]
    assert app1.file("/etc/app/probe.next/A").content_string == "two\n"
    assert app1.file(f"{held}/A").content_string == "one\n", "a generation that runs keeps what it started with"
    assert "changed=0" in probe({"A": "two", "KEY": "line 1\nline 2\n"}).output


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"SECRET": CANARY + " "}, "ends with a blank"),
        ({"SECRET": CANARY + "\u0000"}, "NUL"),
        ({"NOT-A-NAME": CANARY}, "cannot be the name"),
        ({"FEATURE": True, "SECRET": CANARY}, "truth value"),
        ({"RELEASE_ID": CANARY}, "set by the release itself"),
    ],
)
def test_what_an_envdir_cannot_carry_is_refused_by_name(app1, probe, settings, word):
    run = probe(settings, "-v")
    assert run.code != 0
    assert word in " ".join(run.output.split())
    assert CANARY not in run.output
    assert not app1.file("/etc/app/probe").exists


def test_a_secret_shows_neither_in_the_output_nor_in_the_journal_of_the_host(app1, probe):
    run = probe({"SECRET": CANARY}, "-vvv", "--diff")
    assert run.code == 0, run.output
    assert CANARY not in run.output
    assert app1.file("/etc/app/probe/SECRET").content_string == CANARY + "\n"
    assert CANARY not in app1.check_output("journalctl -q --since -5min -o cat --no-pager")


def test_a_hand_that_opened_or_edited_a_setting_is_undone(app1, probe):
    probe({"A": "one"})
    app1.check_output("chmod 644 /etc/app/probe/A && chmod 755 $(readlink -f /etc/app/probe)")
    assert "changed=1" in probe({"A": "one"}).output
    assert app1.file("/etc/app/probe/A").mode == 0o600
    app1.check_output("echo two > /etc/app/probe/A")
    assert "changed=1" in probe({"A": "one"}).output
    assert app1.file("/etc/app/probe.next/A").content_string == "one\n"


def test_the_key_of_fingerprints_is_roots_alone(app1):
    key = app1.file("/etc/app/fingerprint.key")
    assert (key.user, key.group, key.mode) == ("root", "root", 0o600)
    assert len(key.content_string.strip()) == 64
    for user in ("app", "deployer", "www-data"):
        assert app1.run(f"runuser -u {user} -- cat /etc/app/fingerprint.key").rc != 0, user
