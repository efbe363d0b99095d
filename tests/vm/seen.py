"""What the run wrote: one look a stage, and how it went. A stage that was not reached is empty, and fails its cases."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

REPORTS = Path(__file__).resolve().parents[2] / ".lab" / (os.environ.get("SLIPWAY_LAB") or "vm") / "reports" / "vm"
# After the first boot, after a reboot with the guard armed, after patch.yml with a reboot.
STAGES = ("booted", "rebooted", "patched")


@cache
def read(name: str) -> dict[str, Any]:
    path = REPORTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def look(stage: str, part: str) -> Any:
    """One part of a look; a case without it has failed."""
    seen = read(stage)
    if part not in seen:
        why = seen.get("errors", {}).get(part) or read("outcome").get("stopped") or "the run did not get there"
        pytest.fail(f"{part} was not seen ({stage}): {why}")
    return seen[part]


def outcome(part: str) -> Any:
    if part not in read("outcome"):
        pytest.fail(f"{part} was not reached: {read('outcome').get('stopped') or 'the run ended before it'}")
    return read("outcome")[part]


def each(part: str, otherwise: str) -> list[tuple[str, str]]:
    """A case for each thing that a look saw, at each stage; one that fails where nothing was seen."""
    return [(stage, name) for stage in STAGES for name in read(stage).get(part) or [otherwise]]
