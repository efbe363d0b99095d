"""A report is written whole, and not for everybody; it says from which commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from plugins.action import audit_report as subject


def test_a_report_is_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    subject.write(path, "{}\n")
    assert path.read_text() == "{}\n"
    assert path.stat().st_mode & 0o137 == 0
    assert [one.name for one in tmp_path.iterdir()] == ["report.json"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
        subprocess.run(["git", *identity, "-C", tmp_path, *arguments], check=True, capture_output=True)

    git("init", "--quiet")
    (tmp_path / "file").write_text("one\n")
    git("add", "file")
    git("commit", "--quiet", "--message=one")
    return tmp_path


def test_the_commit_is_told_and_whether_files_differ_from_it(checkout: Path) -> None:
    clean = subject.commit(checkout)
    assert len(clean) == 40
    (checkout / "file").write_text("two\n")
    assert subject.commit(checkout) == f"{clean} (with changes that are not committed)"


def test_a_copy_without_git_has_no_commit(tmp_path: Path) -> None:
    assert subject.commit(tmp_path) == "unknown (no git repository)"
