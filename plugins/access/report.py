"""Who can get in where: what the hosts say, held against the file. Strangers are findings."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

from plugins.access.entries import fingerprint
from plugins.access.proof import rights

SOON_DAYS = 14
Finding = dict[str, str]


def finding(host: str, kind: str, who: str, text: str) -> Finding:
    return {"host": host, "kind": kind, "who": who, "text": text}


def compare(
    host: str,
    facts: dict[str, Any],
    accounts: list[dict[str, Any]],
    admin: dict[str, Any],
    commands: dict[str, list[str]],
    now: datetime.datetime,
) -> list[Finding]:
    """The findings of one host. admin: the operators' account of bootstrap (name, keys); commands: automation's."""
    wanted = {a["name"]: a for a in accounts if a["state"] == "present" and not _over(a["until"], now)}
    wanted[admin["name"]] = {**admin, "role": "admin", "groups": [], "until": "", "kind": "shared"}
    found: list[Finding] = []
    for name, seen in sorted(facts["accounts"].items()):
        if name in wanted:
            expected = rights(wanted[name]["role"], commands.get(name))
            found += [finding(host, kind, name, text) for kind, text in _known(wanted[name], seen, expected)]
        else:
            ended = facts["record"].get(name, {}).get("state") == "ended"
            found += [finding(host, kind, name, text) for kind, text in _unknown(seen, ended)]
        found += [finding(host, kind, name, text) for kind, text in _anybody(seen, name == admin["name"])]
    for name in sorted(set(wanted) - set(facts["accounts"])):
        found.append(finding(host, "missing", name, "is in the file and has no account here: run site.yml"))
    for name in facts["key_files"]:
        if name not in wanted:
            found.append(finding(host, "stranger-key", name, "has a file of keys and is not in the file of people"))
    for name in sorted(set(wanted) & set(facts["record"])):
        noted = facts["record"][name]
        if noted["state"] == "ended":
            text = f"is in the file, and stays out since {noted['ended'][:10]} ({noted['why']}): it takes a new ticket"
            found.append(finding(host, "kept-out", name, text))
    for group, members in sorted(facts["privileged"].items()):
        for name in members:
            if name not in facts["accounts"] or facts["accounts"][name]["uid"] != 0:
                found.append(finding(host, "group", name, f"is in the group {group}, which is as good as root"))
    if facts["timer"] != "active":
        found.append(
            finding(host, "timer", "", "slipway-access.timer does not run: nobody ends sessions past their date")
        )
    return found


def _known(account: dict[str, Any], seen: dict[str, Any], expected: list[str]) -> Iterable[tuple[str, str]]:
    wanted, there = {fingerprint(key) for key in account["keys"]}, {key["fingerprint"] for key in seen["keys"]}
    for mark in sorted(there - wanted):
        yield "stranger-key", f"gets in with {mark}, which is not in the file"
    for mark in sorted(wanted - there):
        yield "missing", f"does not get in with {mark}, which is in the file: run site.yml"
    if wanted and not seen["way_in"]:
        yield "missing", "is in the file and cannot get in: run site.yml"
    if seen["sudo"] != expected:
        yield "sudo", f"may run {'; '.join(seen['sudo']) or 'nothing'} by sudo, and should: {'; '.join(expected)}"


def _unknown(seen: dict[str, Any], ended: bool) -> Iterable[tuple[str, str]]:
    marks = ", ".join(key["fingerprint"] for key in seen["keys"]) or "a password"
    if seen["way_in"]:
        yield ("leaver" if ended else "stranger"), f"can get in (with {marks}) and is not in the file"
    elif seen["keys"] and seen["uid"] != 0:
        yield "stranger-key", f"has keys here ({marks}), though it cannot get in with them"
    if seen["sudo"] and seen["uid"] != 0:
        yield "sudo", f"may run {'; '.join(seen['sudo'])} by sudo and is not in the file"
    if ended and seen["processes"]:
        yield "leaver", f"has {seen['processes']} processes running"
    if ended and seen["crontab"]:
        yield "leaver", "has a crontab"


def _anybody(seen: dict[str, Any], is_admin: bool) -> Iterable[tuple[str, str]]:
    if seen["password"]:
        yield "password", "has a password"
    if seen["uid"] == 0 and seen["name"] != "root":
        yield "root", "has uid 0: it is root by another name"
    for key in seen["keys_elsewhere"]:
        yield (
            "keys-elsewhere",
            f"has the key {key['fingerprint']} in {key['file']}, where sshd does not look for it now",
        )
    if seen["keys"] and not seen["keys_managed"] and not is_admin and seen["uid"] != 0:
        yield "keys-elsewhere", "sshd takes keys for it from outside /etc/slipway/authorized_keys"


def _over(until: str, now: datetime.datetime) -> bool:
    return bool(until) and datetime.datetime.fromisoformat(until.replace("Z", "+00:00")) <= now


def notices(host: str, accounts: list[dict[str, Any]], roots: set[str], now: datetime.datetime) -> list[Finding]:
    """What is in order and yet worth a look: access that ends soon, and automation that is root."""
    found = []
    for account in accounts:
        if account["state"] != "present" or _over(account["until"], now):
            continue
        if account["until"] and _over(account["until"], now + datetime.timedelta(days=SOON_DAYS)):
            found.append(finding(host, "soon", account["name"], f"has access until {account['until']}"))
        if account["name"] in roots:
            found.append(finding(host, "root", account["name"], f"is automation with root, until {account['until']}"))
    return found


def table(facts: dict[str, Any], accounts: list[dict[str, Any]], admin: str) -> list[dict[str, Any]]:
    """Who can get in, one line each."""
    known = {account["name"]: account for account in accounts}
    return [
        {
            "name": name,
            "role": known[name]["role"] if name in known else "admin" if name == admin else "unknown",
            "keys": [key["fingerprint"] for key in seen["keys"] if not key["expired"]],
            "sudo": seen["sudo"],
            "until": known.get(name, {}).get("until", ""),
            "ticket": known.get(name, {}).get("ticket", ""),
            "last_login": facts["last_logins"].get(name, {}),
        }
        for name, seen in sorted(facts["accounts"].items())
        if seen["way_in"]
    ]


def markdown(report: dict[str, Any]) -> str:
    lines = [f"# Who can get in, {report['time']}", ""]
    lines += [f"Asked by {report['actor']}.", "", f"## Findings: {len(report['findings'])}", ""]
    for each in report["findings"]:
        lines.append(f"- **{each['host']}** {each['kind']}: {each['who']} {each['text']}".rstrip())
    if report["notices"]:
        lines += ["", "## Worth a look", ""]
        lines += [f"- {each['host']}: {each['who']} {each['text']}" for each in report["notices"]]
    for host, people in sorted(report["hosts"].items()):
        lines += [
            "",
            f"## {host}",
            "",
            "| who | role | keys | sudo | until | ticket | last login |",
            "|---|---|---|---|---|---|---|",
        ]
        for one in people:
            last = " from ".join(one["last_login"].values()) or "not in the journal"
            cells = [one["name"], one["role"], ", ".join(one["keys"]), "; ".join(one["sudo"]), one["until"] or "open"]
            lines.append("| " + " | ".join([*cells, one["ticket"], last]) + " |")
    return "\n".join(lines) + "\n"
