"""The reviewed file of people: what is refused, with which sentence, before any host is asked."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from plugins.access import entries, leaving, log, proof, report

NOW = datetime.datetime(2026, 11, 24, 12, tzinfo=datetime.UTC)
SETTINGS = {
    "admin": {"group": "operators", "options": "restrict,pty"},
    "deployer": {"group": "deployers", "options": "restrict,pty"},
    "automation": {"group": "automation", "options": "restrict"},
}


def public(key: Any) -> str:
    text = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{text.decode()} somebody"


GOOD = public(ed25519.Ed25519PrivateKey.generate())


def person(**fields: Any) -> dict[str, Any]:
    return {
        "name": "alice", "full_name": "Alice Example", "role": "deployer", "keys": [GOOD], "ticket": "OPS-1",
        "approved_by": "bob", "since": "2026-11-24", **fields,
    }  # fmt: skip


def identity(**fields: Any) -> dict[str, Any]:
    return {
        "name": "audit", "purpose": "looks", "keys": [public(ed25519.Ed25519PrivateKey.generate())], "ticket": "OPS-2",
        "approved_by": "bob", "since": "2026-11-24", **fields,
    }  # fmt: skip


def problems(*people: dict[str, Any], automation: Any = ()) -> str:
    return "\n".join(entries.problems(list(people), list(automation), ["root", "deployer"], ["admin"], 366))


def test_a_good_entry_is_good() -> None:
    assert problems(person(), automation=[identity(commands={"report": "/usr/local/bin/x report"})]) == ""


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "Alice"}, "name is to be a login"),
        ({"name": "root"}, "there for another purpose"),
        ({"ticket": ""}, "ticket is to name"),
        ({"approved_by": ""}, "approved_by is empty"),
        ({"approved_by": "alice"}, "it takes somebody else"),
        ({"since": ""}, "since is missing"),
        ({"since": "soon"}, "since is no day"),
        ({"until": "2026-12-31T10:00"}, "needs its zone"),
        ({"until": "2026-11-01"}, "until is before since"),
        ({"until": "2028-11-24"}, "more than deployers_max_days"),
        ({"role": "admin"}, "wants an end date"),
        ({"keys": []}, "keys is empty"),
        ({"keys": ["nonsense"]}, "key 1 is not a public key"),
        ({"keys": ['command="x" ' + GOOD]}, "options do not belong here"),
        ({"state": "left"}, "since which day"),
        ({"state": "left", "left": "2026-11-24"}, "left_ticket"),
    ],
)
def test_what_is_wrong_is_said(fields: dict[str, Any], said: str) -> None:
    assert said in problems(person(**fields))


def test_keys_are_strong() -> None:
    assert "2048 bits" in problems(person(keys=[public(rsa.generate_private_key(65537, 2048))]))
    assert problems(person(keys=[public(rsa.generate_private_key(65537, 3072))])) == ""
    assert "is an ECDSA key" in problems(person(keys=[public(ec.generate_private_key(ec.SECP256R1()))]))
    words = GOOD.split()
    assert "another kind" in problems(person(keys=[f"ssh-rsa {words[1]}"]))
    assert "cannot be read" in problems(person(keys=[f"ssh-ed25519 {words[1][:-4]}"]))


def test_hardware_keys_are_welcome() -> None:
    import base64

    parts = [b"sk-ssh-ed25519@openssh.com", b"x" * 32, b"ssh:"]
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    assert problems(person(keys=[f"sk-ssh-ed25519@openssh.com {base64.b64encode(blob).decode()} token"])) == ""


def test_a_key_names_one() -> None:
    assert "alice's too" in problems(person(), person(name="bob", approved_by="carol"))
    assert "is there twice" in problems(person(), person())


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "either commands or root"),
        ({"commands": {"x": "/bin/cat *"}}, "without patterns"),
        ({"commands": {"x": "cat /etc/shadow"}}, "whole path"),
        ({"root": True, "from": ["192.0.2.1"]}, "wants an end date"),
        ({"root": True, "until": "2026-12-24"}, "addresses that it comes from"),
    ],
)
def test_automation_is_bound(fields: dict[str, Any], said: str) -> None:
    assert said in problems(automation=[identity(**fields)])


@pytest.mark.parametrize(
    ("until", "end"),
    [
        ("", ""),
        ("2026-12-31", "2027-01-01T00:00:00Z"),
        ("2026-12-31T18:00Z", "2026-12-31T18:00:00Z"),
        ("2026-12-31T18:00+02:00", "2026-12-31T16:00:00Z"),
        (datetime.date(2026, 12, 31), "2027-01-01T00:00:00Z"),
    ],
)
def test_a_day_is_meant_to_its_end(until: Any, end: str) -> None:
    assert entries.end_of(until) == end


def test_an_entry_is_about_the_hosts_that_it_names_and_a_leavers_about_all() -> None:
    staging = person(hosts=["staging"])
    left = person(hosts=["staging"], state="left", left="2026-11-24", left_ticket="OPS-9")
    assert entries.accounts([staging], [], [], "app1", ["production"], SETTINGS) == []
    assert entries.accounts([staging], [], [], "app1", ["staging"], SETTINGS)[0]["groups"] == ["deployers"]
    [account] = entries.accounts([left], [], [], "app1", ["production"], SETTINGS)
    assert (account["state"], account["ticket"], account["keys"]) == ("left", "OPS-9", [])


def test_automation_comes_from_where_it_says() -> None:
    made = identity(commands={"report": "/x"}, **{"from": ["192.0.2.10", "2001:db8::/64"]})
    [account] = entries.accounts([], [made], [], "app1", [], SETTINGS)
    assert account["options"] == 'restrict,from="192.0.2.10,2001:db8::/64"'


# Proofs


def account() -> dict[str, Any]:
    return entries.accounts([person()], [], [], "app1", [], SETTINGS)[0]


def shown(**fields: Any) -> dict[str, Any]:
    return {
        "there": True, "name": "alice", "uid": 1001, "locked": False, "shell": "/bin/bash",
        "expires": None, "allowed": True, "groups": ["alice", "deployers"], "keys_managed": True, "password": False,
        "sudo": proof.rights("deployer"),
        "keys": [{"fingerprint": entries.fingerprint(GOOD), "options": "restrict,pty", "expired": False, "file": "f"}],
        "keys_elsewhere": [], "forced_command": "none", "way_in": True, "crontab": False, "processes": 0,
        "key_file": True, "record": {"state": "present"}, **fields,
    }  # fmt: skip


def test_an_account_as_it_shall_be_is_proven() -> None:
    assert proof.joined(account(), shown(), proof.rights("deployer")) == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"groups": ["alice", "deployers", "docker"]}, "its groups are"),
        ({"sudo": ["(root) NOPASSWD: /usr/local/sbin/releasectl", "(root) ALL"]}, "sudo lets it run"),
        ({"sudo": []}, "sudo lets it run nothing"),
        ({"keys": []}, "does not let it in"),
        ({"keys_managed": False}, "from outside"),
        ({"password": True}, "it has a password"),
        ({"locked": True}, "it is locked"),
        ({"allowed": False}, "leave it out"),
        ({"there": False}, "no account"),
    ],
)
def test_more_or_less_than_the_role_is_no_proof(fields: dict[str, Any], said: str) -> None:
    assert said in "; ".join(proof.joined(account(), shown(**fields), proof.rights("deployer")))


def test_nothing_is_left_of_a_leaver() -> None:
    out = shown(
        locked=True, groups=["alice"], keys=[], sudo=[], way_in=False, key_file=False, record={"state": "ended"}
    )
    assert proof.gone("alice", out) == []
    for field, value in {
        "processes": 2,
        "crontab": True,
        "sudo": ["x"],
        "groups": ["alice", "deployers"],
        "key_file": True,
    }.items():
        assert proof.gone("alice", {**out, field: value}), field


# The report


def facts(**accounts: dict[str, Any]) -> dict[str, Any]:
    return {
        "accounts": accounts, "record": {}, "key_files": [], "privileged": {}, "timer": "active", "last_logins": {},
    }  # fmt: skip


ADMIN = {"name": "ops", "keys": []}
OPS = shown(name="ops", keys=[], sudo=proof.rights("admin"), keys_managed=False)


def kinds(**accounts: dict[str, Any]) -> set[tuple[str, str]]:
    found = report.compare("app1", facts(ops=OPS, **accounts), [account()], ADMIN, {}, NOW)
    return {(each["kind"], each["who"]) for each in found}


def test_a_host_as_the_file_says_has_no_finding() -> None:
    assert kinds(alice=shown()) == set()


def test_what_the_file_does_not_say_is_a_finding() -> None:
    assert ("stranger", "mallory") in kinds(alice=shown(), mallory=shown(name="mallory", sudo=[]))
    assert ("missing", "alice") in kinds()
    other = {"fingerprint": "SHA256:other", "options": "", "expired": False, "file": "f"}
    assert ("stranger-key", "alice") in kinds(alice=shown(keys=[*shown()["keys"], other]))
    assert ("sudo", "alice") in kinds(alice=shown(sudo=["(ALL) ALL"]))
    assert ("keys-elsewhere", "alice") in kinds(alice=shown(keys_elsewhere=[other]))
    assert ("password", "alice") in kinds(alice=shown(password=True))
    assert ("root", "toor") in kinds(alice=shown(), toor=shown(name="toor", uid=0, way_in=False))


# What a leaver could have read, and the log


def test_what_is_secret_goes_by_where_it_comes_from_and_by_its_name() -> None:
    settings = {
        "DATABASE_URL": "postgres://{{ vault_pw }}@db",
        "PAGE_SIZE": "20",
        "MAIL": "{{ vault_mail }}",
        "API_TOKEN": "x",
        "URL": "postgres://{{ secrets.postgres_app_password }}@db",
    }
    kept = leaving.Kept("sops edit production", "sops updatekeys production", ["STRIPE"])
    found = [each["what"] for each in leaving.secrets("deployer", settings, "production", kept)]
    assert found == [
        "API_TOKEN (app_settings)",
        "DATABASE_URL (app_settings)",
        "MAIL (app_settings)",
        "URL (app_settings)",
        "STRIPE (app_secrets)",
    ]
    assert "inventories/production playbooks/secrets_report.yml" in leaving.remaining("production")
    more = leaving.secrets("admin", settings, "production", kept)
    assert len(more) > len(found)
    assert all("production" in each["rotate"] or "ssh_host" in each["rotate"] for each in more)


def test_the_log_only_grows(tmp_path: Any) -> None:
    path = tmp_path / "log.jsonl"
    log.append(path, {"action": "onboard"}, NOW)
    log.append(path, {"action": "offboard"}, NOW)
    assert [line["action"] for line in log.read(path)] == ["onboard", "offboard"]
    assert log.read(path)[0]["time"] == "2026-11-24T12:00:00Z"
    path.write_text(path.read_text() + '{"cut": ')
    with pytest.raises(log.Unfit, match="whole line"):
        log.append(path, {"action": "onboard"}, NOW)
