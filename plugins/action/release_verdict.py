"""Judge a deploy by what its hosts went through: whether it failed, what to take back, what to tell at the end."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# This repository's own parts, whatever directory the playbook was called from.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from plugins.verdict import ended, left_out, registered

# What the tasks of a deploy leave behind on each host.
REGISTERS = ("status", "lease", "prepared", "activated", "trouble", "undone", "discarded", "cleared")

GROUPS = ("edge", "app", "worker", "scheduler")


def went(result: Any) -> bool:
    """Whether a registered task ran to a good end."""
    return isinstance(result, Mapping) and not any(result.get(k) for k in ("failed", "skipped", "unreachable"))


def there(facts: dict[str, Any], release: str) -> bool:
    """Whether a host had the release before, and so had nothing to do."""
    live = (facts.get("status") or {}).get("live") or {}
    return bool(release) and live.get("release") == release and went(facts.get("lease"))


def judge(hosts: dict[str, dict[str, Any]], release: str = "") -> dict[str, Any]:
    """Find the first reason for failure, and who has to go back or to throw the release away."""
    live = [name for name, facts in hosts.items() if went(facts.get("activated"))]
    troubles = {name: facts["trouble"] for name, facts in hosts.items() if facts.get("trouble")}
    lost = [n for n, facts in hosts.items() if n not in live and n not in troubles and not there(facts, release)]
    # A host is silent because it could not be reached, or because another one failed before it.
    lost = [name for name in lost if not went(hosts[name].get("lease"))] if troubles else lost
    reasons = [(name, _sentence(trouble.get("msg"))) for name, trouble in troubles.items()]
    reasons += [(name, "could not be reached.") for name in lost]
    journal = next((list(t["journal"]) for t in troubles.values() if t.get("journal")), [])
    failed = bool(reasons)
    built = [name for name, facts in hosts.items() if _made(facts) and name not in live]
    return {
        "troubled": failed,
        "reasons": _spoken(reasons, len(hosts)),
        "journal": journal,
        "undo": live if failed else [],
        "discard": built if failed else [],
    }


def _made(facts: dict[str, Any]) -> bool:
    """Whether this deploy made the release on a host, and the host has not thrown it away by itself. One that was live
    there on trial stays, as after a rollback: its last requests may still be served.
    """
    prepared, trouble = facts.get("prepared") or {}, facts.get("trouble") or {}
    gone = trouble.get("discarded") or trouble.get("was_live")
    return went(prepared) and bool(prepared.get("changed")) and not gone


def _sentence(text: Any) -> str:
    said = " ".join(str(text or "").split()) or "A task failed."
    return said if said.endswith((".", "!", "?")) else said + "."


def _spoken(reasons: list[tuple[str, str]], hosts: int) -> str:
    """Say the same reason once, and where when there is more than one host."""
    grouped: dict[str, list[str]] = {}
    for name, reason in reasons:
        grouped.setdefault(reason, []).append(name)
    if hosts == 1 and "could not be reached." not in grouped:
        return " ".join(grouped)
    return " ".join(f"{', '.join(names)}: {reason}" for reason, names in grouped.items())


def close(hosts: dict[str, dict[str, Any]], release: str, left_out: Sequence[str] = ()) -> dict[str, Any]:
    """Tell in one sentence what happened, and in what state it leaves things; ``left_out`` are hosts of the app that
    this deploy was told to leave alone.
    """
    verdict = judge(hosts, release)
    before = sorted({str((f.get("status") or {}).get("live", {}).get("release")) for f in _asked(hosts)})
    if not verdict["troubled"]:
        had = [name for name, facts in hosts.items() if there(facts, release)]
        where = ", ".join(name for name in hosts if name not in had)
        replaced = [one for one in before if one != release]
        instead = f" in place of {' and '.join(replaced)}" if replaced else ", the first release"
        told = f"{release} is live on {where}{instead}."
        told += f" {', '.join(had)} had it already." if had else ""
        told += _left_out(left_out)
        return {**verdict, "closing": f"{told}{_warnings(hosts)}"}
    stuck = [name for name in hosts if name in verdict["undo"] and not went(hosts[name].get("undone"))]
    back = [name for name in verdict["undo"] if name not in stuck]
    still = f"{' and '.join(before)} still serves" if before else "nothing is live yet"
    after = f"nothing was switched, {still}."
    # A host that watched the release went back by itself.
    went_back = {name: str(hosts[name]["undone"].get("release")) for name in back}
    went_back |= {name: str(target) for name, facts in hosts.items() if (target := _went_back(facts))}
    back = [name for name in hosts if name in went_back]
    if back:
        targets = sorted(set(went_back.values()))
        after = f"{', '.join(back)} went back to {' and '.join(targets)}."
        breaking = sorted({str(m) for name in back for m in (hosts[name].get("undone") or {}).get("breaking") or []})
        if breaking:
            after += (
                f" It may not work with what was migrated meanwhile, {', '.join(breaking)}: see docs/ops/restore.md."
            )
    if stuck:
        causes = {_sentence((hosts[name].get("undone") or {}).get("msg", "it was not reached")) for name in stuck}
        after = f"{', '.join(stuck)} could not go back: {' '.join(sorted(causes))}"
    return {**verdict, "closing": f"{release} was not deployed. {verdict['reasons']} Outcome: {after}"}


def _left_out(names: Sequence[str]) -> str:
    """Name the hosts that would come back with what they had."""
    if not names:
        return ""
    who = "keeps what it has" if len(names) == 1 else "keep what they have"
    return f" Left out: {', '.join(names)}, which {who} until the next deploy, or the same one again."


def _went_back(facts: dict[str, Any]) -> str:
    return str((facts.get("trouble") or {}).get("went_back") or "")


def _warnings(hosts: dict[str, dict[str, Any]]) -> str:
    """Tell what went wrong without undoing anything: a hook after the switch."""
    told: dict[str, None] = {}
    for facts in hosts.values():
        told |= dict.fromkeys(str(line) for line in (facts.get("activated") or {}).get("hook_warnings") or [])
    return f" Warning: {'; '.join(told)}." if told else ""


def _asked(hosts: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the hosts that said what was live, even where that was the reason to refuse."""
    return [facts for facts in hosts.values() if (facts.get("status") or {}).get("live")]


class ActionModule(ActionBase):
    """`release_verdict: {release: …}` judges; with `close: true` it ends the run, well or badly."""

    _VALID_ARGS = frozenset(("release", "close"))
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        hosts = registered(variables, "__release_", REGISTERS)
        release = str(self._task.args.get("release"))
        if not self._task.args.get("close"):
            return {"changed": False, "msg": "", **judge(hosts, release)}
        end = close(hosts, release, left_out(variables, GROUPS, hosts))
        return ended(end)
