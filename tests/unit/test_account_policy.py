"""Passwords age, keys do not, and daemons have no shell."""

from __future__ import annotations

import pytest

from plugins.modules import account_policy as subject

POLICY = {"max_days": 365, "min_days": 1, "warn_days": 7, "inactive_days": 30, "never_inactive": ["root"]}
HASH = "$y$j9T$salt$hash"


def steps(passwd: str, shadow: str, may_log_in: set[str] | None = None) -> list[str]:
    one = {passwd.split(":")[0]: passwd.split(":")}
    other = {shadow.split(":")[0]: shadow.split(":")}
    return [" ".join(command) for _, command in subject.plan(one, other, POLICY, may_log_in or set())]


def user(password: str, ageing: str) -> tuple[str, str]:
    return "ann:x:1000:1000::/home/ann:/bin/bash", f"ann:{password}:20000:{ageing}::"


def daemon(shell: str, field: str = "*") -> tuple[str, str]:
    return f"web:x:33:33::/var/www:{shell}", f"web:{field}:20000:0:99999:7:::"


@pytest.mark.parametrize("password", ["*", "!", "!*", "!" + HASH])
@pytest.mark.parametrize("ageing", ["0:99999:7:", ":::", "0:-1:7:-1", "1:-1:7:"])
def test_a_key_only_account_that_does_not_age_is_left_alone(password, ageing):
    assert steps(*user(password, ageing)) == []


@pytest.mark.parametrize("ageing", ["1:365:7:", "1:365:7:30", "0:0:7:", "0:99999:7:30"])
def test_a_key_only_account_that_would_age_no_longer_does(ageing):
    assert steps(*user("*", ageing)) == ["chage --mindays=0 --maxdays=-1 --inactive=-1 ann"]


def test_an_account_with_a_password_ages():
    assert steps(*user(HASH, "1:365:7:30")) == []
    wanted = ["chage --mindays=1 --maxdays=365 --warndays=7 --inactive=30 ann"]
    assert steps(*user(HASH, "0:99999:7:")) == wanted
    assert steps(*user("", "0:99999:7:")) == wanted


def test_roots_password_always_still_opens_the_console():
    root = "root:x:0:0::/root:/bin/bash"
    assert steps(root, f"root:{HASH}:20000:1:365:7:-1::") == []
    assert steps(root, f"root:{HASH}:20000:1:365:7:30::")[0].endswith("--inactive=-1 root")


def test_a_daemon_has_no_shell_and_no_password():
    assert steps(*daemon("/usr/sbin/nologin")) == []
    assert steps(*daemon("/bin/false")) == []
    assert steps(*daemon("/bin/bash")) == ["usermod -s /usr/sbin/nologin web"]
    assert steps(*daemon("/bin/bash"), may_log_in={"web"}) == []
    assert steps(*daemon("/usr/sbin/nologin", HASH))[-1] == "usermod -L web"


def test_a_line_without_a_shadow_is_left_to_others():
    assert subject.plan({"ldap": ["ldap", "x", "5", "5", "", "/", "/bin/sh"]}, {}, POLICY, set()) == []


def test_members_are_those_of_the_group_and_those_whose_own_it_is(monkeypatch):
    class Group:
        gr_mem = ("ann",)
        gr_gid = 33

    def find(name):
        if name != "operators":
            raise KeyError(name)
        return Group

    monkeypatch.setattr(subject.grp, "getgrnam", find)
    passwd = {"web": ["web", "x", "33", "33", "", "/", "/bin/sh"], "bob": ["bob", "x", "9", "9", "", "/", "/bin/sh"]}
    assert subject.members(["operators", "gone"], passwd) == {"ann", "web"}
