"""Hold the app's settings against their schema before the first host is touched."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_settings
short_description: Check the app's settings and secrets against app_settings_schema
description:
  - Tells all that is wrong at once, a sentence each and never a value. Missing, malformed and unknown settings, what an
    envdir cannot carry, names that are both a setting and a secret, and secrets that stand in a file of group_vars for
    everybody to read.
  - Runs on the controller and connects to nothing.
options:
  schema:
    description: The schema, C(app_settings_schema). When it is empty nothing is known of names, and only what an envdir
      cannot carry is refused.
    type: dict
    default: {}
  reserved:
    description: Names that somebody else sets.
    type: list
    elements: str
    default: []
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from plugins.settings import schema as schemas

DELIVERED = ("app_settings", "app_secrets")
SOURCES = ("group_vars", "host_vars", "inventories")
# What says of a value that it is kept elsewhere, or encrypted: a template, and ansible-vault's and sops' own marks.
TEMPLATE, VAULT, SOPS = "{{", "!vault", "ENC["


def in_the_clear(root: Path) -> dict[str, str]:
    """The place, `file:line`, of each value of app_settings and app_secrets that is in a file for all to read."""
    found: dict[str, str] = {}
    for path in sorted(path for place in SOURCES for path in (root / place).rglob("*.y*ml")):
        text = path.read_text(errors="replace")
        for name, setting in _written(text) if any(variable in text for variable in DELIVERED) else ():
            value = setting.value if isinstance(setting, yaml.ScalarNode) and setting.tag != VAULT else ""
            if value and TEMPLATE not in value and not value.startswith(SOPS):
                found[name.value] = f"{path.relative_to(root)}:{name.start_mark.line + 1}"
    return found


def _written(text: str) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """The names and the values of app_settings and app_secrets in a file of variables."""
    top = yaml.compose(text, yaml.SafeLoader)  # an encrypted file is one scalar
    for key, value in top.value if isinstance(top, yaml.MappingNode) else ():
        if key.value in DELIVERED and isinstance(value, yaml.MappingNode):
            yield from value.value


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(
            {"schema": {"type": "dict", "default": {}}, "reserved": {"type": "list", "elements": "str", "default": []}}
        )
        variables = task_vars or {}
        environment = next((one for one in schemas.ENVIRONMENTS if one in variables.get("group_names", [])), "")
        try:
            schema = schemas.parse(arguments["schema"])
        except schemas.Misread as misread:
            return {**result, **refusal(misread.problems)}
        values, problems = self._values("app_settings", variables.get("app_settings") or {})
        hidden, more = self._values("app_secrets", variables.get("app_secrets") or {})
        problems += [*more, *schemas.in_both(values, hidden)]
        values |= hidden
        # Asked on each host: without a secret no file is read.
        clear = in_the_clear(ROOT) if any(setting.secret for setting in schema) else {}
        problems += schemas.findings(schema, values, environment, clear, arguments["reserved"])
        if problems:
            return {**result, **refusal(problems)}
        return {**result, "changed": False, "msg": f"{len(values)} settings are as app_settings_schema has them."}

    def _values(self, variable: str, raw: Any) -> tuple[dict[str, Any], list[str]]:
        """Each value worked out, and a sentence for each that cannot be; such a one counts as set."""
        values: dict[str, Any] = {}
        problems: list[str] = []
        try:
            raw = raw if isinstance(raw, Mapping) else self._templar.template(raw)
        except AnsibleError as error:
            return {}, [f"{variable} cannot be worked out: {error.message}"]
        if not isinstance(raw, Mapping):
            return {}, [f"{variable} is to be a dictionary, NAME: value, and is not."]
        for name, value in raw.items():
            try:
                values[str(name)] = self._templar.template(value)
            except AnsibleError as error:
                values[str(name)] = "unknown"
                problems.append(f"{name} in {variable} cannot be worked out: {error.message}")
        return values, problems


def refusal(problems: Iterable[str]) -> dict[str, Any]:
    said = [*problems, "Nothing was changed. Correct this and run the playbook again."]
    return {"changed": False, "failed": True, "msg": "\n".join(said)}
