"""Decide on the controller, before a host is asked, what an audit looks for on it; refuse what cannot be honoured."""

from __future__ import annotations

DOCUMENTATION = r"""
module: audit_plan
short_description: Decide what an audit looks for on a host
description:
  - Reads the catalogue of controls, and refuses it when it is not whole. Refuses exceptions that name no control, or
    give no reason. Connects to nothing.
options:
  exceptions:
    description: "Controls (or tests of Lynis) that are left out here, as {id, reason}."
    type: list
    elements: dict
    default: []
  only:
    description: The controls to plan for; empty, all of them.
    type: list
    elements: str
    default: []
  container_limits:
    description: The hosts are containers; controls that need a kernel of the host's own are not seen.
    type: bool
    default: false
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# This repository's own parts, whatever directory the playbook was called from.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from plugins.auditing import catalogue


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False
    _VALID_ARGS = frozenset(("exceptions", "container_limits", "only"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        variables = task_vars or {}
        exceptions = self._task.args.get("exceptions") or []
        only = [str(one) for one in self._task.args.get("only") or []]
        known = catalogue.load()
        problems = [*known.problems, *catalogue.refused(exceptions, known), *catalogue.strangers(only, known)]
        result["changed"] = False
        if problems:
            # The last lines of the journal are shown; the first problem is the one to begin with.
            more = f" ({len(problems) - 1} more of the kind)" if len(problems) > 1 else ""
            sentence = f"{problems[0]}{more} No host was looked at."
            result.update(failed=True, refused=True, msg=sentence, journal=problems[1:20])
            return result
        planned = catalogue.plan(
            known, exceptions, variables.get("group_names", []), bool(self._task.args.get("container_limits")), only
        )
        checks = [{"id": one["id"], "check": one["check"]} for one in planned if one["treatment"] == "check"]
        result.update(
            began=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            controls=planned,
            checks=checks,
            environment=self._environment(variables),
            exceptions=list(exceptions),
            only=only,
        )
        return result

    def _environment(self, variables: dict[str, Any]) -> dict[str, str]:
        """The shared names and paths, as variables for the checks; never a setting, which may be secret."""
        found = {}
        for name, value in variables.items():
            if name.startswith("app_") and isinstance(value, (str, int)):
                worked_out = self._templar.template(value)
                if isinstance(worked_out, (str, int)):
                    found[name] = str(worked_out)
        return found
