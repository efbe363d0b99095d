"""`.slipway/settings`: the names of what a release cannot do without."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from releasectl import needs
from releasectl.errors import Refusal


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / ".slipway").mkdir()
    return tmp_path


def test_a_name_a_line_with_remarks(source: Path) -> None:
    (source / needs.FILE).write_text("# what it needs\nDATABASE_URL\n\n  PAYMENT_KEY  # since 3.2\nDATABASE_URL\n")
    assert needs.of(source) == ["DATABASE_URL", "PAYMENT_KEY"]


def test_it_is_optional(tmp_path: Path) -> None:
    assert needs.of(tmp_path) == []


@pytest.mark.parametrize("line", ["KEY=hunter2", "two words", "1A", "-A", "A" * 201, "A\x00B"])
def test_a_line_that_is_no_name_is_refused_without_its_words(line: str) -> None:
    with pytest.raises(Refusal, match="Line 2 of the app") as refusal:
        needs.parse(f"GOOD\n{line}\n")
    assert "hunter2" not in refusal.value.message


def test_no_link_is_followed_and_nothing_else_than_a_file_is_read(source: Path) -> None:
    place = source / needs.FILE
    place.symlink_to("/etc/passwd")
    with pytest.raises(Refusal, match="cannot be read"):
        needs.of(source)
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(Refusal, match="no plain file"):
        needs.of(source)
    place.unlink()
    place.write_text("A\n" * needs.MOST)
    with pytest.raises(Refusal, match="larger"):
        needs.of(source)


def test_the_sentence_says_what_is_missing_and_what_to_run() -> None:
    said = needs.sentence("shop-2", needs.missing(["A", "B", "C"], ["B"]))
    assert said.startswith("shop-2 needs the settings A, C (.slipway/settings), which are not in force on this host")
    assert "playbooks/settings.yml" in said
    assert said.endswith("nothing was changed.")
