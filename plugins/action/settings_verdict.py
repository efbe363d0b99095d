"""Judge a change of settings by what its hosts went through: whether it failed, who goes back, what to tell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# This repository's own parts, whatever directory the playbook was called from.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from plugins.settings import outcome
from plugins.verdict import ended, left_out, registered

GROUPS = ("app", "worker", "scheduler")


class ActionModule(ActionBase):
    """`settings_verdict: {}` judges; with `close: true` it ends the run, well or badly."""

    _VALID_ARGS = frozenset(("close",))
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        hosts = registered(variables, "__envdir_", outcome.REGISTERS)
        if not self._task.args.get("close"):
            return {"changed": False, "msg": "", **outcome.judge(hosts)}
        end = outcome.close(hosts, self._task.check_mode, left_out(variables, GROUPS, hosts))
        return ended(end)
