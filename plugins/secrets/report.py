"""How old each secret is, when a new one is due, and who could have read it. It needs no key, and holds no value."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from typing import Any

from plugins.access import entries
from plugins.auditing.report import table
from plugins.secrets.dates import Dates, Since
from plugins.settings.schema import Setting

DAYS = 90
NAMED = re.compile(r"(?<![\w.])secrets\.((?:app\.)?[A-Za-z_]\w*)")
Row = dict[str, Any]


def rows(
    schema: Iterable[Setting],
    dates: Dates,
    settings: Mapping[str, Any],
    of_app: Mapping[str, Any],
    people: Iterable[Row],
    now: datetime.datetime,
) -> list[Row]:
    """One for each secret of the schema, then one for each other of the source.

    ``settings`` and ``of_app`` are app_settings and app_secrets as they are written; what they name says of what a
    secret is made. ``people`` are the entries of people.yml that concern the environment, automation with root too.
    """
    known = list(people)
    written = {**settings, **of_app}
    given = {name: list(dict.fromkeys(NAMED.findall(str(value)))) for name, value in written.items()}
    delivered = {one for made in given.values() for one in made}
    found, seen = [], set()
    for setting in schema:
        if setting.secret:
            own = f"app.{setting.name}"
            made_of = given.get(setting.name) or [own]
            seen |= {own, *made_of}
            since = _oldest([dates.names.get(name, dates.rest) for name in made_of])
            found.append(_row(setting.name, since, setting.rotation, True, known, now))
            found[-1]["made_of"] = [name for name in made_of if name != own]
    for name in sorted(set(dates.names) - seen):
        with_app = name.startswith("app.") or name in delivered
        found.append(_row(name.removeprefix("app."), dates.names[name], {}, with_app, known, now))
    if not dates.names:
        # Names are not seen there without a key.
        found.append(_row("all else that is there", dates.rest, {}, True, known, now))
    return found


def _oldest(dated: list[Since]) -> Since:
    """Of what is made of several: it is as old as the oldest, and unknown when one is."""
    unknown = [one for one in dated if one.when is None]
    oldest = unknown[0] if unknown else min(dated, key=lambda one: (one.when, one.exact))
    readers = dict.fromkeys(reader for one in dated for reader in one.readers)
    return Since(oldest.when, oldest.exact, oldest.whence, tuple(readers))


def _row(
    name: str, since: Since, rotation: Mapping[str, Any], of_app: bool, people: list[Row], now: datetime.datetime
) -> Row:
    age = (now - since.when).days if since.when else None
    days = int(rotation.get("days", DAYS)) if rotation else None
    readers = [one for one in people if of_app or one["role"] == "admin"]
    could = [one for one in readers if _had_access(one, since.when)]
    left = [
        one["name"] for one in could
        if one["left"] and since.when and since.when.date() < datetime.date.fromisoformat(one["left"])
    ]  # fmt: skip
    due, why = False, ""
    if left:
        due, why = True, f"{', '.join(left)} could read it and left"
    elif days is not None and age is not None and age >= days:
        due, why = True, f"{days} days are over"
    elif days is not None and age is not None and since.exact:
        why = f"in {days - age} days"
    elif days is not None:
        why = "unknown"
    return {
        "name": name,
        "since": since.when.strftime("%Y-%m-%dT%H:%M:%SZ") if since.when else None,
        "age_days": age,
        "exact": since.exact,
        "whence": since.whence,
        "rotation_days": days,
        "by": rotation.get("by", ""),
        "how": rotation.get("how", ""),
        "due": due,
        "why": why,
        "made_of": [],
        "keys": list(since.readers),
        "people": [f"{one['name']} ({one['role']}{', left ' + one['left'] if one['left'] else ''})" for one in could],
    }


def _had_access(person: Row, since: datetime.datetime | None) -> bool:
    """Whether they had access at some time since then; where that is unknown, they may have had."""
    end = person["left"] or person["until"][:10]
    return not since or not end or since.date() <= datetime.date.fromisoformat(end)


def people_of(people: Iterable[Row], automation: Iterable[Row], names: set[str]) -> list[Row]:
    """Who is, or was, let in where one of ``names`` is (groups and hosts): name, role, until, left.

    A deployer ships code, which reads all that the app is given; an admin is root, and so is automation with root.
    """
    found = []
    for entry in [*people, *(one for one in automation if one.get("root"))]:
        if {"all", *names} & set(entry.get("hosts") or ["all"]):
            found.append(
                {
                    "name": str(entry["name"]),
                    "role": str(entry.get("role", "admin")),
                    "until": entries.end_of(entry.get("until")),
                    "left": str(entry["left"]) if entry.get("state") == "left" and entry.get("left") else "",
                }
            )
    return found


def age(row: Row) -> str:
    if row["age_days"] is None:
        return "unknown"
    days = f"{row['age_days']} day{'s'[: row['age_days'] != 1]}"
    return days if row["exact"] else f"{days} or more"


def line(row: Row) -> str:
    """One row, for a terminal."""
    said = f"{row['name']}: {age(row)} old" if row["age_days"] is not None else f"{row['name']}: of unknown age"
    said += f", {'DUE: ' if row['due'] else 'due '}{row['why']}" if row["why"] else ", no rotation is said"
    return said + (f"; {row['by']}, {row['how']}" if row["due"] and row["by"] else "")


def closing(found: list[Row]) -> str:
    due, unknown = sum(row["due"] for row in found), sum(row["why"] == "unknown" for row in found)
    said = f"{due} of {len(found)} secrets {'is' if due == 1 else 'are'} due"
    return said + (f", and of {unknown} it is unknown" if unknown else "")


def lines_of(found: list[Row]) -> list[str]:
    """The table for a terminal: what is due first."""
    return [line(row) for row in sorted(found, key=lambda row: not row["due"])]


def markdown(content: Mapping[str, Any]) -> str:
    lines = [f"# Secrets of {content['environment']}, {content['time']}", "", f"**{content['closing']}.**", ""]
    lines += [f"They are kept in {content['place']} ({content['kind']}). Asked by {content['actor']}.", ""]
    lines += table(
        ("secret", "age", "since", "due", "by", "how", "told by"),
        [
            (
                row["name"] + (f" (made of {', '.join(row['made_of'])})" if row["made_of"] else ""),
                age(row),
                row["since"] or "",
                f"**{row['why']}**" if row["due"] else row["why"] or "no rotation is said",
                row["by"],
                row["how"],
                row["whence"],
            )
            for row in content["secrets"]
        ],
    )
    lines += ["## Who could have read them, since they are what they are", ""]
    lines += table(
        ("secret", "by a key", "by access to the hosts"),
        [(row["name"], ", ".join(row["keys"]), ", ".join(row["people"]) or "nobody") for row in content["secrets"]],
    )
    return "\n".join(lines).rstrip() + "\n"
