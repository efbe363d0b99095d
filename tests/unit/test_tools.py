"""What this machine needs is installed where that may be done; else one sentence says what to install."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from lab import tools
from lab.state import LabError


def test_without_apt_one_sentence_says_who_needs_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.tools.shutil.which", lambda _: None)
    with pytest.raises(LabError, match=r"^The VM needs qemu: .*apt-get install qemu-system\)\.$"):
        tools.ensure("The VM", "qemu", "qemu-system", print)


def test_what_is_there_is_not_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("something was run")

    monkeypatch.setattr("lab.tools.subprocess.run", never)
    tools.ensure("This test", "sh", "dash", print)


def test_an_installation_that_fails_is_said_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.tools.shutil.which", lambda name: None if name == "nmap" else f"/usr/bin/{name}")
    monkeypatch.setattr("lab.tools.os.geteuid", lambda: 0)
    monkeypatch.setattr(tools, "_is_debian", lambda: True)
    said: list[str] = []
    broken = subprocess.CompletedProcess([], 100, "", "E: Unable to locate package nmap")
    monkeypatch.setattr("lab.tools.subprocess.run", lambda *_, **__: broken)
    with pytest.raises(LabError, match=r"`apt-get update` failed:\nE: Unable to locate package nmap"):
        tools.ensure("The scan", "nmap", "nmap", said.append)
    assert said == ["apt installs nmap"]
