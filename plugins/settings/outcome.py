"""How a change of settings went, over all of its hosts: who goes back, and the sentence at the end; never a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# What the tasks leave behind on each host, as __envdir_<name>.
REGISTERS = ("lease", "installed", "adopted", "trouble", "undone")

Hosts = Mapping[str, Mapping[str, Any]]


def went(result: Any) -> bool:
    """Whether a registered task ran to a good end."""
    return isinstance(result, Mapping) and not any(result.get(k) for k in ("failed", "skipped", "unreachable"))


def _delivered(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    found = facts.get("installed")
    return found if isinstance(found, Mapping) and went(found) else {}


def _changes(facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """The names that differ from what was in force before, by kind."""
    told = _delivered(facts)
    found = (("changed", "changed_names"), ("added", "added"), ("removed", "removed"))
    return {kind: [str(name) for name in told.get(key) or []] for kind, key in found}


def judge(hosts: Hosts) -> dict[str, Any]:
    """The reasons for failure, and which hosts have to go back from what: ``undo`` is version by host."""
    troubles = {name: facts["trouble"] for name, facts in hosts.items() if facts.get("trouble")}
    lost = [name for name, facts in hosts.items() if name not in troubles and not went(facts.get("adopted"))]
    # A host is silent because it could not be reached, or because another one failed before it.
    lost = [name for name in lost if not went(hosts[name].get("lease"))] if troubles else lost
    reasons: dict[str, list[str]] = {}
    for name, trouble in troubles.items():
        reasons.setdefault(_sentence(trouble.get("msg")), []).append(name)
    for name in lost:
        reasons.setdefault("could not be reached.", []).append(name)
    # Whether it waits still, is in force by now or was taken back already is for the host to see.
    undo = {name: str(told["version"]) for name, facts in hosts.items() if (told := _delivered(facts)).get("waiting")}
    return {
        "troubled": bool(reasons),
        "reasons": " ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items()),
        "journal": next((list(one["journal"]) for one in troubles.values() if one.get("journal")), []),
        "undo": undo if reasons else {},
    }


def _sentence(text: Any) -> str:
    said = " ".join(str(text or "").split()) or "A task failed."
    return said if said.endswith((".", "!", "?")) else said + "."


def _by_change(hosts: Hosts) -> str:
    """Which names differ where; hosts of one change are named together."""
    grouped: dict[str, list[str]] = {}
    for name, facts in hosts.items():
        told = "; ".join(f"{kind} {', '.join(names)}" for kind, names in _changes(facts).items() if names)
        if told:
            grouped.setdefault(told, []).append(name)
    return ". ".join(f"{', '.join(names)}: {told}" for told, names in grouped.items())


def close(hosts: Hosts, check: bool = False, left_out: Iterable[str] = ()) -> dict[str, Any]:
    """The sentence, with what state things are left in."""
    what = _by_change(hosts)
    everywhere = ", ".join(hosts)
    if check:
        # Nobody puts anything in force then: who could be looked at has done his part.
        verdict = {
            **judge({name: {**facts, "adopted": facts.get("installed")} for name, facts in hosts.items()}),
            "undo": {},
        }
        told = f"Settings would change. {what}." if what else f"The settings are in force on {everywhere} already."
        told = f"Not every host could be looked at. {verdict['reasons']}" if verdict["troubled"] else told
        return {**verdict, "closing": f"{told} Nothing was done (check mode)."}
    verdict = judge(hosts)
    if verdict["troubled"]:
        after = _after(hosts, verdict)
        return {**verdict, "closing": f"The settings were not changed. {verdict['reasons']} Outcome: {after}"}
    told = f"New settings are in force. {what}." if what else f"The settings are in force on {everywhere}"
    restarted = {name: facts["adopted"] for name, facts in hosts.items() if (facts.get("adopted") or {}).get("release")}
    if restarted:
        releases = sorted({str(answer["release"]) for answer in restarted.values()})
        told += f"{'' if what else '.'} {' and '.join(releases)} was restarted with them on {', '.join(restarted)}."
    elif not what:
        told += " already, nothing was changed."
    if untried := [name for name, facts in hosts.items() if "untried" in str((facts.get("adopted") or {}).get("msg"))]:
        told += f" Untried on {', '.join(untried)}: what starts next has them."
    rest = list(left_out)
    told += f" Left out: {', '.join(rest)}." if rest else ""
    return {**verdict, "closing": told}


def _after(hosts: Hosts, verdict: Mapping[str, Any]) -> str:
    """In what state the hosts are left."""
    stuck = [name for name in verdict["undo"] if not went(hosts[name].get("undone"))]
    if stuck:
        causes = {_sentence((hosts[name].get("undone") or {}).get("msg", "it was not reached")) for name in stuck}
        return f"{', '.join(stuck)} could not go back: {' '.join(sorted(causes))} Run this again."
    back = [name for name in verdict["undo"] if (hosts[name].get("undone") or {}).get("generation")]
    if back:
        return f"{', '.join(back)} went back to the settings of before; those are in force everywhere."
    return "the settings of before are in force everywhere."
