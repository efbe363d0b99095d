"""Audits as an operator runs them, with their reports in a directory of the test's own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.outside import play


@dataclass(frozen=True)
class Audit:
    """How an audit ended, and each host's report."""

    code: int
    output: str
    reports: dict[str, dict[str, Any]]


@pytest.fixture
def audit(lab: dict[str, Any], tmp_path: Path) -> Callable[..., Audit]:
    def run(*arguments: str, **variables: Any) -> Audit:
        there = set(tmp_path.glob("*.json"))
        given = {"audit_lynis": False, "audit_report_dir": str(tmp_path), **variables}
        done = play(lab, "playbooks/audit_host.yml", *arguments, **given)
        reports = [json.loads(path.read_text()) for path in sorted(set(tmp_path.glob("*.json")) - there)]
        return Audit(done.returncode, done.stdout + done.stderr, {report["host"]: report for report in reports})

    return run


@pytest.fixture
def as_root(lab: dict[str, Any]) -> Callable[[str, str, dict[str, str]], None]:
    """A command by root on a host through the engine, whatever the host does to logins."""

    def run(host: str, script: str, variables: dict[str, str]) -> None:
        named = [part for name, value in variables.items() for part in ("--env", f"{name}={value}")]
        container = lab["hosts"][host]["container"]
        done = subprocess.run(
            ["docker", "exec", *named, container, "sh", "-ec", script], capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{host}: {script}: {done.stdout}{done.stderr}"

    return run
