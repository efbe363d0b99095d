"""Whether the kernel audits by the rules on disk is told from what it lists."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from plugins.modules import audit_rules as subject

DENIED = "Error sending status request (Operation not permitted)\n"
RULES = "-D\n-w /etc/passwd -p wa -k identity\n"
LISTED = "-w /etc/passwd -p wa -k identity\n"


class Auditor(subject.Auditor):
    """One whose host is made of answers."""

    def __init__(self, answers: dict[str, tuple[int, str]], check_mode: bool = False) -> None:
        super().__init__(type("Module", (), {"check_mode": check_mode, "get_bin_path": lambda *_: "/sbin/x"})())
        self.answers = answers
        self.asked: list[str] = []

    def run(self, *command: str) -> tuple[int, str]:
        self.asked.append(" ".join(command))
        return self.answers.get(self.asked[-1], (0, ""))


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "audit.rules").write_text(RULES)
    (tmp_path / "50.rules").write_text("# why\n\n-w /etc/passwd -p wa -k identity\n")
    (tmp_path / "record").write_text(subject.digest(RULES, LISTED) + "\n")
    monkeypatch.setattr(subject, "RULES", str(tmp_path / "audit.rules"))
    monkeypatch.setattr(subject, "SOURCES", str(tmp_path / "*.rules"))
    return tmp_path


def settle(disk: Path, answers: dict[str, tuple[int, str]], load: bool = True, check_mode: bool = False) -> Auditor:
    auditor = Auditor({"augenrules --check": (0, "augenrules: No change\n")} | answers, check_mode)
    auditor.settle(load, str(disk / "record"))
    return auditor


def test_rules_as_they_were_loaded_are_left_alone(disk: Path) -> None:
    assert settle(disk, {"auditctl -l": (0, LISTED)}).actions == []


@pytest.mark.parametrize("listed", ["No rules\n", LISTED + "-a never,task\n"])
def test_rules_that_somebody_changed_are_loaded_anew(disk: Path, listed: str) -> None:
    auditor = settle(disk, {"auditctl -l": (0, listed)})
    assert "augenrules --load" in auditor.asked
    assert len(auditor.actions) == 1
    assert (disk / "record").read_text().strip() == subject.digest(RULES, listed)


def test_other_files_are_joined_and_loaded(disk: Path) -> None:
    auditor = settle(disk, {"augenrules --check": (1, "Rules have changed\n"), "auditctl -l": (0, LISTED)})
    assert "augenrules --load" in auditor.asked
    assert len(auditor.actions) == 2


def test_check_mode_loads_nothing(disk: Path) -> None:
    auditor = settle(disk, {"auditctl -l": (0, "No rules\n")}, check_mode=True)
    assert auditor.actions
    assert "augenrules --load" not in auditor.asked


def test_a_rule_that_cannot_be_loaded_is_an_error(disk: Path) -> None:
    with pytest.raises(subject.Refused, match="could be loaded"):
        settle(disk, {"auditctl -l": (0, ""), "augenrules --load": (1, "There was an error in line 3")})


def test_without_the_kernel_the_words_are_checked(disk: Path) -> None:
    answers = {
        "augenrules --check": (1, "Rules have changed\n"),
        "auditctl -s": (255, DENIED),
        "auditctl -w /etc/passwd -p wa -k identity": (255, DENIED),
    }
    auditor = settle(disk, answers, load=False)
    assert auditor.asked[-1] == "augenrules"
    with pytest.raises(subject.Refused, match="Permission q"):
        settle(
            disk,
            {**answers, "auditctl -w /etc/passwd -p wa -k identity": (255, "Permission q isn't supported\n" + DENIED)},
            load=False,
        )


def test_where_the_kernel_listens_no_rule_is_tried(disk: Path) -> None:
    auditor = settle(disk, {"augenrules --check": (1, "Rules have changed\n")}, load=False)
    assert not any(command.startswith("auditctl -w") for command in auditor.asked)


def test_the_digest_is_the_shells() -> None:
    assert subject.digest("a\n", "b\n") == hashlib.sha256(b"a\nb\n").hexdigest()
