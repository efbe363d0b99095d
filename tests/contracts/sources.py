"""The repository as the contracts see it: its YAML, its templates, and the variables that they name."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import jinja2.nodes
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if (path / "meta").is_dir())
# Keys whose value is an expression without braces.
EXPRESSIONS = {"when", "changed_when", "failed_when", "until", "that", "var"}
PARSER = jinja2.Environment(extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"])  # noqa: S701


class _Loader(yaml.SafeLoader):
    """Reads our own YAML for its structure only; tags such as !vault stay opaque."""


_Loader.add_multi_constructor("!", lambda *_: None)


@cache
def load(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506


def defaults(role: str) -> dict[str, Any]:
    path = ROOT / "roles" / role / "defaults" / "main.yml"
    return (load(path) or {}) if path.is_file() else {}


def specs(role: str) -> dict[str, dict[str, Any]]:
    """Each entry point's options."""
    found = load(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    return {entry: spec.get("options") or {} for entry, spec in found.items()}


def options(role: str) -> dict[str, Any]:
    """The options of all entry points together."""
    return {name: option for spec in specs(role).values() for name, option in spec.items()}


def group_vars() -> dict[Path, dict[str, Any]]:
    return {path: load(path) or {} for path in sorted((ROOT / "group_vars").rglob("*.yml"))}


def role_files(role: str) -> list[Path]:
    """A role's YAML that Ansible runs or reads, and its templates."""
    base = ROOT / "roles" / role
    yaml_files = [path for kind in ("tasks", "handlers", "defaults", "vars") for path in base.glob(f"{kind}/*.yml")]
    return sorted(yaml_files) + sorted(path for path in base.glob("templates/**/*") if path.is_file())


def tracked(*patterns: str) -> list[Path]:
    """Files under version control, or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def tasks(entries: Any) -> Iterator[dict[str, Any]]:
    """Every task of a list, those in blocks included."""
    for entry in entries or []:
        yield entry
        for part in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"):
            yield from tasks(entry.get(part))


def names_used(path: Path) -> set[str]:
    """The variables that a file reads."""
    if path.suffix == ".yml":
        return set(_names_in(load(path), expression=False))
    return _names_in_template(path.read_text())


def names_made(path: Path) -> set[str]:
    """The variables that a YAML file of tasks makes: registered, set, or given to what it includes."""
    content = load(path)
    if isinstance(content, dict):
        return set(content)
    made: set[str] = set()
    for task in tasks(content):
        made.update((task.get("vars") or {}).keys())
        if "register" in task:
            made.add(task["register"])
        for module in ("set_fact", "ansible.builtin.set_fact"):
            made.update((task.get(module) or {}).keys())
        if "loop_var" in (task.get("loop_control") or {}):
            made.add(task["loop_control"]["loop_var"])
    return made


def _names_in(value: Any, expression: bool) -> Iterator[str]:
    if isinstance(value, str):
        yield from _names_in_template("{{ " + value + " }}" if expression else value)
    elif isinstance(value, list):
        for entry in value:
            yield from _names_in(entry, expression)
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _names_in(entry, expression or key in EXPRESSIONS)


def _names_in_template(text: str) -> set[str]:
    if "{{" not in text and "{%" not in text:
        return set()
    tree = PARSER.parse(text)
    nodes = list(tree.find_all(jinja2.nodes.Name))
    stored = {node.name for node in nodes if node.ctx in ("store", "param")}
    return {node.name for node in nodes if node.ctx == "load"} - stored
