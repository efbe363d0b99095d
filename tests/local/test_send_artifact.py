"""plugins/action/send_artifact.py, by a play whose host is this machine."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from tests.local.controller import Controller

CONTENT = bytes(range(256)) * 4096 + b"\n\x00"


@pytest.fixture
def controller(tmp_path: Path) -> Controller:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "shop.tar.gz").write_bytes(CONTENT)
    return Controller(tmp_path)


def send(controller: Controller, source: str = "shop.tar.gz", *words: str) -> subprocess.CompletedProcess[str]:
    play = controller.place / "send.yml"
    place = controller.place
    play.write_text(
        "- hosts: app1\n  gather_facts: false\n  tasks:\n"
        f"    - send_artifact: {{src: {place / source}, dest: '{place}/incoming/me and.tar.gz'}}\n"
    )
    return controller.play_file(play, *words)


def there(controller: Controller) -> list[str]:
    return [path.name for path in (controller.place / "incoming").iterdir()]


def test_it_arrives_byte_for_byte_and_for_its_owner_alone(controller: Controller) -> None:
    sent = controller.place / "incoming/me and.tar.gz"
    sent.write_bytes(b"an older one, which others could read")
    run = send(controller)
    assert run.returncode == 0, run.stdout + run.stderr
    assert sent.read_bytes() == CONTENT
    assert stat.S_IMODE(sent.stat().st_mode) == 0o600
    assert there(controller) == [sent.name]


def test_in_check_mode_nothing_is_sent(controller: Controller) -> None:
    run = send(controller, "shop.tar.gz", "--check")
    assert run.returncode == 0, run.stdout + run.stderr
    assert there(controller) == []


def test_a_full_disk_is_one_sentence_and_leaves_nothing(controller: Controller) -> None:
    # A limit of the shell's own stands in for the disk's end: cat is told that the file is too large.
    profile = controller.place / "sh"
    profile.write_text('#!/bin/bash\ntrap "" XFSZ\nulimit -f 8\nexec /bin/sh "$@"\n')
    profile.chmod(0o755)
    run = send(controller, "shop.tar.gz", "-e", f"ansible_shell_executable={profile}")
    assert run.returncode != 0
    assert f"shop.tar.gz could not be put into {controller.place}/incoming: File too large." in run.stdout
    assert there(controller) == []


def test_what_is_not_there_is_one_sentence(controller: Controller) -> None:
    run = send(controller, "nothing.tar.gz")
    assert run.returncode != 0
    assert "nothing.tar.gz cannot be read (No such file or directory)." in run.stdout
    (controller.place / "incoming").rmdir()
    run = send(controller)
    assert run.returncode != 0
    assert f"could not be put into {controller.place}/incoming:" in run.stdout
