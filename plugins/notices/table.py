"""How the app's hosts stand, as `releasectl status` told of each: one table, and what is not as it should be."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

GROUPS = ("edge", "app", "worker", "scheduler")
TITLES = ("host", "groups", "live", "since (UTC)", "previous", "settings", "drift", "free disk", "lock", "state")
MARK = 8  # characters of the settings' fingerprint in the table
LOCK = 28  # characters of a lock's holder in the table; the line below it has all

# Host -> {"groups": […], "reached": bool, "msg": why not, and else what releasectl status answers}
Hosts = Mapping[str, Mapping[str, Any]]


def table(hosts: Hosts) -> list[str]:
    """The lines: a row for each host, then what a cell is too small for."""
    rows = [TITLES, *(_row(name, said) for name, said in hosts.items())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(TITLES))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    notes = [note for name, said in hosts.items() for note in _notes(name, said)]
    return [*lines, *(["", *notes] if notes else [])]


def _row(name: str, said: Mapping[str, Any]) -> tuple[str, ...]:
    groups = " ".join(group for group in GROUPS if group in said["groups"]) or "-"
    if not said["reached"]:
        return (name, groups, "?", *["-"] * (len(TITLES) - 4), "NOT REACHED" if said.get("lost") else "NO ANSWER")
    live, lease = said.get("live") or {}, said.get("lease")
    return (
        name,
        groups,
        str(live.get("release") or "nothing"),
        _time(live.get("since")),
        str(said.get("previous") or "-"),
        _mark(said)[:MARK] or "-",
        str(len(said.get("drift") or [])) if said.get("drift") else "-",
        ", ".join(_free(one) for one in said.get("disk") or []) or "-",
        _short(str(lease["holder"])) if lease else "-",
        _state(said),
    )


def _mark(said: Mapping[str, Any]) -> str:
    """By which a host's settings are told from those of others; empty where it runs nothing of the app."""
    return str(said.get("fingerprint") or "").partition("-")[2] if said.get("processes") else ""


def settings(hosts: Hosts) -> str:
    """A sentence when hosts that run the app do so with different settings, or cannot be compared."""
    marks: dict[str, list[str]] = {}
    keys: dict[str, list[str]] = {}
    for name, said in hosts.items():
        if said["reached"] and _mark(said):
            marks.setdefault(_mark(said), []).append(name)
            keys.setdefault(str(said["fingerprint"]).partition("-")[0], []).append(name)
    if len(keys) > 1:
        return (
            "Whether the hosts run with the same settings cannot be told, since their keys differ:"
            f" {'; '.join(', '.join(names) for names in keys.values())}. Run settings.yml for all of them."
        )
    if len(marks) > 1:
        what = "; ".join(f"{mark[:MARK]} on {', '.join(names)}" for mark, names in marks.items())
        return f"The hosts differ in their settings: {what}."
    return ""


def _state(said: Mapping[str, Any]) -> str:
    words = [word for key, word in (("maintenance", "closed"), ("drained", "drained")) if said.get(key)]
    if said.get("door") == "shut" and not said.get("drained"):
        words.append("door shut")
    return ", ".join(words) or "open"


def _time(text: object) -> str:
    return str(text).replace("T", " ").removesuffix("Z") if text else "-"


def _short(text: str) -> str:
    return text if len(text) <= LOCK else text[: LOCK - 1] + "…"


def _free(one: Mapping[str, Any]) -> str:
    """Of a file system: how much, of how much, and how much that is."""
    free, total = int(one["free"]), int(one["total"])
    return f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB ({100 * free // total if total else 0} %)"


def _notes(name: str, said: Mapping[str, Any]) -> Iterable[str]:
    if not said["reached"]:
        yield f"{name}: {said['msg']}"
        return
    for line in said.get("drift") or []:
        yield f"{name}: drift: {line}"
    if waiting := said.get("settings_waiting"):
        yield f"{name}: {waiting} was delivered and is not in force"
    if lease := said.get("lease"):
        when = f"since {lease['since']}, until {lease['expires']}"
        yield f"{name}: locked by {lease['holder']} for '{lease['purpose']}' {when}"
    if closed := said.get("maintenance"):
        yield f"{name}: closed for maintenance by {closed['by']} since {closed['at']}: {closed['because']}"
    if drained := said.get("drained"):
        yield f"{name}: drained by {drained['by']} since {drained['since']}: {drained['because']} (releasectl undrain)"
    if len(said.get("disk") or []) > 1:
        yield f"{name}: free disk: " + ", ".join(f"{_free(one)} for {one['paths'][0]}" for one in said["disk"])


def closing(hosts: Hosts) -> str:
    """One sentence or two: what is live, and what is not as it should be."""
    live: dict[str, list[str]] = {}
    for name, said in hosts.items():
        if said["reached"]:
            live.setdefault(str((said.get("live") or {}).get("release") or "nothing"), []).append(name)
    missing = [name for name, said in hosts.items() if not said["reached"]]
    drift = {name: len(said["drift"]) for name, said in hosts.items() if said["reached"] and said.get("drift")}
    what = "; ".join(f"{release} on {', '.join(names)}" for release, names in live.items())
    found = [f"The hosts differ in what is live: {what}." if len(live) > 1 else f"Live is {what}."] if live else []
    waiting = [name for name, said in hosts.items() if said["reached"] and said.get("settings_waiting")]
    unsettled = [differ] if (differ := settings(hosts)) else []
    unsettled += [f"New settings wait on {', '.join(waiting)}: settings.yml puts them in force."] if waiting else []
    found += unsettled
    if drift:
        where = ", ".join(f"{name} ({count})" for name, count in drift.items())
        found.append(f"Drift on {where}: 'sudo releasectl reconcile' there mends it.")
    elif len(live) == 1 and not missing and not unsettled:
        found.append("Nothing disagrees.")
    if missing:
        found.append(f"Without an answer: {', '.join(missing)}.")
    return " ".join(found)


def document(app: str, environment: str, hosts: Hosts) -> str:
    """The same for machines: one JSON object on one line."""
    told = {name: dict(said) for name, said in hosts.items()}
    whole = {"app": app, "environment": environment, "hosts": told, "message": closing(hosts)}
    return json.dumps(whole, sort_keys=True)
