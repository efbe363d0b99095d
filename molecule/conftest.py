"""What every scenario's tests have: the lab's hosts, asked as root by the container engine, and the lab's facts.

The engine's way in works whatever a role did to sshd, and is not what is tested."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import testinfra

ROOT = Path(__file__).resolve().parents[1]
LAB = os.environ.get("SLIPWAY_LAB") or "molecule"


@pytest.fixture(scope="session")
def lab() -> dict[str, Any]:
    """What the lab knows of itself: addresses, keys, ports (see lab/files.py)."""
    facts: dict[str, Any] = json.loads((ROOT / ".lab" / LAB / "facts.json").read_text())
    return facts


@pytest.fixture(scope="session")
def app1(lab: dict[str, Any]) -> Any:
    return testinfra.get_host(f"docker://{lab['hosts']['app1']['container']}")


@pytest.fixture(scope="session")
def data1(lab: dict[str, Any]) -> Any:
    return testinfra.get_host(f"docker://{lab['hosts']['data1']['container']}")
