"""What `access show` on a host says about an account, held against what the file says that it may do."""

from __future__ import annotations

from typing import Any

from plugins.access.entries import fingerprint

Facts = dict[str, Any]
RELEASECTL = "/usr/local/sbin/releasectl"
SHELL = "/bin/bash"


def rights(role: str, commands: list[str] | None = None) -> list[str]:
    """What `sudo -l` shows for each role, and nothing beside."""
    if role == "admin":
        return ["(ALL : ALL) NOPASSWD: ALL"]
    if role == "deployer":
        return [f"(root) NOPASSWD: {RELEASECTL}"]
    return [f"(root) NOPASSWD: {', '.join(commands)}"] if commands else ["(root) NOPASSWD: ALL"]


def joined(account: dict[str, Any], shown: Facts, expected_rights: list[str], forced: str = "none") -> list[str]:
    """What keeps the account from being what it shall be; empty when it can do its work and nothing else."""
    name = account["name"]
    if not shown.get("there"):
        return [f"there is no account {name}"]
    found = []
    if shown["locked"] or shown["shell"] != SHELL:
        found.append(f"it is locked (shell {shown['shell']}, expiry day {shown['expires']})")
    if not shown["allowed"]:
        found.append("sshd's AllowGroups and its like leave it out")
    groups = {*account["groups"], account["primary_group"] or name}
    if set(shown["groups"]) != groups:
        found.append(f"its groups are {', '.join(shown['groups'])}, and shall be {', '.join(sorted(groups))}")
    wanted, there = {fingerprint(key) for key in account["keys"]}, {key["fingerprint"] for key in shown["keys"]}
    found += [f"the key {mark} does not let it in" for mark in sorted(wanted - there)]
    found += [f"the key {mark} lets it in, and is not in the file" for mark in sorted(there - wanted)]
    if not shown["keys_managed"]:
        found.append("sshd takes keys for it from outside /etc/slipway/authorized_keys")
    if bool(account["until"]) != all("expiry-time=" in key["options"] for key in shown["keys"]):
        found.append("its end date is not on its keys")
    if shown["password"]:
        found.append("it has a password")
    if shown["sudo"] != expected_rights:
        found.append(
            f"sudo lets it run {'; '.join(shown['sudo']) or 'nothing'}, and shall: {'; '.join(expected_rights)}"
        )
    if shown["forced_command"] != forced:
        found.append(f"sshd runs {shown['forced_command']} for it, and shall: {forced}")
    if not shown["way_in"] and not found:
        found.append("sshd would not let it in")
    return found


def gone(name: str, shown: Facts) -> list[str]:
    """What is left of somebody who has left."""
    found = []
    if (shown.get("record") or {}).get("state") != "ended":
        found.append("the host has no record of the end")
    if shown["key_file"]:
        found.append("its keys are still there")
    if not shown.get("there"):
        return found
    checks = {
        "it has a way in": shown["way_in"],
        "the account is not locked": not shown["locked"],
        "keys of it lie about": shown["keys"] or shown["keys_elsewhere"],
        "it has a password": shown["password"],
        f"sudo lets it run {'; '.join(shown['sudo'])}": shown["sudo"],
        f"it is in the groups {', '.join(shown['groups'])}": set(shown["groups"]) - {name} - {"automation"},
        "it has a crontab": shown["crontab"],
        f"{shown['processes']} processes of it run": shown["processes"],
    }
    return found + [text for text, bad in checks.items() if bad]
