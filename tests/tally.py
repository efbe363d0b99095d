"""What the tests' own reports (junit XML) say: how many passed, how many failed, and which."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree


@dataclass
class Tally:
    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)

    def add(self, report: Path) -> None:
        # Reports are our own tools' output.
        for case in ElementTree.parse(report).getroot().iter("testcase"):  # noqa: S314
            outcomes = {child.tag for child in case}
            if outcomes & {"failure", "error"}:
                self.failed.append(f"{report.stem}: {case.get('classname', '')}::{case.get('name', '')}")
            elif "skipped" in outcomes:
                self.skipped += 1
            else:
                self.passed += 1


def tally(reports: list[Path]) -> Tally:
    result = Tally()
    for report in reports:
        result.add(report)
    return result


def told(reports: list[Path]) -> list[str]:
    """What tests have to say beside that they passed: numbers that a reader wants."""
    found = []
    for report in reports:
        for item in ElementTree.parse(report).getroot().iter("property"):  # noqa: S314
            if item.get("name") == "told":
                found.append(f"{report.stem}: {item.get('value', '')}")
    return found


def main() -> int:
    """tally.py DIRECTORY: print "<passed> <failed>" of all reports in it."""
    result = tally(sorted(Path(sys.argv[1]).glob("*.xml")))
    print(result.passed, len(result.failed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
