"""Report on the secrets of an environment: their age, what is due, who could have read them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: secrets_report
short_description: Report on the age of secrets, what is due, and who could have read them
description:
  - Writes C(secrets-<environment>-<time>.json) and C(.md) into a directory on the controller, and says what is due. It
    runs on the controller, connects to no host, needs no key and reads no value. AWS is asked for a date.
options:
  directory: {description: Where the reports are., type: path, required: true}
  schema: {description: The schema of the app's settings (C(app_settings_schema))., type: dict, default: {}}
  people: {description: The entries of C(deployers_people)., type: list, elements: dict, default: []}
  automation: {description: The entries of C(deployers_automation)., type: list, elements: dict, default: []}
  fail: {description: Fail when one is due., type: bool, default: false}
"""

import datetime
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from plugins.action.access import environment_of
from plugins.action.audit_report import write
from plugins.action.releasectl import actor
from plugins.secrets import asked, dates, report
from plugins.secrets.source import Refused
from plugins.settings import schema as schemas

LISTS: dict[str, Any] = {"type": "list", "elements": "dict", "default": []}


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(
            {
                "directory": {"type": "path", "required": True},
                "schema": {"type": "dict", "default": {}},
                "people": LISTS,
                "automation": LISTS,
                "fail": {"type": "bool", "default": False},
            }
        )
        variables = task_vars or {}
        if not asked.is_set(variables):
            return {
                **result,
                "failed": True,
                "msg": "secrets_source is not set, so nothing is known of the secrets' age: set it in"
                " group_vars/<environment>/main.yml (docs/ops/secrets.md).",
            }
        try:
            schema = schemas.parse(given["schema"])
            source = asked.source(variables, self._templar, self._loader)
            known = dates.of(source)
        except schemas.Misread as misread:
            return {**result, "failed": True, "msg": "\n".join(misread.problems)}
        except (Refused, AnsibleError) as error:
            return {**result, "failed": True, "msg": str(error)}
        now = datetime.datetime.now(datetime.UTC)
        groups = variables.get("group_names", [])
        names = {*groups, *(variables.get("groups") or {}).get("all", [])}
        found = report.rows(
            schema,
            known,
            _written(variables.get("app_settings")),
            _written(variables.get("app_secrets")),
            report.people_of(given["people"], given["automation"], names),
            now,
        )
        content = {
            "time": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "environment": environment_of(groups),
            "actor": actor(),
            "kind": source.kind,
            "place": source.place,
            "closing": report.closing(found),
            "secrets": found,
        }
        place = Path(given["directory"]).resolve()
        stem = place / f"secrets-{content['environment']}-{now:%Y%m%dT%H%M%SZ}"
        if not self._task.check_mode:
            place.mkdir(mode=0o750, parents=True, exist_ok=True)
            write(Path(f"{stem}.json"), json.dumps(content, indent=2, ensure_ascii=False) + "\n")
            write(Path(f"{stem}.md"), report.markdown(content))
        closing = f"{content['closing']}" + ("." if self._task.check_mode else f"; see {stem}.md")
        answer = {"changed": False, "table": report.lines_of(found), "closing": closing, "msg": closing}
        if given["fail"] and any(row["due"] for row in found):
            # `refused`: the answer is a finding, no fault of the machinery.
            return {**result, **answer, "failed": True, "refused": True}
        return {**result, **answer}


def _written(raw: Any) -> Mapping[str, Any]:
    """A variable as it is written: what a value is made of, and not the value."""
    return raw if isinstance(raw, Mapping) else {}
