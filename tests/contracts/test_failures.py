"""docs/ops/failures.md and the tests that show its rows name each other."""

from __future__ import annotations

import ast
import re
from collections import defaultdict

from tests.contracts.sources import ROOT

PAGE = ROOT / "docs/ops/failures.md"
# What issue and page have to cover, whatever else comes to it.
ASKED = {
    "controller-killed", "host-rebooted", "ssh-cut", "disk-full", "out-of-memory", "database-away", "broker-away",
    "gate-slow", "gate-flaps", "gate-500", "gate-redirects", "gate-hangs", "migration-fails", "migration-hangs",
    "migration-waits", "crash-after-switch", "two-deployers", "clock-jumps", "previous-gone", "current-broken",
    "state-corrupted", "events-corrupted", "ignores-sigterm", "long-requests", "open-streams",
}  # fmt: skip


def rows() -> dict[str, set[str]]:
    """The tests that each row names."""
    found = {}
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 5 and (row := re.fullmatch(r"`([a-z0-9-]+)`", cells[0])):
            assert row[1] not in found, f"{row[1]} is there twice"
            assert all(cells), f"{row[1]} has an empty cell"
            found[row[1]] = set(re.findall(r"`(test_\w+)`", cells[4]))
    return found


def marked() -> dict[str, set[str]]:
    """The tests that are marked for each row."""
    found: dict[str, set[str]] = defaultdict(set)
    for directory in ("tests/unit", "tests/local", "molecule"):
        for path in (ROOT / directory).rglob("test_*.py"):
            for function in ast.walk(ast.parse(path.read_text())):
                if not isinstance(function, ast.FunctionDef) or not function.name.startswith("test_"):
                    continue
                for decorator in function.decorator_list:
                    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.failure":
                        (row,) = decorator.args
                        assert isinstance(row, ast.Constant), f"{function.name}: the row is a name, written out"
                        found[str(row.value)].add(function.name)
    return found


def test_every_failure_that_was_asked_for_has_a_row() -> None:
    assert ASKED - set(rows()) == set()


def test_every_row_names_the_tests_that_are_marked_for_it_and_no_others() -> None:
    assert rows() == dict(marked())
