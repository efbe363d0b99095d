"""A job is begun once, also where systemd has not yet let go of the one before."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from releasectl.errors import Refusal
from releasectl.job import Job

LOADED = "Failed to start transient service unit: Unit x.service was already loaded or has a fragment file."


def systemd(refusals: list[str]) -> Callable[[list[str]], subprocess.CompletedProcess[str]]:
    """A host on which nothing runs, and which refuses to start a unit as often as there are words for it."""
    left = list(refusals)

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        if command[0] == "systemctl":
            return subprocess.CompletedProcess(command, 0, "inactive\n", "")
        words = left.pop(0) if left else ""
        return subprocess.CompletedProcess(command, 1 if words else 0, "", words)

    return run


def begin(tmp_path: Path) -> bool:
    return Job(tmp_path, "activate-0").begin(["releasectl"], {"verb": "activate"})


def test_a_unit_that_systemd_is_about_to_forget_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("releasectl.job.run", systemd([LOADED, LOADED]))
    assert begin(tmp_path)


def test_one_that_it_never_forgets_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("releasectl.job.run", systemd([LOADED] * 100))
    monkeypatch.setattr("releasectl.job.LET_GO", 0.5)
    with pytest.raises(Refusal, match=r"did not start the job: .*already loaded"):
        begin(tmp_path)


def test_another_refusal_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("releasectl.job.run", systemd(["Failed to connect to bus"]))
    with pytest.raises(Refusal, match="systemd did not start the job: Failed to connect to bus"):
        begin(tmp_path)
