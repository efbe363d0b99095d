"""What a killed verb left is removed, and what it had started is stopped before that."""

from __future__ import annotations

from pathlib import Path

import pytest

from releasectl import build
from releasectl.config import Config


def test_a_build_that_outlived_its_verb_is_stopped_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(releases=tmp_path / "releases", venvs=tmp_path / "venvs", state=tmp_path / "state")
    (config.releases / "half" / "venv").mkdir(parents=True)
    config.state.mkdir()
    calls: list[list[str]] = []

    def run(words: list[str]) -> None:
        assert (config.releases / "half").exists(), "removed before its build was stopped"
        calls.append(words)

    monkeypatch.setattr(build, "run", run)
    assert build.sweep(config) == ["half"]
    assert ["systemctl", "stop", "releasectl-build-half.service", "releasectl-static-half.service"] in calls
    assert not (config.releases / "half").exists()
