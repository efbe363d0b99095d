"""Rights are taken away and never given; what others may write to is no way elsewhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from plugins.modules import file_modes as subject


def entry(path: Path | str, **more: Any) -> dict[str, Any]:
    nothing = {"mode": None, "owner": None, "group": None, "kind": "any", "without_group": False}
    return {**nothing, "path": str(path), **more}


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    for name, bits in {"a.log": 0o644, "strict.log": 0o400, "sub/b.log": 0o666, ".hidden": 0o646}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
        path.chmod(bits)
    (tmp_path / "sub").chmod(0o1777)
    return tmp_path


def test_more_than_the_most_is_taken_away(logs: Path) -> None:
    changed = subject.tighten([entry(logs / "**", mode="0640", kind="file")], check_mode=False)
    assert {Path(path).name for path, _, _ in changed} == {"a.log", "b.log", ".hidden"}
    assert [mode(logs / name) for name in ("a.log", "strict.log", "sub/b.log", ".hidden")] == [
        "0640", "0400", "0640", "0640",
    ]  # fmt: skip
    assert subject.tighten([entry(logs / "**", mode="0640", kind="file")], check_mode=False) == []


def test_a_directory_keeps_its_sticky_bit(logs: Path) -> None:
    subject.tighten([entry(logs / "sub", mode="0750")], check_mode=False)
    assert mode(logs / "sub") == "1750"


def test_check_mode_only_tells(logs: Path) -> None:
    assert len(subject.tighten([entry(logs / "a.log", mode="0600")], check_mode=True)) == 1
    assert mode(logs / "a.log") == "0644"


def test_the_first_pattern_speaks_for_a_file(logs: Path) -> None:
    subject.tighten([entry(logs / "a.log", mode="0644"), entry(logs / "*", mode="0600", kind="file")], False)
    assert mode(logs / "a.log") == "0644"


def test_a_symlink_leads_nowhere(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "shadow"
    outside.write_text("secret")
    outside.chmod(0o644)
    (logs / "link.log").symlink_to(outside)
    subject.tighten([entry(logs / "*", mode="0600")], check_mode=False)
    assert mode(outside) == "0644"


def test_a_pipe_is_left_alone(logs: Path) -> None:
    os.mkfifo(logs / "pipe", 0o666)
    (logs / "pipe").chmod(0o666)
    subject.tighten([entry(logs / "*", mode="0600")], check_mode=False)
    assert mode(logs / "pipe") == "0666"


def test_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert (
        subject.tighten([entry(tmp_path / "nothing", mode="0600"), entry(tmp_path / "*.x", mode="0600")], False) == []
    )


@pytest.mark.parametrize(("names", "sentence"), [({"owner": "nobody-here"}, "user"), ({"group": "none-here"}, "group")])
def test_an_unknown_name_is_named(tmp_path: Path, names: dict[str, str], sentence: str) -> None:
    with pytest.raises(subject.Refused, match=f"there is no {sentence}"):
        subject.tighten([entry(tmp_path, **names)], check_mode=True)


def test_a_group_may_be_missing_where_that_is_said(logs: Path) -> None:
    subject.tighten([entry(logs / "a.log", mode="0640", group="none-here", without_group=True)], check_mode=False)
    assert mode(logs / "a.log") == "0640"


def test_a_mode_is_octal(tmp_path: Path) -> None:
    with pytest.raises(subject.Refused, match="octal"):
        subject.tighten([entry(tmp_path, mode="rw-r--r--")], check_mode=True)
