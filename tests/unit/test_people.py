"""What is done to a host's accounts follows from the file, from what is there, and from what the host remembers."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from plugins.modules import people as subject

NOW = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExampleExampleExampleExampleExampleExampleEx alice"


def account(name: str = "alice", **fields: Any) -> dict[str, Any]:
    return {
        "name": name, "kind": "person", "role": "deployer", "state": "present", "comment": "Alice", "primary_group": "",
        "groups": ["deployers"], "options": "restrict", "keys": [KEY], "until": "", "since": "2026-11-01",
        "ticket": "OPS-1", "spent": [], **fields,
    }  # fmt: skip


SHUT = {"shell": "/usr/sbin/nologin", "expires": "1", "groups": [], "home_uid": 0, "home_mode": 0o700}


def there(**fields: Any) -> dict[str, Any]:
    return {
        "uid": 1001, "comment": "Alice", "shell": "/bin/bash", "primary_group": "alice", "groups": ["deployers"],
        "password": "*", "ageing": ["", "", ""], "expires": "", "home_uid": 1001, "home_mode": 0o750, **fields,
    }  # fmt: skip


def plan(
    *accounts: dict[str, Any],
    seen: dict[str, Any] | None = None,
    keys: dict[str, str] | None = None,
    record: dict[str, Any] | None = None,
    groups: dict[str, list[str]] | None = None,
    operator: str = "ops",
) -> subject.Plan:
    wanted = {
        "accounts": list(accounts), "groups": ["operators", "deployers"], "members": {"operators": ["ops"]},
        "admin_group": "operators", "header": "# ours",
    }  # fmt: skip
    members = {
        "operators": ["ops"],
        "deployers": [name for name, one in (seen or {}).items() if "deployers" in one["groups"]],
    }
    state = {"accounts": seen or {}, "groups": groups or members, "keys": keys or {}}
    return subject.Plan(wanted, state, record or {}, NOW, operator)


def on_record(one: dict[str, Any]) -> dict[str, Any]:
    return {**subject.entry_of(one), "tickets": [one["ticket"]]}


def ended(**fields: Any) -> dict[str, Any]:
    return {"state": "ended", "why": "left", "ended": "2026-11-20T10:00:00Z", "tickets": ["OPS-1", "OPS-7"], **fields}


def test_who_is_new_gets_an_account_keys_and_a_line_in_the_log() -> None:
    made = plan(account())
    assert [command[0] for command in made.commands] == ["useradd", "chage"]
    assert made.files == {"alice": f"# ours\nrestrict {KEY}\n"}
    assert made.notes["alice"]["state"] == "present"
    assert [(line["action"], line["ticket"]) for line in made.log] == [("joined", "OPS-1")]


def test_what_is_as_it_shall_be_is_left_alone() -> None:
    one = account()
    settled = plan(
        one, seen={"alice": there()}, keys={"alice": f"# ours\nrestrict {KEY}\n"}, record={"alice": on_record(one)}
    )
    assert settled.said == []


def test_an_end_is_on_the_account_and_to_the_second_on_the_keys() -> None:
    made = plan(account(until="2026-11-30T18:00:00Z"))
    assert made.commands[-1][-3:-1] == [
        "--expiredate",
        "20788",
    ]  # the first day after, since a day is all that shadow knows
    local = datetime.datetime(2026, 11, 30, 18, tzinfo=datetime.UTC).astimezone()
    assert f'expiry-time="{local:%Y%m%d%H%M%S}"' in str(made.files["alice"])


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("shell", "/usr/sbin/nologin", "--shell"),
        ("password", "$y$hash", "--password"),
        ("groups", ["deployers", "sudo"], "--groups"),
        ("comment", "Somebody", "--comment"),
    ],
)
def test_what_was_changed_by_hand_is_mended(field: str, value: Any, word: str) -> None:
    one = account()
    made = plan(
        one,
        seen={"alice": there(**{field: value})},
        keys={"alice": f"# ours\nrestrict {KEY}\n"},
        record={"alice": on_record(one)},
    )
    assert [command[0] for command in made.commands] == ["usermod"]
    assert word in made.commands[0]


def test_an_account_that_would_age_is_told_not_to() -> None:
    made = plan(account(), seen={"alice": there(ageing=["0", "365", "30"])})
    assert "chage" in [command[0] for command in made.commands]


def test_who_left_is_shut_out_once() -> None:
    left = account(state="left", ticket="OPS-9", keys=[])
    assert plan(left, seen={"alice": there()}, record={"alice": on_record(account())}).shut == [
        ("alice", "left", "OPS-9")
    ]
    shut = there(**SHUT)
    assert plan(left, seen={"alice": shut}, record={"alice": ended()}).said == []


def test_who_left_and_was_never_here_is_remembered() -> None:
    made = plan(account(state="left", ticket="OPS-9", spent=["OPS-1"]))
    assert (made.notes["alice"]["state"], made.notes["alice"]["tickets"]) == ("ended", ["OPS-1"])
    assert made.commands == []


def test_whose_entry_is_gone_is_shut_out() -> None:
    assert plan(seen={"alice": there()}, record={"alice": on_record(account())}).shut == [("alice", "gone", "")]


@pytest.mark.parametrize(
    ("ticket", "since", "back"),
    [
        ("OPS-1", "2026-11-24", False),  # an old entry with a new date
        ("OPS-2", "2026-11-01", False),  # an old entry that this host has never seen
        ("OPS-8", "2026-11-20", True),
        ("OPS-8", "2026-11-24", True),
    ],
)
def test_an_old_copy_of_the_file_brings_nobody_back(ticket: str, since: str, back: bool) -> None:
    shut = there(**SHUT)
    made = plan(account(ticket=ticket, since=since), seen={"alice": shut}, record={"alice": ended()})
    assert ("alice" in made.in_force) is back
    assert ("alice" in made.kept_out) is not back
    assert bool(made.said) is back


def test_who_was_shut_out_and_came_back_by_hand_is_shut_again() -> None:
    made = plan(account(), seen={"alice": there()}, record={"alice": ended()})
    assert made.shut == [("alice", "again", "")]


def test_the_shared_account_comes_back_with_other_keys_only() -> None:
    shared = account("deployer", kind="shared", ticket="", since="", groups=[])
    noted = ended(keys=subject.digest(shared["keys"]), why="shut out", tickets=[])
    assert "other keys" in plan(shared, record={"deployer": noted}).kept_out["deployer"]
    assert "deployer" in plan({**shared, "keys": ["ssh-ed25519 other"]}, record={"deployer": noted}).in_force


def test_time_that_is_up_is_up() -> None:
    over = account(until="2026-11-24T11:59:59Z")
    assert plan(over, seen={"alice": there()}, record={"alice": on_record(over)}).shut == [("alice", "expired", "")]


def test_strangers_are_taken_out_of_the_groups_and_lose_their_keys() -> None:
    made = plan(groups={"operators": ["ops", "mallory"], "deployers": []}, keys={"mallory": "x"})
    assert made.commands == [["gpasswd", "--delete", "mallory", "operators"]]
    assert made.files == {"mallory": None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": "left", "ticket": "OPS-9"}, "whom it would shut out"),
        ({"role": "deployer", "groups": ["deployers"]}, "out of the group operators"),
        ({"until": "2026-11-24T11:00:00Z"}, "whom it would shut out"),
    ],
)
def test_nobody_saws_off_the_branch_they_sit_on(changes: dict[str, Any], said: str) -> None:
    admin = account(role="admin", groups=["operators"])
    with pytest.raises(subject.Refused, match=said):
        plan(
            {**admin, **changes}, seen={"alice": there(groups=["operators"])}, record={"alice": on_record(admin)},
            groups={"operators": ["ops", "alice"], "deployers": []}, operator="alice",
        )  # fmt: skip


def test_an_account_of_the_system_is_never_taken_over() -> None:
    with pytest.raises(subject.Refused, match="an account of the system"):
        plan(account("www-data"), seen={"www-data": there(uid=33)})


@pytest.mark.parametrize(
    ("until", "day"),
    [("", ""), ("1970-01-02T00:00:00Z", "1"), ("1970-01-02T00:00:01Z", "2"), ("1970-01-02T23:59:59Z", "2")],
)
def test_the_day_of_the_shadow_file(until: str, day: str) -> None:
    assert subject.expire_day(until) == day
