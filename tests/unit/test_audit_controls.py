"""The checks of an audit: what counts, what is kept of what they say, and what is left behind."""

from __future__ import annotations

import subprocess
import time

import pytest

from plugins.modules import audit_controls as subject

ENVIRONMENT = {"PATH": subject.PATH, "app_user": "app"}


def run(**checks: str):
    listed = [{"id": identity, "check": check} for identity, check in checks.items()]
    return subject.run_all(listed, ENVIRONMENT, 1, 4)


def test_what_ends_with_0_is_as_it_should_be_and_nothing_else_is():
    assert run(a="true", b="exit 3", c="no-such-program") == [
        {"id": "a", "ok": True},
        {"id": "b", "ok": False, "code": 3, "output": []},
        {"id": "c", "ok": False, "code": 127, "output": ["/bin/sh: 1: no-such-program: not found"]},
    ]


def test_a_check_has_the_shared_names_and_no_input():
    assert run(a='test "$app_user" = app && ! read -r line')[0]["ok"]


def test_what_gives_no_answer_counts_as_failed_and_is_gone():
    begun = time.monotonic()
    found = run(a="sleep 60.75 & echo waits; wait")[0]
    assert time.monotonic() - begun < 10
    assert subprocess.run(["pgrep", "-f", "sleep 60.75"], check=False, capture_output=True).returncode == 1
    assert (found["ok"], found["code"], found["output"]) == (False, subject.TIMED_OUT, ["gave no answer within 1 s"])


def test_what_a_check_leaves_running_is_ended():
    assert run(a="sleep 61.25 >/dev/null 2>&1 & true")[0]["ok"]
    assert subprocess.run(["pgrep", "-f", "sleep 61.25"], check=False, capture_output=True).returncode == 1


def test_many_run_at_a_time():
    begun = time.monotonic()
    run(a="sleep 0.5", b="sleep 0.5", c="sleep 0.5", d="sleep 0.5")
    assert time.monotonic() - begun < 1.5


@pytest.mark.parametrize(
    ("text", "canary"),
    [
        ("root:$y$j9T$abcdefgh$CANARYhash:19000:0", "CANARY"),
        ("DATABASE_URL=postgres://app:CANARY@data1/app", "CANARY"),
        ("requirepass CANARY\nredis_password: CANARY", "CANARY"),
        ("-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----\nafter", "CANARY"),
        ("-----BEGIN PRIVATE KEY-----\nCANARY", "CANARY"),
        ("key " + "CANARY0" * 8, "CANARY"),
        ("API_TOKEN=CANARY", "CANARY"),
    ],
)
def test_what_looks_like_a_secret_is_not_kept(text, canary):
    assert canary not in " ".join(subject.scrub(text))


def test_of_much_output_the_end_is_kept_and_lines_are_cut():
    kept = subject.scrub("\n".join(f"line {n}" for n in range(100)) + "\n\n" + "x y" * 1000)
    assert len(kept) == subject.LINES
    assert kept[0] == "line 96"
    assert len(kept[-1]) == subject.LINE_LENGTH


def test_what_is_plain_is_kept():
    assert subject.scrub("permitrootlogin yes\n /etc/ssh/sshd_config is of app, mode 644") == [
        "permitrootlogin yes",
        "/etc/ssh/sshd_config is of app, mode 644",
    ]
