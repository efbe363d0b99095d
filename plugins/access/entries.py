"""The reviewed file of people and of automation: what is wrong with it, and what it means for one host."""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import re
import struct
from collections.abc import Iterable
from typing import Any

NAME = re.compile(r"[a-z][a-z0-9-]{1,30}\Z")
TICKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/#:-]{1,63}\Z")
RSA_BITS = 3072
# Kinds of keys; the number of bits of an RSA key is looked at beside.
GOOD_KEYS = ("ssh-ed25519", "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com", "ssh-rsa")
WHERE = "group_vars/all/people.yml"
UTC = datetime.UTC
ROOT_DAYS = 92  # how long an identity of automation with unlimited root may last without a new review

Entry = dict[str, Any]


# Keys


def fields(blob: bytes) -> list[bytes]:
    """The strings that a public key is made of (RFC 4253, 6.6)."""
    found = []
    while blob:
        length = struct.unpack(">I", blob[:4])[0]
        if len(blob) < 4 + length:
            raise ValueError("it is cut short")
        found.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    return found


def key_trouble(text: str) -> str | None:
    """What is wrong with a public key, or nothing."""
    words = text.split()
    if len(words) < 2:
        return "is not a public key (type, key, comment on one line)"
    kind = words[0]
    if kind not in GOOD_KEYS:
        if kind.startswith("ecdsa-"):
            return "is an ECDSA key: take ed25519 (ssh-keygen -t ed25519) or a hardware key (ssh-keygen -t ed25519-sk)"
        return f"begins with {kind!r}, which is none of {', '.join(GOOD_KEYS)}; options do not belong here"
    try:
        parts = fields(base64.b64decode(words[1], validate=True))
    except (binascii.Error, ValueError, struct.error) as error:
        return f"cannot be read ({error})"
    if not parts or parts[0].decode(errors="replace") != kind:
        return f"says {kind} and is another kind of key"
    if kind == "ssh-rsa":
        bits = int.from_bytes(parts[2], "big").bit_length() if len(parts) > 2 else 0
        if bits < RSA_BITS:
            return f"is an RSA key of {bits} bits, fewer than {RSA_BITS}: ssh-keygen -t ed25519 makes a good one"
    if kind == "ssh-ed25519" and (len(parts) != 2 or len(parts[1]) != 32):
        return "is no ed25519 key"
    return None


def fingerprint(text: str) -> str:
    digest = hashlib.sha256(base64.b64decode(text.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


# Dates


def day(value: Any) -> datetime.date:
    return datetime.date.fromisoformat(str(value))


def end_of(value: Any) -> str:
    """An end in UTC: a day is meant to its last second, a time is exact; empty stays open."""
    text = str(value or "").strip()
    if not text:
        return ""
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        when = datetime.datetime.combine(day(text) + datetime.timedelta(days=1), datetime.time(), UTC)
    else:
        when = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        if when.tzinfo is None:
            raise ValueError("a time needs its zone, for example 2026-12-31T18:00Z")
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_over(entry: Entry, now: datetime.datetime) -> bool:
    until = end_of(entry.get("until"))
    return bool(until) and datetime.datetime.fromisoformat(until.replace("Z", "+00:00")) <= now


# What is wrong


def problems(
    people: list[Entry],
    automation: list[Entry],
    reserved: Iterable[str],
    end_required: Iterable[str],
    max_days: int,
) -> list[str]:
    """One sentence for each thing that is wrong. What is over is not wrong: the hosts see to that."""
    found: list[str] = []
    owners: dict[str, str] = {}
    names: set[str] = set()
    for entry in [*people, *automation]:
        name = str(entry.get("name", ""))
        found += [f"{name or 'an entry without a name'} ({WHERE}): {text}." for text in _entry_problems(entry)]
        if name in names:
            found.append(f"{name} ({WHERE}) is there twice.")
        if name in set(reserved):
            found.append(f"{name} ({WHERE}) is the name of an account that is there for another purpose.")
        names.add(name)
        if entry.get("state", "present") == "left":
            continue
        for key in entry.get("keys") or []:
            if key_trouble(str(key)):
                continue
            mark = fingerprint(str(key))
            if owners.setdefault(mark, name) != name:
                found.append(f"{name} ({WHERE}) has a key that is {owners[mark]}'s too ({mark}): a key names one.")
    for entry in people:
        found += [
            f"{entry.get('name')} ({WHERE}): {text}." for text in _person_problems(entry, set(end_required), max_days)
        ]
    for entry in automation:
        found += [f"{entry.get('name')} ({WHERE}): {text}." for text in _automation_problems(entry)]
    return found


def _entry_problems(entry: Entry) -> Iterable[str]:
    if not NAME.match(str(entry.get("name", ""))):
        yield "name is to be a login: two to 31 of a-z, 0-9 and -, a letter first"
    if not TICKET.match(str(entry.get("ticket", ""))):
        yield "ticket is to name where this was asked for and approved, such as OPS-12"
    if not str(entry.get("approved_by") or "").strip():
        yield "approved_by is empty"
    elif str(entry["approved_by"]).strip() in (entry.get("name"), entry.get("full_name")):
        yield "approved_by is the person itself: it takes somebody else"
    for field in ("since", "left"):
        if entry.get(field):
            try:
                day(entry[field])
            except ValueError:
                yield f"{field} is no day such as 2026-11-24"
    try:
        end_of(entry.get("until"))
    except ValueError as error:
        yield f"until is neither a day such as 2026-12-31 nor a time such as 2026-12-31T18:00Z ({error})"
    if not entry.get("since"):
        yield "since is missing: the day from which the entry holds"
    if entry.get("state", "present") == "left":
        if not entry.get("left"):
            yield "state is left, so `left` is to say since which day"
        if not TICKET.match(str(entry.get("left_ticket") or "")):
            yield "state is left, so left_ticket is to name the ticket"
        return
    if not entry.get("keys"):
        yield "keys is empty"
    for number, key in enumerate(entry.get("keys") or [], 1):
        trouble = key_trouble(str(key))
        if trouble:
            yield f"key {number} {trouble}"


def _span(entry: Entry) -> int | None:
    """Days from since to until."""
    try:
        until, since = end_of(entry.get("until")), day(entry.get("since"))
    except ValueError:
        return None
    return (datetime.datetime.fromisoformat(until[:-1]).date() - since).days if until else None


def _person_problems(entry: Entry, end_required: set[str], max_days: int) -> Iterable[str]:
    if entry.get("state", "present") == "left":
        return
    if entry.get("role") in end_required and not entry.get("until"):
        yield f"the role {entry['role']} wants an end date (until)"
    span = _span(entry)
    if span is not None and span < 0:
        yield "until is before since"
    if span is not None and span > max_days:
        yield f"until is {span} days after since, more than deployers_max_days ({max_days})"


def _automation_problems(entry: Entry) -> Iterable[str]:
    if entry.get("state", "present") == "left":
        return
    commands = entry.get("commands") or {}
    if bool(commands) == bool(entry.get("root")):
        yield "it takes either commands or root: true"
    for name, command in commands.items():
        if not re.fullmatch(r"[a-z][a-z0-9-]*", str(name)):
            yield f"the command {name!r} is to be named by a word"
        if not re.fullmatch(r"/[A-Za-z0-9/._-]+( [A-Za-z0-9/._=:@%+-]+)*", str(command)):
            yield f"the command {name} is to be a whole path with plain words, without patterns"
    if entry.get("root"):
        span = _span(entry)
        if span is None or span > ROOT_DAYS:
            yield f"root without limits wants an end date (until) within {ROOT_DAYS} days of since"
        if not entry.get("from"):
            yield "root without limits wants the addresses that it comes from (from)"


# What it means for a host


def concerns(entry: Entry, host: str, groups: Iterable[str]) -> bool:
    """Whether an entry is about this host. A leaver's is about all: nowhere shall they come back."""
    if entry.get("state", "present") == "left":
        return True
    return bool({"all", host, *groups} & set(entry.get("hosts") or ["all"]))


def accounts(
    people: list[Entry],
    automation: list[Entry],
    shared: list[Entry],
    host: str,
    groups: Iterable[str],
    settings: dict[str, Any],
) -> list[Entry]:
    """What the module `people` is to make of them. settings: groups and key options of each role."""
    found = [{"until": "", "since": "", "ticket": "", **entry} for entry in shared]
    group_names = list(groups)
    for entry in people:
        if concerns(entry, host, group_names):
            role = settings[entry["role"]]
            found.append(
                _account(entry, "person", entry["role"], [role["group"]], "", role["options"], entry["full_name"])
            )
    for entry in automation:
        if concerns(entry, host, group_names):
            group, options = settings["automation"]["group"], settings["automation"]["options"]
            if entry.get("from"):
                options = ",".join(part for part in (options, f'from="{",".join(entry["from"])}"') if part)
            found.append(_account(entry, "automation", "automation", [group], group, options, entry["purpose"]))
    return found


def _account(entry: Entry, kind: str, role: str, groups: list[str], primary: str, options: str, comment: str) -> Entry:
    left = entry.get("state", "present") == "left"
    return {
        "name": entry["name"],
        "kind": kind,
        "role": role,
        "state": "left" if left else "present",
        "comment": re.sub(r"[:,=\n]", " ", comment),
        "primary_group": primary,
        "groups": [group for group in groups if group != primary],
        "options": options,
        "keys": [] if left else [" ".join(str(key).split()) for key in entry["keys"]],
        "until": "" if left else end_of(entry.get("until")),
        "since": str(entry["since"]),
        "ticket": str(entry["left_ticket"] if left else entry["ticket"]),
        "spent": [str(entry["ticket"])] if left else [],
    }
