#!/usr/bin/python
# Copyright: Slipway maintainers
# MIT License (see LICENSE)
"""Brings the accounts of people, of automation and of CI on a host to what the reviewed file says."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: people
short_description: Have exactly those get into a host who shall
description:
  - Makes groups, accounts, keys and end dates, and shuts out who has left, in one module call for all of them.
  - Its action plugin of the same name makes I(accounts) from the reviewed file, which it checks first.
  - What the host has on record decides with it. An account that is on record and no longer wanted is shut out; somebody
    whose access has ended comes back under a ticket that this host has not seen for them, dated after the end, and not
    otherwise, so that an old copy of the file brings nobody back.
  - Refuses to shut out, or to take sudo from, the account that the run itself is connected as.
options:
  accounts:
    description: Everybody who is or was to have access here.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Login name.
        type: str
        required: true
      kind:
        description: C(shared) accounts, those of people, those of automation.
        type: str
        choices: [shared, person, automation]
        required: true
      role:
        description: The role, for the record.
        type: str
        required: true
      state:
        description: Whether the account shall be in force.
        type: str
        choices: [present, left]
        default: present
      comment:
        description: What C(getent passwd) shows.
        type: str
        default: ""
      primary_group:
        description: The primary group; empty means one of the account's own name.
        type: str
        default: ""
      groups:
        description: The other groups, and no more than these.
        type: list
        elements: str
        default: []
      options:
        description: Options in front of each key, without C(expiry-time).
        type: str
        default: ""
      keys:
        description: The public keys, and no more than these.
        type: list
        elements: str
        default: []
      until:
        description: When access ends (a time in UTC); empty means open.
        type: str
        default: ""
      since:
        description: From which day this entry holds.
        type: str
        default: ""
      ticket:
        description: The ticket under which it came, or under which it ends.
        type: str
        default: ""
      spent:
        description: Tickets that bring nobody back, though this host may never have seen them.
        type: list
        elements: str
        default: []
  groups:
    description: System groups that have exactly the accounts above as members.
    type: list
    elements: str
    required: true
  members:
    description: Other accounts that belong to one of I(groups); they are neither made nor removed.
    type: dict
    default: {}
  admin_group:
    description: The group whose members have sudo.
    type: str
    required: true
  header:
    description: The first line of each file of keys.
    type: str
    default: ""
  actor:
    description: Who asked, for the log.
    type: str
    default: ""
notes:
  - Supports C(check_mode) and C(--diff).
  - In check mode on a host where the role has never been, it looks and needs nothing of the role.
author:
  - Slipway maintainers
"""

EXAMPLES = r"""
- name: Give people their accounts
  people:
    groups: [operators, deployers]
    admin_group: operators
    accounts:
      - name: alice
        kind: person
        role: deployer
        groups: [deployers]
        keys: [ssh-ed25519 AAAA… alice]
        ticket: OPS-12
        since: "2026-11-24"
        until: "2027-11-24T00:00:00Z"
"""

RETURN = r"""
actions:
  description: What was (in check mode, would be) done; one line each.
  type: list
  elements: str
  returned: always
kept_out:
  description: Who is in the file and stays out by the host's record, and why.
  type: dict
  returned: always
"""

import datetime
import grp
import hashlib
import json
import os
import pwd
import stat
import subprocess
from typing import Any

from ansible.module_utils.basic import AnsibleModule

PROGRAM = "/usr/local/libexec/slipway/access"
KEYS = "/etc/slipway/authorized_keys"
RECORD = "/etc/slipway/people.json"
CRONTABS = "/var/spool/cron/crontabs"
SHELL = "/bin/bash"
NOLOGIN = "/usr/sbin/nologin"
FIRST_UID = 1000
DAY = 86400
HOME_MODE = 0o750


class Refused(Exception):
    """What the task fails with; nothing was changed."""


def parse_time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(datetime.timezone.utc)


def expire_day(until: str) -> str:
    """The day for /etc/shadow: the first on which the account is shut all day. sshd and the timer are exact."""
    if not until:
        return ""
    return str(-int(-parse_time(until).timestamp() // DAY))


def key_lines(account: dict[str, Any], header: str) -> str:
    """The file of keys. Before OpenSSH 9.1 expiry-time knows the host's own time zone only."""
    options = account["options"]
    if account["until"]:
        local = parse_time(account["until"]).astimezone().strftime("%Y%m%d%H%M%S")
        options += ("," if options else "") + 'expiry-time="' + local + '"'
    lines = [(options + " " if options else "") + key.strip() for key in account["keys"]]
    return "".join(line + "\n" for line in ([header] if header else []) + lines)


def why_kept_out(account: dict[str, Any], noted: dict[str, Any] | None) -> str | None:
    """Why the host's record bars somebody whom the file lets in."""
    if noted is None or noted["state"] == "present":
        return None
    ended = noted["ended"][:10]
    if account["kind"] == "shared":
        if noted.get("why") == "gone" or noted.get("keys") != digest(account["keys"]):
            return None
        return account["name"] + " was shut out on " + noted["ended"][:10] + ": to come back takes other keys"
    said = "the access of " + account["name"] + " to this host ended on " + ended + " (" + noted["why"] + ")"
    if account["ticket"] in noted.get("tickets", []):
        return said + ", and ticket " + account["ticket"] + " is of before that: to come back takes a new ticket"
    if account["since"] < ended:
        return (
            said + ", and the entry is of " + account["since"] + ": to come back takes a `since` of that day or later"
        )
    return None


def entry_of(account: dict[str, Any]) -> dict[str, Any]:
    fields = ("kind", "role", "ticket", "since", "until")
    return {"state": "present", "keys": digest(account["keys"]), **{name: account[name] for name in fields}}


def digest(keys: list[str]) -> str:
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()[:16]


def is_shut(there: dict[str, Any] | None, keys: bool) -> bool:
    """Whether an account that has ended is as the host's program leaves it."""
    if keys or there is None:
        return not keys
    return (there["shell"], there["password"], there["expires"], there["groups"]) == (NOLOGIN, "*", "1", [])


class Plan:
    """What has to be done. A pure function of what is wanted, what was seen and what is on record."""

    def __init__(
        self,
        wanted: dict[str, Any],
        seen: dict[str, Any],
        record: dict[str, Any],
        now: datetime.datetime,
        operator: str,
    ) -> None:
        self.wanted, self.seen, self.record, self.now, self.operator = wanted, seen, record, now, operator
        self.commands: list[list[str]] = []
        self.files: dict[str, str | None] = {}
        self.homes: list[str] = []
        self.notes: dict[str, dict[str, Any]] = {}
        self.shut: list[tuple[str, str, str]] = []
        self.said: list[str] = []
        self.log: list[dict[str, Any]] = []
        self.kept_out: dict[str, str] = {}
        self.in_force: dict[str, dict[str, Any]] = {}
        self.make()
        self.judge_operator()

    def make(self) -> None:
        for group in self.wanted["groups"]:
            if group not in self.seen["groups"]:
                self.do(["groupadd", "--system", group], "make the group " + group)
        for account in self.wanted["accounts"]:
            self.judge(account)
        for account in self.in_force.values():
            self.settle(account)
        named = {account["name"] for account in self.wanted["accounts"]}
        for name, noted in sorted(self.record.items()):
            if noted["state"] == "present":
                if name not in named:
                    self.end(name, "gone", "")
            # Whatever brought it back, be it somebody by hand.
            elif name not in self.in_force and name not in {shut[0] for shut in self.shut} and not self.is_shut(name):
                self.end(name, "again", "")
        self.remove_strangers()

    def is_shut(self, name: str) -> bool:
        return is_shut(self.seen["accounts"].get(name), name in self.seen["keys"])

    def do(self, command: list[str], said: str) -> None:
        self.commands.append(command)
        self.said.append(said)

    def judge(self, account: dict[str, Any]) -> None:
        """Whether an account shall be in force now."""
        name = account["name"]
        noted = self.record.get(name)
        there = self.seen["accounts"].get(name)
        if there and there["uid"] < FIRST_UID:
            raise Refused(
                name + " is an account of the system on this host (uid " + str(there["uid"]) + "): take another name"
            )
        if account["state"] == "left":
            if noted is None or noted["state"] == "present" or noted["why"] == "expired":
                self.end(name, "left", account["ticket"], account["spent"])
            return
        reason = why_kept_out(account, noted)
        if reason:
            self.kept_out[name] = reason
        elif account["until"] and parse_time(account["until"]) <= self.now:
            if noted is None or noted["state"] == "present":
                self.end(name, "expired", "")
        else:
            self.in_force[name] = account

    def end(self, name: str, why: str, ticket: str, spent: list[str] | None = None) -> None:
        if name not in self.seen["accounts"] and name not in self.record:
            # Never here, and yet on record: an older copy of the file shall not let them in.
            self.notes[name] = {"state": "ended", "why": why, "ticket": ticket, "tickets": spent or []}
            self.said.append("note that " + name + " has left")
            self.log.append({"action": "left", "person": name, "ticket": ticket, "done": [self.said[-1]]})
            return
        self.shut.append((name, why, ticket))
        self.said.append("shut " + name + " out (" + why + ")")

    def judge_operator(self) -> None:
        """Who runs this must not saw off the branch they sit on."""
        name = self.operator
        if name in {shut[0] for shut in self.shut}:
            raise Refused(
                "this run is connected as " + name + ", whom it would shut out: let somebody else run it, or connect as"
                " another operator (-e ansible_user=…). Nothing was changed."
            )
        admins = self.seen["groups"].get(self.wanted["admin_group"], [])
        wanted = self.in_force.get(name)
        keeps = self.wanted["admin_group"] in wanted["groups"] if wanted else name in self.all_members("admin_group")
        if name in admins and not keeps:
            raise Refused(
                "this run is connected as "
                + name
                + ", and would take "
                + name
                + " out of the group "
                + self.wanted["admin_group"]
                + ": let somebody else run it, or give "
                + name
                + " the role admin in the file"
                " of people. Nothing was changed."
            )

    def all_members(self, which: str) -> list[str]:
        members: list[str] = self.wanted["members"].get(self.wanted[which], [])
        return members

    def settle(self, account: dict[str, Any]) -> None:
        name = account["name"]
        there = self.seen["accounts"].get(name)
        before = len(self.said)
        expires = expire_day(account["until"])
        if there is None:
            primary = account["primary_group"]
            own = (
                ["--gid", primary]
                if primary
                else (["--gid", name] if name in self.seen["groups"] else ["--user-group"])
            )
            self.do(
                ["useradd", "--create-home", "--home-dir", "/home/" + name, "--shell", SHELL, "--password", "*", *own,
                 "--groups", ",".join(account["groups"]), "--comment", account["comment"], name],
                "make the account " + name,
            )  # fmt: skip
            self.homes.append(name)
        else:
            changes = []
            if there["shell"] != SHELL:
                changes += ["--shell", SHELL]
            # No password opens it. Not `!`, which sshd takes for a locked account wherever it runs without PAM.
            if there["password"] != "*":  # noqa: S105
                changes += ["--password", "*"]
            if there["comment"] != account["comment"]:
                changes += ["--comment", account["comment"]]
            if sorted(there["groups"]) != sorted(account["groups"]):
                changes += ["--groups", ",".join(account["groups"])]
            if account["primary_group"] and there["primary_group"] != account["primary_group"]:
                changes += ["--gid", account["primary_group"]]
            if changes:
                what = ", ".join(word[2:] for word in changes[::2])
                self.do(["usermod", *changes, name], "give " + name + " another " + what)
            if (there["home_uid"], there["home_mode"]) != (there["uid"], HOME_MODE):
                self.homes.append(name)
                self.said.append("give " + name + " a home of its own")
        # A key does not age: without this the account is refused a year after it was made.
        ageing = ["", "", ""]
        if there is None or there["ageing"] != ageing or there["expires"] != expires:
            end = expires or "-1"
            self.do(
                ["chage", "--mindays", "-1", "--maxdays", "-1", "--inactive", "-1", "--expiredate", end, name],
                "let " + name + " expire " + ("at " + account["until"] if expires else "never"),
            )
        text = key_lines(account, self.wanted["header"])
        if self.seen["keys"].get(name) != text:
            self.files[name] = text
            self.said.append("give " + name + " these keys and no others")
        noted = self.record.get(name)
        entry = entry_of(account)
        if noted is None or any(noted.get(field) != entry[field] for field in entry):
            self.notes[name] = entry
            if len(self.said) == before:
                self.said.append("note the entry of " + name)
        if len(self.said) > before:
            action = "joined" if noted is None else "changed" if noted["state"] == "present" else "came back"
            self.log.append(
                {"action": action, "person": name, "role": account["role"], "ticket": account["ticket"],
                 "until": account["until"], "done": self.said[before:]}
            )  # fmt: skip

    def remove_strangers(self) -> None:
        going = {shut[0] for shut in self.shut}
        for group in self.wanted["groups"]:
            mine = {name for name, account in self.in_force.items() if group in account["groups"]}
            mine |= set(self.wanted["members"].get(group, []))
            for name in sorted(set(self.seen["groups"].get(group, [])) - mine - going):
                if name not in self.in_force:
                    self.stranger(
                        ["gpasswd", "--delete", name, group], "take " + name + " out of the group " + group, name
                    )
        for name in sorted(set(self.seen["keys"]) - set(self.in_force) - going):
            self.files[name] = None
            self.said.append("remove the keys of " + name + ", whom nobody knows")
            self.log.append({"action": "stranger", "person": name, "done": [self.said[-1]]})

    def stranger(self, command: list[str], said: str, name: str) -> None:
        self.do(command, said)
        self.log.append({"action": "stranger", "person": name, "done": [said]})


class Host:
    """What the plan is made of, and how it is carried out."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def see(self, names: set[str]) -> dict[str, Any]:
        with open("/etc/shadow") as stream:
            shadow = {line.split(":")[0]: line.rstrip("\n").split(":") for line in stream}
        accounts = {}
        groups = {group.gr_name: list(group.gr_mem) for group in grp.getgrall()}
        for entry in pwd.getpwall():
            fields = shadow.get(entry.pw_name)
            if entry.pw_name not in names or fields is None:
                continue
            try:
                home = os.stat(entry.pw_dir)
                owner, mode = home.st_uid, stat.S_IMODE(home.st_mode)
            except OSError:
                owner, mode = -1, 0
            accounts[entry.pw_name] = {
                "uid": entry.pw_uid,
                "comment": entry.pw_gecos,
                "shell": entry.pw_shell,
                "primary_group": grp.getgrgid(entry.pw_gid).gr_name,
                "groups": [name for name, members in groups.items() if entry.pw_name in members],
                "password": fields[1],
                "ageing": [fields[3], fields[4], fields[6]],
                "expires": fields[7],
                "home_uid": owner,
                "home_mode": mode,
            }
        # All accounts count where it is about who is there at all.
        for name in {entry.pw_name for entry in pwd.getpwall()} - set(accounts):
            accounts.setdefault(name, {"uid": pwd.getpwnam(name).pw_uid})
        keys = {}
        if os.path.isdir(KEYS):
            for name in os.listdir(KEYS):
                path = os.path.join(KEYS, name)
                keys[name] = ""
                if is_plain(path):
                    with open(path) as stream:
                        keys[name] = stream.read()
        return {"accounts": accounts, "groups": groups, "keys": keys}

    def record(self) -> dict[str, Any]:
        try:
            with open(RECORD) as stream:
                people: dict[str, Any] = json.load(stream)["people"]
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(
                RECORD + " cannot be read (" + str(error) + "): mend it by hand, it says who has left"
            ) from error
        return people

    def run(self, *command: str, data: str | None = None) -> str:
        done = subprocess.run(list(command), input=data, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode != 0:
            self.module.fail_json(msg=" ".join(command) + " failed: " + (done.stderr + done.stdout).strip())
        return done.stdout

    def apply(self, plan: Plan, actor: str) -> list[str]:
        """On record first: what ends half-way is finished by the next run, or by the host's timer."""
        said = []
        lines = [{**line, "actor": actor} for line in plan.log]
        if plan.notes or lines:
            self.run(PROGRAM, "note", data=json.dumps({"record": plan.notes, "log": lines}))
        for name, why, ticket in plan.shut:
            answer = json.loads(self.run(PROGRAM, "shut-out", name, "--why", why, "--ticket", ticket, "--actor", actor))
            said += [name + ": " + line for line in answer["done"]]
        for command in plan.commands:
            self.run(*command)
        for name in plan.homes:
            entry = pwd.getpwnam(name)
            os.makedirs(entry.pw_dir, exist_ok=True)
            os.chown(entry.pw_dir, entry.pw_uid, entry.pw_gid)
            os.chmod(entry.pw_dir, HOME_MODE)
        for name, text in plan.files.items():
            path = os.path.join(KEYS, name)
            if text is None:
                os.unlink(path)
                continue
            new = os.path.join(KEYS, "." + name + ".new")
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
            with os.fdopen(descriptor, "w") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(new, 0o644)
            os.rename(new, path)
        return said


def is_plain(path: str) -> bool:
    """A file of keys that somebody else can write is no file of keys of ours."""
    found = os.lstat(path)
    return stat.S_ISREG(found.st_mode) and found.st_uid == 0 and stat.S_IMODE(found.st_mode) == 0o644


ACCOUNT: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "kind": {"type": "str", "choices": ["shared", "person", "automation"], "required": True},
    "role": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "left"], "default": "present"},
    "comment": {"type": "str", "default": ""},
    "primary_group": {"type": "str", "default": ""},
    "groups": {"type": "list", "elements": "str", "default": []},
    "options": {"type": "str", "default": ""},
    "keys": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "until": {"type": "str", "default": ""},
    "since": {"type": "str", "default": ""},
    "ticket": {"type": "str", "default": ""},
    "spent": {"type": "list", "elements": "str", "default": []},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "accounts": {"type": "list", "elements": "dict", "required": True, "options": ACCOUNT},
            "groups": {"type": "list", "elements": "str", "required": True},
            "members": {"type": "dict", "default": {}},
            "admin_group": {"type": "str", "required": True},
            "header": {"type": "str", "default": ""},
            "actor": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    host = Host(module)
    wanted = module.params
    try:
        record = host.record()
        seen = host.see({account["name"] for account in wanted["accounts"]} | set(record))
        now = datetime.datetime.now(datetime.timezone.utc)
        plan = Plan(wanted, seen, record, now, os.environ.get("SUDO_USER", ""))
    except Refused as error:
        module.fail_json(msg=str(error))
    actions = list(plan.said)
    if actions and not module.check_mode:
        actions += host.apply(plan, wanted["actor"])
    for reason in plan.kept_out.values():
        module.warn(reason + ".")
    diff = {"before": "", "after": "".join(line + "\n" for line in plan.said)}
    module.exit_json(changed=bool(plan.said), actions=actions, kept_out=plan.kept_out, diff=diff)


if __name__ == "__main__":
    main()
