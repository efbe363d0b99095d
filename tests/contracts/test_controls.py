"""The catalogue of controls is whole, and the page made from it is not stale."""

from __future__ import annotations

import subprocess

import pytest

from plugins.auditing import catalogue, page
from plugins.auditing.catalogue import Control
from tests.contracts import sources
from tests.contracts.sources import ROOT

KNOWN = catalogue.load()
DONE = [control for control in KNOWN.controls if control.state == "done"]
GROUPS = set(sources.load(ROOT / "inventories" / "production" / "hosts.yml"))


def test_there_is_nothing_wrong_with_it() -> None:
    assert KNOWN.problems == []
    assert DONE


@pytest.mark.parametrize("path", sorted((ROOT / catalogue.CONTROLS).iterdir()), ids=lambda path: path.name)
def test_every_file_of_it_is_read(path) -> None:  # type: ignore[no-untyped-def]
    assert path.suffix == ".yml"


@pytest.mark.parametrize("control", DONE, ids=lambda control: control.id)
def test_a_check_is_shell_that_looks_only(control: Control) -> None:
    assert subprocess.run(["sh", "-n", "-c", control.check], capture_output=True, check=False).returncode == 0
    assert "{{" not in control.check, "checks are shell, not templates: shared names are in the environment ($app_user)"


@pytest.mark.parametrize("control", [c for c in DONE if c.breaks], ids=lambda control: control.id)
def test_a_break_is_shell(control: Control) -> None:
    assert subprocess.run(["sh", "-n", "-c", control.breaks], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("control", [c for c in DONE if c.groups], ids=lambda control: control.id)
def test_groups_are_those_of_the_inventories(control: Control) -> None:
    assert set(control.groups) <= GROUPS


def test_exceptions_of_the_repository_can_be_honoured() -> None:
    for path, values in sources.group_vars().items():
        assert catalogue.refused(values.get("hardening_exceptions", []), KNOWN) == [], path


def test_the_page_is_not_stale() -> None:
    written = (ROOT / page.PAGE).read_text()
    assert written == page.write(KNOWN, page.exceptions(ROOT)), f"{page.PAGE} is stale: run `make docs`"


def test_reports_are_not_committed() -> None:
    name = "reports/audit/lab/2026-01-01T00-00-00Z-app1.json"
    assert subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False).returncode == 0
