"""Whether PAM's files hold what the profiles say is seen in the files."""

from __future__ import annotations

import pytest

from plugins.modules import pam_profiles as subject

FAILLOCK = """\
Name: count
Default: yes
Priority: 0
Auth-Type: Primary
Auth:
	[default=die]	pam_faillock.so authfail
Account-Type: Primary
Account:
	required	pam_faillock.so
"""
UNIX = """\
Name: unix
Auth-Type: Primary
Auth:
	[success=end default=ignore]	pam_unix.so nullok try_first_pass
Auth-Initial:
	[success=end default=ignore]	pam_unix.so nullok
"""
AUTH = """\
# here are the per-package modules (the "Primary" block)
auth	[success=2 default=ignore]	pam_unix.so nullok
auth	[default=die]	pam_faillock.so authfail
auth	requisite	pam_deny.so
auth	required	pam_permit.so
"""
FILES = {"common-auth": AUTH, "common-account": "account\trequired\tpam_faillock.so \n"}


def known() -> dict[str, set[tuple[str, str]]]:
    lines = {
        ("[success=# default=ignore]", "pam_unix.so nullok"),
        ("[default=die]", "pam_faillock.so authfail"),
        ("requisite", "pam_deny.so"),
        ("required", "pam_permit.so"),
    }
    return {"Auth": lines, "Account": {("required", "pam_faillock.so")}}


def test_a_profile_in_force_lacks_nothing():
    assert subject.lacks(subject.parse_profile(FAILLOCK), FILES) == []


def test_a_jump_counts_whatever_its_length():
    assert subject.lacks({"Auth": [["[success=end", "default=ignore]", "pam_unix.so", "nullok"]]}, FILES) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("auth	[default=die]	pam_faillock.so authfail\n", ""),
        ("[default=die]	pam_faillock.so", "[default=ignore]	pam_faillock.so"),
        (
            "auth	[default=die]	pam_faillock.so authfail",
            "auth	[default=die]	pam_faillock.so authfail deny=99",
        ),
        ("auth	[default=die]", "# auth	[default=die]"),
    ],
)
def test_a_line_that_is_gone_or_says_something_else_is_missed(before, after):
    files = FILES | {"common-auth": AUTH.replace(before, after)}
    missing = subject.lacks(subject.parse_profile(FAILLOCK), files)
    assert missing == ["common-auth: [default=die] pam_faillock.so authfail"]


def test_the_order_of_a_profiles_lines_counts():
    wanted = {
        "Auth": [
            ["[default=die]", "pam_faillock.so", "authfail"],
            ["[success=end", "default=ignore]", "pam_unix.so", "nullok"],
        ]
    }
    assert subject.lacks(wanted, FILES) == ["common-auth: [success=end default=ignore] pam_unix.so nullok"]


def test_a_file_that_is_not_there_lacks_everything():
    assert len(subject.lacks(subject.parse_profile(FAILLOCK), {})) == 2


def test_a_line_of_nobodys_is_a_stray():
    assert subject.strays(known(), FILES) == []
    files = FILES | {"common-auth": "auth sufficient pam_permit.so\n" + AUTH}
    assert subject.strays(known(), files) == ["common-auth: sufficient pam_permit.so belongs to no profile"]


def test_what_stands_first_may_read_otherwise():
    plain, either = subject.parse_profile(UNIX), subject.parse_profile(UNIX, initial=True)
    assert [line[-1] for line in plain["Auth"]] == ["try_first_pass"]
    assert [line[-1] for line in either["Auth"]] == ["try_first_pass", "nullok"]


def test_a_stray_is_taken_out_and_nothing_else_is():
    text = "auth sufficient pam_permit.so\n" + AUTH
    stray = set(subject.entries("Auth", text)) - known()["Auth"]
    assert subject.without(stray, "Auth", text) == AUTH
