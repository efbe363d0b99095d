"""How a change of settings went, over all of its hosts: who goes back, and the sentence at the end; never a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# What the tasks leave behind on each host, as __envdir_<name>.
REGISTERS = ("status", "lease", "installed", "adopted", "trouble", "undone")

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
    return {
        "troubled": bool(reasons),
        "reasons": " ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items()),
        "journal": next((list(one["journal"]) for one in troubles.values() if one.get("journal")), []),
        "undo": _undo(hosts) if reasons else {},
    }


def _undo(hosts: Hosts) -> dict[str, str]:
    """Which version each host leaves. Whether it waits still, is in force by now or was taken back already is for the
    host to see. A host that had it in force before this run, as when an earlier one died or was limited to it, goes
    back with the others where what it replaced there is what they have in force, by the fingerprint.
    """
    told = {name: _delivered(facts) for name, facts in hosts.items()}
    waited = {name: str(one["version"]) for name, one in told.items() if one.get("waiting")}
    before = {_status(hosts[name]).get("settings_fingerprint") for name in waited}
    undo = {}
    for name, one in told.items():
        adopted = _status(hosts[name]).get("settings_adopted") or {}
        earlier = adopted.get("version") == one.get("version") and adopted.get("fingerprint")
        if name in waited or (earlier and before == {earlier}):
            undo[name] = str(one["version"])
    return undo


def _status(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    found = facts.get("status")
    return found if isinstance(found, Mapping) and went(found) else {}


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
        same = all(name in verdict["undo"] and went(hosts[name].get("undone")) for name in hosts)
        begins = "The settings were not changed." if same else "The new settings are not in force everywhere."
        rest = list(left_out)
        after += f" Left out: {', '.join(rest)}." if rest else ""
        return {**verdict, "closing": f"{begins} {verdict['reasons']} Outcome: {after}"}
    told = f"New settings are in force. {what}." if what else f"The settings are in force on {everywhere}"
    restarted = {name: facts["adopted"] for name, facts in hosts.items() if (facts.get("adopted") or {}).get("release")}
    if restarted:
        releases = sorted({str(answer["release"]) for answer in restarted.values()})
        told += f"{'' if what else '.'} {' and '.join(releases)} was restarted with them on {', '.join(restarted)}."
    elif not what:
        told += " already, nothing was changed."
    if untried := [name for name, facts in hosts.items() if "untried" in str((facts.get("adopted") or {}).get("msg"))]:
        told += f" Untried on {', '.join(untried)}: the next deploy, rollback or restart has them, a reboot not."
    rest = list(left_out)
    told += f" Left out: {', '.join(rest)}." if rest else ""
    return {**verdict, "closing": told}


def _after(hosts: Hosts, verdict: Mapping[str, Any]) -> str:
    """In what state each host is left."""
    undo = verdict["undo"]
    stuck = [name for name in undo if not went(hosts[name].get("undone"))]
    old = [name for name in undo if name not in stuck]
    back = [name for name in old if (hosts[name].get("undone") or {}).get("generation")]
    kept = [name for name, facts in hosts.items() if name not in undo and _delivered(facts)]
    others = [name for name, facts in hosts.items() if not _delivered(facts)]
    begun = [name for name in others if went(hosts[name].get("lease"))]
    told = []
    if old:
        went_back = f"{', '.join(back)} went back; " if back else ""
        told.append(f"{went_back}the settings of before are in force on {', '.join(old)}.")
    if kept:
        told.append(
            f"What was to be delivered is in force on {', '.join(kept)} without a trial in this run, and stays there"
            + (": apply the last good tag (docs/ops/configuration-rollback.md) or run this again." if undo else ".")
        )
    if idle := [name for name in others if name not in begun]:
        told.append(f"Nothing was delivered to {', '.join(idle)}.")
    if begun:
        told.append(f"What {', '.join(begun)} has is not known: 'sudo releasectl status' says it there.")
    if stuck:
        causes = {_sentence((hosts[name].get("undone") or {}).get("msg", "it was not reached")) for name in stuck}
        told.append(f"{', '.join(stuck)} could not go back: {' '.join(sorted(causes))} Run this again.")
    return " ".join(told)
