"""Check every variable of every role of a playbook on the controller, before the first host is touched."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_variables
short_description: Check the variables of all roles of a playbook before the first change
description:
  - Holds the host's variables against C(meta/argument_specs.yml) and C(meta/limits.yml) of each role that the playbook
    gives it, and looks for names that no role knows. Each problem is one sentence that says where the variable is set.
  - Runs on the controller and connects to nothing.
options:
  playbook:
    description: The playbook whose plays say which roles a host gets.
    type: path
    required: true
"""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

# Names that Ansible itself or the inventory of the lab gives.
FOREIGN = re.compile(r"^(ansible_|lab_|vault_|molecule_|_)")
ENVIRONMENTS = ("group_vars", "host_vars", "inventories", "playbooks")


class _Loader(yaml.SafeLoader):
    """Reads our own YAML for its structure only; tags such as !vault stay opaque."""


_Loader.add_multi_constructor("!", lambda *_: None)


def load(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader=_Loader) if path.is_file() else None  # noqa: S506


def roles_of(playbook: list[dict[str, Any]], groups: Iterable[str]) -> list[str]:
    """The roles that a playbook gives to a host of these groups, in order. Patterns are names joined by colons."""
    mine = {"all", *groups}
    found = []
    for play in playbook:
        if mine & set(str(play.get("hosts", "")).split(":")):
            for entry in play.get("roles") or []:
                name = entry if isinstance(entry, str) else entry.get("role") or entry["name"]
                if name not in found:
                    found.append(name)
    return found


def limit_problem(name: str, value: Any, limit: dict[str, Any]) -> str | None:
    """What is wrong with a value by its limits: min, max (of a number, or of a text's or list's length), pattern."""
    if isinstance(value, list) and not {"min_items", "max_items"} & set(limit):
        return next((problem for item in value if (problem := limit_problem(name, item, limit))), None)
    if "pattern" in limit:
        if not re.fullmatch(limit["pattern"], str(value)):
            return f"{name} is not {limit['means']}"
        return None
    if "min_items" in limit and len(value) < limit["min_items"]:
        return f"{name} has {len(value)} items, fewer than {limit['min_items']}"
    if "max_items" in limit and len(value) > limit["max_items"]:
        return f"{name} has {len(value)} items, more than {limit['max_items']}"
    try:
        number = float(value)
    except (TypeError, ValueError):
        # The type is the argument spec's business.
        return None
    if "min" in limit and number < limit["min"]:
        return f"{name} is {value}, below {limit['min']}"
    if "max" in limit and number > limit["max"]:
        return f"{name} is {value}, above {limit['max']}"
    return None


def unknown_names(names: Iterable[str], known: set[str], roles: Iterable[str]) -> list[tuple[str, str | None]]:
    """(name, what was probably meant) for each variable that looks like ours and is not."""
    prefixes = tuple(f"{prefix}_" for prefix in (*roles, "app"))
    found = []
    for name in sorted(set(names) - known):
        if FOREIGN.match(name):
            continue
        ours = name.startswith(prefixes)
        close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6 if ours else 0.9)
        if ours or close:
            found.append((name, close[0] if close else None))
    return found


def where(name: str, root: Path, inventories: Iterable[Path] = ()) -> str:
    """Where a variable is set, as `file:line`; what is found nowhere came by -e or from an inventory program."""
    pattern = re.compile(rf"^[ -]*{re.escape(name)}\s*[:=]")
    tops = [*inventories, *(root / top for top in ENVIRONMENTS)]
    places = []
    for top in dict.fromkeys(path.resolve() for path in tops):
        candidates = sorted(top.rglob("*")) if top.is_dir() else [top]
        for path in candidates:
            if path.suffix not in {".yml", ".yaml", ".ini", ""} or not path.is_file():
                continue
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                if pattern.match(line):
                    shown = path.relative_to(root) if path.is_relative_to(root) else path
                    places.append(f"{shown}:{number}")
    unique = list(dict.fromkeys(places))
    return "set in " + ", ".join(unique) if unique else "set by -e or by the inventory"


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec({"playbook": {"type": "path", "required": True}})
        variables = task_vars or {}
        playbook = Path(args["playbook"]).resolve()
        root = playbook.parent.parent
        sources = [Path(source) for source in variables.get("ansible_inventory_sources") or [] if Path(source).exists()]

        roles = roles_of(load(playbook), variables.get("group_names", []))
        problems = [*self._misspelt(root, variables, sources)]
        for role in roles:
            problems += self._wrong(root, role, variables, sources)
        result["changed"] = False
        if problems:
            result["failed"] = True
            result["msg"] = "\n".join(
                [*problems, "Nothing was changed. Correct this and run the playbook again."],
            )
        return result

    def _misspelt(self, root: Path, variables: dict[str, Any], sources: list[Path]) -> Iterable[str]:
        known = set(load(root / "group_vars/all/main.yml") or {})
        roles = [path.name for path in sorted((root / "roles").iterdir()) if path.is_dir()]
        for role in roles:
            for entry in (
                (load(root / "roles" / role / "meta/argument_specs.yml") or {}).get("argument_specs", {}).values()
            ):
                known |= set(entry.get("options") or {})
        for name, meant in unknown_names(variables, known, roles):
            hint = f"; did you mean {meant}?" if meant else "."
            yield f"{name} ({where(name, root, sources)}) is a variable that nothing reads{hint}"

    def _wrong(self, root: Path, role: str, variables: dict[str, Any], sources: list[Path]) -> Iterable[str]:
        base = root / "roles" / role
        options = (load(base / "meta/argument_specs.yml") or {})["argument_specs"]["main"].get("options") or {}
        defaults_file = base / "defaults/main.yml"
        defaults: dict[str, Any] = {}
        if defaults_file.is_file():
            defaults = self._loader.load_from_file(str(defaults_file), trusted_as_template=True) or {}
        merged = {**defaults, **variables}
        templar = self._templar.copy_with_new_env(available_variables=merged)

        values = {}
        for name in options:
            if name not in merged:
                continue
            try:
                values[name] = templar.template(merged[name])
            except AnsibleError as error:
                yield f"{name} ({where(name, root, sources)}) cannot be worked out: {error}"
                options = {other: spec for other, spec in options.items() if other != name}
        spec = {name: _bare(option) for name, option in options.items()}
        checked = ArgumentSpecValidator(spec).validate(values)
        for message in checked.error_messages:
            named = [name for name in options if re.search(rf"\b{re.escape(name)}\b", message)]
            missing = [name for name in named if name not in values]
            if missing:
                for name in missing:
                    yield (
                        f"{name} is not set, and the role {role} needs it (roles/{role}/README.md says what for): "
                        f"set it in group_vars/<environment>/{role}.yml."
                    )
            else:
                place = where(named[0], root, sources) if named else f"role {role}"
                yield f"{message.rstrip('.')} ({place})."
        for name, limit in (load(base / "meta/limits.yml") or {}).items():
            if name in values and (problem := limit_problem(name, values[name], limit)):
                yield f"{problem} ({where(name, root, sources)})."


def _bare(option: dict[str, Any]) -> dict[str, Any]:
    """An argument spec's option without what only people read, and without its default: the values have it already."""
    spec = {key: value for key, value in option.items() if key not in {"description", "default", "version_added"}}
    if "options" in spec:
        spec["options"] = {
            name: {key: value for key, value in sub.items() if key not in {"description", "version_added"}}
            for name, sub in spec["options"].items()
        }
    return spec
