"""Check the reviewed file of people on the controller, and have the module of the same name make it so on the host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from plugins.access import entries
from plugins.action.releasectl import actor

OPTIONS = ("people", "automation", "shared", "settings", "reserved", "end_required", "max_days", "check_only")


class ActionModule(ActionBase):
    """See plugins/modules/people.py; with `check_only` nothing but the file is looked at, and no host is asked."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        given = dict(self._task.args)
        own = {name: given.pop(name, None) for name in OPTIONS}
        people, automation = own["people"] or [], own["automation"] or []
        problems = entries.problems(people, automation, own["reserved"], own["end_required"], int(own["max_days"]))
        if problems:
            return {**result, "failed": True, "changed": False, "msg": "\n".join([*problems, "Nothing was changed."])}
        if own["check_only"]:
            return {**result, "changed": False}
        wanted = entries.accounts(
            people, automation, own["shared"], variables["inventory_hostname"], variables.get("group_names", []),
            own["settings"],
        )  # fmt: skip
        arguments = {**given, "accounts": wanted, "actor": actor()}
        done: dict[str, Any] = self._execute_module("people", module_args=arguments, task_vars=variables)
        return {**result, **done}
