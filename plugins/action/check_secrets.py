"""Ask the source of secrets before the first host is touched."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_secrets
short_description: See that the source of secrets opens and has what the variables name
description:
  - Reads what C(secrets_source) leads to, and refuses with a sentence when that cannot be, or when a variable names a
    secret (C(secrets.NAME)) that is not in it. Where no source is set it says so and is content.
  - Runs on the controller and connects to nothing.
options:
  playbook:
    description: The playbook whose plays say which roles a host gets. What is said of others is not asked for.
    type: path
    required: true
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)

from plugins.action.check_variables import roles_of
from plugins.secrets import asked
from plugins.secrets.source import Refused

# secrets.NAME in a template; what has a default of its own, or asks whether it is there, may be missing.
OPTIONAL = re.compile(r"(?<![\w.])secrets\.([A-Za-z_]\w*)\s*(?:\|\s*(?:default|d)\b|is\s+(?:not\s+)?defined)")
USES = re.compile(r"(?<![\w.])secrets\.([A-Za-z_]\w*)")


def named(value: Any) -> Iterator[str]:
    """The secrets that a variable cannot do without, wherever in it they are named."""
    if isinstance(value, Mapping):
        for one in value.values():
            yield from named(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from named(one)
    elif isinstance(value, str) and "secrets." in value:
        for template in re.findall(r"\{\{.*?\}\}", value, re.DOTALL):
            yield from (name for name in USES.findall(template) if name not in OPTIONAL.findall(template))


def missing(variables: Mapping[str, Any], there: Iterable[str], others: Iterable[str] = ()) -> dict[str, str]:
    """Each secret that is not there, and the variable that wants it; ``others`` are roles of other hosts."""
    known, found = set(there), {}
    skipped = ("ansible_", "hostvars", "vars", *(f"{role}_" for role in others))
    for variable, value in variables.items():
        if not variable.startswith(skipped):
            found.update({name: variable for name in named(value) if name not in known and name not in found})
    return found


def roles_elsewhere(playbook: Path, groups: Iterable[str]) -> set[str]:
    """The roles of the repository that a host of these groups is not given."""
    plays = yaml.safe_load(playbook.read_text())
    return {path.name for path in (playbook.parent.parent / "roles").iterdir()} - set(roles_of(plays, groups))


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec({"playbook": {"type": "path", "required": True}})
        variables = task_vars or {}
        others = roles_elsewhere(Path(arguments["playbook"]).resolve(), variables.get("group_names", []))
        if not asked.is_set(variables):
            lacking = missing(variables, (), others)
            if lacking:
                name, variable = next(iter(lacking.items()))
                return {
                    **result,
                    **refusal(f"{variable} names secrets.{name}, and secrets_source is not set (docs/ops/secrets.md)."),
                }
            return {**result, "changed": False, "msg": "secrets_source is not set: secrets come with the variables."}
        try:
            source = asked.source(variables, self._templar, self._loader)
            there = source.read()
        except (Refused, AnsibleError) as error:
            return {**result, **refusal(error.message if isinstance(error, AnsibleError) else str(error))}
        problems = [
            f"{variable} names secrets.{name}, which is not in {source.place}: put it there (docs/ops/secrets.md)."
            for name, variable in sorted(missing(variables, there, others).items())
        ]
        if problems:
            return {**result, **refusal(*problems)}
        return {
            **result,
            "changed": False,
            "msg": f"{source.place} ({source.kind}) opens, and has what the variables name.",
        }


def refusal(*problems: str) -> dict[str, Any]:
    said = [*problems, "Nothing was changed. Correct this and run the playbook again."]
    return {"changed": False, "failed": True, "msg": "\n".join(said)}
