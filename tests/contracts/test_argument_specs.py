"""A role's interface is written in its argument spec; defaults, tasks and environments keep to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.contracts import sources
from tests.contracts.sources import ROLES, ROOT

TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "float": (int, float), "bool": (bool,), "list": (list,), "dict": (dict,),
    "path": (str,), "raw": (object,), "jsonarg": (str, dict, list),
}  # fmt: skip
# Beside a role's own: what several roles share, what the lab gives, and what Ansible gives.
SHARED = ("app_", "lab_", "ansible_", "vault_")


def is_templated(value: Any) -> bool:
    return isinstance(value, str) and "{{" in value


def test_there_are_roles() -> None:
    assert len(ROLES) >= 10


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_specified(role: str) -> None:
    assert set(sources.defaults(role)) - set(sources.options(role)) == set()


@pytest.mark.parametrize("role", ROLES)
def test_every_specified_option_has_its_default(role: str) -> None:
    """A role's own options are required, or have a default: the same one in both places."""
    given = sources.defaults(role)
    for entry, options in sources.specs(role).items():
        for name, option in options.items():
            if not name.startswith(f"{role}_"):
                continue
            if option.get("required"):
                assert name not in given, f"{role}/{entry}: {name} is required and has a default"
                assert "default" not in option, f"{role}/{entry}: {name} is required and has a default in the spec"
            elif name in given:
                assert "default" in option, f"{role}/{entry}: {name} has a default that the spec does not tell"
                assert option["default"] == given[name], f"{role}/{entry}: {name} has another default in the spec"
            else:
                assert "default" not in option, (
                    f"{role}/{entry}: set {name} in defaults/main.yml too: Ansible ignores the default of a spec"
                )


@pytest.mark.parametrize("role", ROLES)
def test_every_option_has_a_type_that_its_default_is_of(role: str) -> None:
    for name, option in sources.options(role).items():
        assert "type" in option, f"{name} has no type"
        value = sources.defaults(role).get(name)
        if value is None or is_templated(value):
            continue
        assert isinstance(value, TYPES[option["type"]]), f"{name} is no {option['type']}"
        # To Python, true is a number.
        assert option["type"] not in ("int", "float") or not isinstance(value, bool), f"{name} is no {option['type']}"
        if "choices" in option:
            values = value if isinstance(value, list) else [value]
            assert set(values) <= set(option["choices"]), f"{name}: its default is none of its choices"


@pytest.mark.parametrize("role", ROLES)
def test_everything_is_described(role: str) -> None:
    spec = sources.load(ROOT / "roles" / role / "meta" / "argument_specs.yml")["argument_specs"]
    for entry, found in spec.items():
        assert found.get("short_description"), f"{role}/{entry} has no short_description"
        for name, option in (found.get("options") or {}).items():
            assert option.get("description"), f"{name} has no description"


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_is_there(role: str) -> None:
    entries = sources.specs(role)
    assert "main" in entries
    for entry in entries:
        assert (ROOT / "roles" / role / "tasks" / f"{entry}.yml").is_file(), f"{role} has no tasks/{entry}.yml"


@pytest.mark.parametrize("role", ROLES)
def test_names_are_the_roles_own_or_shared(role: str) -> None:
    for name in sources.options(role):
        assert name.startswith((f"{role}_", "app_")), f"{role}: {name} is neither its own nor shared"


@pytest.mark.parametrize("role", ROLES)
def test_what_a_role_reads_is_specified_by_it_or_made_by_it(role: str) -> None:
    own = set(sources.options(role)) | set(sources.defaults(role))
    files = sources.role_files(role)
    made = {name for path in files if path.suffix == ".yml" for name in sources.names_made(path)}
    known = own | made | _shared()
    for path in files:
        place = path.relative_to(ROOT)
        for name in sources.names_used(path):
            if name.startswith((f"{role}_", "__", "app_")):
                assert name in known, f"{place} reads {name}, which is not in the role's spec (misspelt?)"


@pytest.mark.parametrize("role", ROLES)
def test_no_role_reads_anothers_variables(role: str) -> None:
    others = tuple(f"{other}_" for other in ROLES if other != role)
    for path in sources.role_files(role):
        made = sources.names_made(path) if path.suffix == ".yml" else set()
        for name in sources.names_used(path) - made:
            assert not name.startswith(others), f"{path.relative_to(ROOT)} reads {name}, which is another role's"


def _shared() -> set[str]:
    """Shared variables are set for all hosts, or in each environment."""
    return {name for path, values in sources.group_vars().items() for name in values if name.startswith("app_")}


def _known() -> set[str]:
    everywhere = sources.load(ROOT / "group_vars" / "all" / "main.yml")
    return set(everywhere) | {name for role in ROLES for name in sources.options(role)}


@pytest.mark.parametrize("path", sources.group_vars(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_variable_that_is_set_is_known(path: Path) -> None:
    for name in sources.group_vars()[path]:
        assert name in _known() or name.startswith(("ansible_", "vault_")), f"{name} is nobody's (misspelt?)"


@pytest.mark.parametrize("path", sources.group_vars(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_variable_that_a_setting_is_made_of_is_known(path: Path) -> None:
    allowed = {"ansible_", "vault_"} | ({"lab_"} if path.parent.name == "lab" else set())
    for name in sources.names_used(path):
        if name.startswith(tuple(allowed)) or name in _known():
            continue
        assert not name.startswith((*SHARED, *(f"{role}_" for role in ROLES))), f"{name} is nobody's (misspelt?)"


@pytest.mark.parametrize("path", sorted((ROOT / "playbooks").glob("*.yml")), ids=lambda path: path.name)
def test_playbooks_read_what_is_known(path: Path) -> None:
    made = {name for play in sources.load(path) for name in (play.get("vars") or {})}
    made |= {name for play in sources.load(path) for task in sources.tasks([play]) for name in _made_by(task)}
    for name in sources.names_used(path) - made:
        if name.startswith((*(f"{role}_" for role in ROLES), "app_")):
            assert name in _known(), f"{path.name} reads {name}, which is in no role's spec (misspelt?)"


def _made_by(task: dict[str, Any]) -> set[str]:
    return {task["register"]} if "register" in task else set()
