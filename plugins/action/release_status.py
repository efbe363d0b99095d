"""Ask a host how the app stands on it; or, of all that were asked, make one table."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

# This repository's own parts, whatever directory the playbook was called from.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from plugins.action.releasectl import ActionModule as Releasectl
from plugins.notices import table

FORMATS = ("table", "json")
ENVIRONMENTS = ("production", "staging", "lab")
# What the machinery of a task puts into its result, and the sentence, which is made of the rest.
OURS = ("changed", "failed", "refused", "exit", "journal", "msg", "invocation")


def wrong_words(variables: Mapping[str, Any]) -> str:
    """The sentence about what was typed, empty when it can be meant."""
    given = variables.get("status_format", "table")
    if given not in FORMATS:
        return f"status_format is {str(given)[:40]!r}: there are {' and '.join(FORMATS)}."
    strange = [name for name in variables if str(name).startswith("status_") and name != "status_format"]
    return f"{strange[0]} is not a variable of status.yml: it knows status_format." if strange else ""


def entry(groups: list[str], answer: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is told of one host."""
    answer = answer or {"lost": True, "msg": "it was not asked"}
    if answer.get("lost") or answer.get("failed") or "releases" not in answer:
        return {"groups": groups, "reached": False, "lost": bool(answer.get("lost")), "msg": str(answer.get("msg"))}
    return {"groups": groups, "reached": True, **{key: value for key, value in answer.items() if key not in OURS}}


class ActionModule(Releasectl):
    """`release_status: {}` asks the host; that it cannot be reached is an answer too, so that the others are shown.

    `release_status: {table: true}` makes the table of what was registered as C(__release_status), and fails when a
    host gave no answer.
    """

    _VALID_ARGS = frozenset(("table",))
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        ActionBase.run(self, tmp, task_vars)
        variables = task_vars or {}
        if self._task.args.get("table"):
            return self._table(variables)
        if wrong := wrong_words(variables):
            return {"failed": True, "refused": True, "changed": False, "msg": wrong}
        try:
            answer = self._ask("status", {})
        except AnsibleConnectionFailure as failure:
            return {"changed": False, "lost": True, "msg": " ".join(str(failure).split())[:300]}
        if answer.get("failed"):
            return {"changed": False, "msg": answer["msg"]}
        # As a sentence it is the report for one host; here it is a row.
        return {**answer, "msg": ""}

    def _table(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        hosts = {}
        for name in variables["ansible_play_hosts_all"]:
            known = variables["hostvars"][name]
            groups = [str(group) for group in known.get("group_names") or []]
            hosts[str(name)] = entry(groups, known.get("__release_status"))
        groups = [str(group) for group in variables.get("group_names") or []]
        environment = next((one for one in ENVIRONMENTS if one in groups), "other")
        closing = table.closing(hosts)
        bad = any(not said["reached"] for said in hosts.values())
        as_json = variables.get("status_format") == "json"
        document = table.document(str(variables.get("app_name", "app")), environment, hosts)
        return {
            "changed": False,
            "failed": bad,
            "refused": bad,
            "msg": closing,
            "closing": closing,
            "table": [document] if as_json else table.table(hosts),
        }
