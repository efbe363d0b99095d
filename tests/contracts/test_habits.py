"""Habits that a reader of this repository may rely on."""

from __future__ import annotations

import ast
import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest

from starter import placing
from tests.contracts import sources
from tests.contracts.sources import ROLES, ROOT
from tests.run import LANES

TASK_FILE_LINES = 100
ROLE_TASKS = 40
TEMPLATE_LINES = 60
SCENARIOS = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))
TESTED = [name for name in SCENARIOS if name != "default"]
# Gates that cannot fail, and promises that nobody keeps. Written apart, so that this file does not hold them itself.
FORBIDDEN = {
    "ignore_" + "errors": ("*.yml",),
    "ignore_" + "unreachable": ("*.yml",),
    "failed_when: " + "false": ("*.yml",),
    "|| " + "true": ("*.yml", "bin/*", ".ci/*", "lab/*", "Makefile", "*.sh", "*.j2"),
    "|| " + ":": ("*.yml", "bin/*", ".ci/*", "lab/*", "Makefile", "*.sh", "*.j2"),
    "skip_" + "list": (".ansible-lint",),
    "warn_" + "list": (".ansible-lint",),
    "TO" + "DO": ("*",),
    "FIX" + "ME": ("*",),
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("word", FORBIDDEN)
def test_forbidden_words_are_nowhere(word: str) -> None:
    found = []
    for path in sources.tracked(*FORBIDDEN[word]):
        text = path.read_bytes().decode(errors="replace")
        if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text):
            found.append(name_of(path))
    assert found == []


@pytest.mark.parametrize("role", ROLES)
def test_roles_are_small(role: str) -> None:
    count = 0
    for path in sorted((ROOT / "roles" / role / "tasks").glob("*.yml")):
        lines = len(path.read_text().splitlines())
        assert lines <= TASK_FILE_LINES, f"{name_of(path)} has {lines} lines: split it by topic"
        # A block and the name of a phase are headings; what is under them is counted.
        headings = {"block", "ansible.builtin.import_tasks"}
        count += sum(1 for task in sources.tasks(sources.load(path)) if not headings & set(task))
    assert 0 < count <= ROLE_TASKS, f"{role} has {count} tasks"


@pytest.mark.parametrize("role", ROLES)
def test_roles_are_complete(role: str) -> None:
    for name in ("README.md", "meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml"):
        assert (ROOT / "roles" / role / name).is_file(), f"{role} has no {name}"


def wholes() -> list[Path]:
    """Templates that become a file each, where that can hold a comment; not the parts that others include."""
    templates = sources.tracked("roles/*/templates/*")
    included = {
        path.parent / name
        for path in templates
        for name in re.findall(r"""{%-?\s*(?:include|import|from)\s+['"]([^'"]+)""", path.read_text())
    }
    return [path for path in templates if path not in included and not path.name.endswith((".json.j2", ".html.j2"))]


@pytest.mark.parametrize("path", wholes(), ids=name_of)
def test_templates_open_with_where_they_come_from(path: Path) -> None:
    lines = (line for line in path.read_text().splitlines() if not line.startswith(("#!", "#jinja2:")))
    assert "ansible_managed | comment" in next(lines), "the first line is not {{ ansible_managed | comment }}"


@pytest.mark.parametrize("path", sources.tracked("roles/*/templates/*"), ids=name_of)
def test_templates_are_short(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= TEMPLATE_LINES, f"{lines} lines: make it two"


@pytest.mark.parametrize("path", sources.tracked("roles/*/defaults/main.yml"), ids=name_of)
def test_every_default_says_why(path: Path) -> None:
    """A comment stands over each variable, or over the few that it speaks of together."""
    above = ""
    for line in path.read_text().splitlines():
        if re.match(r"[a-z_]\w*:", line):
            assert above, f"{line} has no comment above it"
        if line.startswith("#"):
            above = line
        elif not line.strip():
            above = ""


def test_every_role_has_a_scenario() -> None:
    assert set(ROLES) - set(SCENARIOS) == set()


def test_the_order_of_scenarios_names_all_of_them() -> None:
    assert set(TESTED) - {name for names in LANES.values() for name in names} == set(), (
        "tests/run.py has no place for these"
    )


@pytest.mark.parametrize("scenario", TESTED)
def test_every_scenario_converges_on_hosts_and_asserts(scenario: str) -> None:
    directory = ROOT / "molecule" / scenario
    plays = sources.load(directory / "converge.yml")
    assert plays
    for play in plays:
        assert (
            "import_playbook" in play
            or "import_playbook" in " ".join(play)
            or play.get("hosts") not in (None, "localhost")
        )
    tests = [
        function
        for path in sorted(directory.glob("tests/test_*.py"))
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef) and function.name.startswith("test_")
    ]
    assert tests, f"{scenario} has no tests/test_*.py with a test in it"
    for function in tests:
        assert any(asserts(node) for node in ast.walk(function)), f"{scenario}: {function.name} asserts nothing"


def asserts(node: ast.AST) -> bool:
    """An assert, pytest.raises, or a helper whose name says that it asserts."""
    if isinstance(node, ast.Assert):
        return True
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name == "raises" or name.startswith("assert_")


@pytest.mark.parametrize("environment", ["production", "staging"])
def test_examples_use_documentation_addresses(environment: str) -> None:
    path = ROOT / "inventories" / environment / "hosts.yml"
    if not placing.EXAMPLE.search(path.read_text()):
        pytest.skip(f"{path.relative_to(ROOT)} is somebody's own")
    documentation = ipaddress.ip_network("192.0.2.0/24")
    inventory = sources.load(path)
    hosts = inventory[environment]["hosts"]
    for name, variables in hosts.items():
        assert name.endswith(".example.com")
        assert ipaddress.ip_address(variables["ansible_host"]) in documentation
    grouped = {host for group, content in inventory.items() if group != environment for host in content["hosts"]}
    assert grouped == set(hosts)


@pytest.mark.parametrize("path", sources.tracked("inventories/*/hosts.yml", "group_vars/*/*.yml"), ids=name_of)
def test_an_example_says_that_it_is_one(path: Path) -> None:
    """Or `make init` would not write in its place, and somebody would run with a value that is nobody's."""
    text = path.read_text()
    nobodys = re.search(r"^[^#]*(192\.0\.2\.|example\.com|AAAA\w*Example)", text, re.MULTILINE)
    assert not nobodys or placing.EXAMPLE.search(text), f"it holds {nobodys and nobodys[1]}: {placing.EXAMPLE.pattern}"


def test_environments_have_the_same_groups() -> None:
    groups = {}
    for environment in ("production", "staging", "lab"):
        inventory: dict[str, Any] = sources.load(ROOT / "inventories" / environment / "hosts.yml")
        groups[environment] = set(inventory) - {environment}
    assert groups["production"] == groups["staging"] == groups["lab"]
