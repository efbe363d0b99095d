"""Passwords, where there are any: good ones, guessed at not too often. And keys, which none of that concerns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.keys import give_key, take_key
from tests.outside import play, ssh

CONVERGE = "molecule/hardening/converge.yml"
PASSWORD = "Quay-7;Mast-4;Keel"
OTHER = "Sail-9.Hull-2.Deck"


@contextlib.contextmanager
def made(lab, host, name: str, password: str | None = None) -> Iterator[tuple[str, str]]:
    """An operator of that name; what ssh needs to log in as them."""
    key = Path(lab["keys"]["admin"] + ".pub").read_text().strip()
    host.check_output(f"useradd -m -s /bin/bash -G operators {name} && install -d -o {name} -m 0700 ~{name}/.ssh")
    try:
        host.check_output(f"usermod -p '*' {name}")
        if password:
            host.check_output(f"echo '{name}:{password}' | chpasswd")
        give_key(host, name, key)
        yield ("-i", lab["keys"]["admin"])
    finally:
        take_key(host, name)
        # Old passwords are remembered by name, and would be of whoever bears it next.
        host.check_output(
            f"pkill -KILL -u {name}; userdel -r -f {name} 2>/dev/null; sed -i '/^{name}:/d' /etc/security/opasswd"
        )


@pytest.fixture
def daemon(app1):
    """A system account that somebody gave a shell."""
    app1.check_output("useradd -r -s /bin/bash -p '*' daemonic")
    yield "daemonic"
    app1.check_output("userdel daemonic")


@pytest.fixture
def aged(app1):
    """The operators' account, as if its password had been due years ago."""
    app1.check_output("chage --lastday 2020-01-01 --maxdays 30 --inactive 1 ops")
    yield
    app1.check_output("chage --lastday -1 --maxdays -1 --inactive -1 ops")


def test_an_account_that_only_keys_open_does_not_age(lab, app1, aged):
    seen = ssh(lab, "ops", "app1", "sudo -n id -u")
    assert seen.stdout.strip() == "0", seen.stderr


def test_it_would_age_without_our_profile(lab, app1, aged):
    """So the test above shows something."""
    app1.check_output(
        "cp -p /etc/pam.d/common-account /root/kept && sed -i /no_pass_expiry/d /etc/pam.d/common-account"
    )
    try:
        seen = ssh(lab, "ops", "app1", "sudo -n id -u")
        assert seen.stdout.strip() != "0"
    finally:
        app1.check_output("mv /root/kept /etc/pam.d/common-account")


def test_an_account_that_has_ended_is_refused_with_its_key(lab, app1):
    with made(lab, app1, "leaver") as options:
        assert ssh(lab, "leaver", "app1", "id -un", *options).stdout.strip() == "leaver"
        app1.check_output("chage --expiredate 1 leaver")
        seen = ssh(lab, "leaver", "app1", "true", *options)
        assert seen.returncode == 255


def test_an_account_is_locked_for_passwords_and_not_for_keys(lab, app1):
    with made(lab, app1, "guessed", PASSWORD) as options:
        app1.check_output(
            "echo 'guessed ALL=(ALL) ALL' >/etc/sudoers.d/90-guessed && chmod 0440 /etc/sudoers.d/90-guessed"
        )
        try:
            ask = "sudo -k -S -p '' id -u"
            assert ssh(lab, "guessed", "app1", f"echo '{PASSWORD}' | {ask}", *options).stdout.strip() == "0"
            for _ in range(2):
                ssh(lab, "guessed", "app1", f"printf 'wrong\\nwrong\\nwrong\\n' | {ask}", *options)
            locked = ssh(lab, "guessed", "app1", f"echo '{PASSWORD}' | {ask}", *options)
            assert locked.returncode == 1, locked.stdout
            # The key still gets in, and what needs no password still works.
            assert ssh(lab, "guessed", "app1", "id -un", *options).stdout.strip() == "guessed"
            app1.check_output("faillock --user guessed --reset")
            assert ssh(lab, "guessed", "app1", f"echo '{PASSWORD}' | {ask}", *options).stdout.strip() == "0"
        finally:
            app1.check_output("rm /etc/sudoers.d/90-guessed; faillock --user guessed --reset")


def test_who_guesses_a_password_cannot_touch_the_count(lab, app1):
    with made(lab, app1, "guessed", PASSWORD), made(lab, app1, "guesser") as options:
        ssh(lab, "guesser", "app1", "echo wrong | su guessed -c id; echo wrong | su -c id", *options)
        try:
            for name in ("guessed", "root"):
                assert ssh(lab, "guesser", "app1", f"test -w /run/faillock/{name}", *options).returncode == 1
                assert "su" in app1.check_output(f"faillock --user {name}")
        finally:
            app1.check_output("faillock --user guessed --reset; faillock --user root --reset")


def change(host, old: str, new: str):
    """A user changes the password, by passwd."""
    return host.run(f"printf '%s\\n' '{old}' '{new}' '{new}' | runuser -u sailor -- passwd")


def test_a_new_password_has_to_be_a_good_one(lab, app1):
    with made(lab, app1, "sailor", PASSWORD):
        assert app1.check_output("getent shadow sailor | cut -d: -f2").startswith("$y$")
        # Not on the day that it was set.
        early = change(app1, PASSWORD, OTHER)
        assert early.rc != 0
        assert "wait longer" in early.stderr
        app1.check_output("chage --lastday 2026-01-01 sailor")
        for weak, why in (
            ("Short-1;a", "shorter than 14"),
            ("onlylowercaseletters", "less than 4 character classes"),
            ("Sailor-Quay-7-Kee", "contains the user name"),
        ):
            refused = change(app1, PASSWORD, weak)
            assert refused.rc != 0, weak
            assert why in refused.stderr, refused.stderr
        assert change(app1, PASSWORD, OTHER).rc == 0
        app1.check_output("chage --lastday 2026-01-01 sailor")
        again = change(app1, OTHER, PASSWORD)
        assert again.rc != 0
        assert "already used" in again.stderr


def test_nobody_becomes_another_user_by_su(lab, app1):
    with made(lab, app1, "climber", PASSWORD):
        seen = app1.run(f"echo '{PASSWORD}' | runuser -u ops -- su climber -c id")
        assert seen.rc != 0
        assert "uid=" not in seen.stdout
        assert "uid=" in app1.check_output("su climber -c id")
        app1.check_output("faillock --user climber --reset")


def test_accounts_are_brought_to_the_policy_and_files_back_from_what_was_done_by_hand(lab, app1, daemon):
    with made(lab, app1, "keyed"), made(lab, app1, "typed", PASSWORD):
        app1.check_output("chage -m 0 -M 99999 -I -1 typed")
        # As useradd makes it by login.defs.
        assert app1.check_output("getent shadow keyed | cut -d: -f5") == "365"
        app1.check_output("sed -i '1i auth sufficient pam_permit.so' /etc/pam.d/common-auth")
        app1.check_output("sed -i /pam_faillock.so.authfail/d /etc/pam.d/common-auth")
        done = play(lab, CONVERGE, "--limit", "app1")
        assert done.returncode == 0, done.stdout[-3000:]
        assert app1.check_output("getent shadow keyed | cut -d: -f5,7") == ":"
        assert app1.check_output("getent shadow typed | cut -d: -f4-7") == "1:365:7:30"
        assert app1.check_output(f"getent passwd {daemon} | cut -d: -f7") == "/usr/sbin/nologin"
        stack = app1.file("/etc/pam.d/common-auth").content_string
        assert "auth sufficient pam_permit.so" not in stack
        assert "pam_faillock.so authfail" in stack


def test_a_forgotten_shell_ends(lab):
    seen = ssh(lab, "ops", "app1", "bash -lic 'echo limit=$TMOUT; TMOUT=0; echo $?'", "-tt")
    assert "limit=900" in seen.stdout
    assert "readonly variable" in seen.stdout + seen.stderr
