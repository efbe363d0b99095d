"""Write what an audit found of a host into a dated report on the controller, and judge it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: audit_report
short_description: Write the report of an audit, and judge it
description:
  - Composes the report of one host from the registered results, compares it with the last one of that host, and
    writes it as C(<date>-<host>.json) and C(.md) into a directory on the controller. Only then it fails, when there is
    a reason to.
options:
  directory: {description: Where the reports of this environment are., type: path, required: true}
  environment: {description: The name of the environment., type: str, required: true}
  plan: {description: What C(audit_plan) returned., type: dict, required: true}
  checked: {description: What C(audit_controls) returned., type: dict, required: true}
  lynis: {description: What C(lynis_audit) returned., type: dict}
  lynis_wanted: {description: Whether Lynis was to be run., type: bool, default: true}
  floor: {description: The lowest score of Lynis that passes., type: int, required: true}
  unknown_fails: {description: "Fail for what Lynis says and nobody gave a reason for.", type: bool, default: true}
"""

import getpass
import json
import os
import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

ROOT = Path(__file__).resolve().parents[2]
# So many findings of a host are shown at the end of a run; the report has all.
SHOWN = 19
# This repository's own parts, whatever directory the playbook was called from.
sys.path.append(str(ROOT))

from plugins.action.record_applied import git
from plugins.auditing import catalogue, report


def commit(root: Path = ROOT) -> str:
    """The repository's commit, and whether files differ from it."""
    head = git(root, "rev-parse", "HEAD")
    if head is None:
        return "unknown (no git repository)"
    changed = git(root, "status", "--porcelain", "-uno")
    return head.decode().strip() + (" (with changes that are not committed)" if changed else "")


def write(path: Path, text: str) -> None:
    """Whole or not at all, and not for everybody: a report says what is weak."""
    beside = path.with_name(f".{path.name}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    beside.rename(path)


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            {
                "directory": {"type": "path", "required": True},
                "environment": {"type": "str", "required": True},
                "plan": {"type": "dict", "required": True},
                "checked": {"type": "dict", "required": True},
                "lynis": {"type": "dict"},
                "lynis_wanted": {"type": "bool", "default": True},
                "floor": {"type": "int", "required": True},
                "unknown_fails": {"type": "bool", "default": True},
            }
        )
        host = str((task_vars or {})["inventory_hostname"])
        made = self._compose(host, args)
        directory = Path(args["directory"])
        path = directory / f"{made['date'].replace(':', '-')}-{host}.json"
        result.update(changed=False, report=str(path), closing=made["closing"], msg=made["closing"])
        if not self._task.check_mode:
            directory.mkdir(mode=0o750, parents=True, exist_ok=True)
            write(path, json.dumps(made, indent=1) + "\n")
            write(path.with_suffix(".md"), report.render(made))
        if made["findings"]:
            # `refused`: the answer is a finding, no fault of the machinery.
            result.update(failed=True, refused=True, findings=made["findings"])
            told = [f"{host}: {finding}" for finding in made["findings"][:SHOWN]]
            result["journal"] = [*told, f"{host}: all of it is in {path.with_suffix('.md')}"]
        return result

    def _compose(self, host: str, args: dict[str, Any]) -> dict[str, Any]:
        plan, checked = args["plan"], args["checked"]
        troubles: list[str] = []
        before = report.earlier(Path(args["directory"]), host, troubles)
        answer = (args["lynis"] or {}).get("lynis")
        lynis = None
        if answer:
            lynis = report.judge_lynis(answer, catalogue.load().lynis, plan["exceptions"])
        facts = {
            "host": host,
            "environment": args["environment"],
            "commit": commit(),
            "applied": report.applied(checked.get("applied", "")),
            "system": checked["system"],
            "actor": os.environ.get("SUDO_USER") or getpass.getuser(),
            "began": plan["began"],
            "only": plan["only"],
            "seconds": checked["seconds"],
            "variables": plan["environment"],
            "lynis_wanted": args["lynis_wanted"],
            "troubles": troubles,
        }
        controls = report.results(plan["controls"], checked["results"])
        return report.compose(facts, controls, lynis, before, args["floor"], args["unknown_fails"])
