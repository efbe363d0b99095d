"""What Lynis says is read as it says it, and its profile is the package's own or the score counts for nothing."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from plugins.modules import lynis_audit as subject

REPORT = """# Lynis Report
report_version_major=1
lynis_version=3.0.8
lynis_tests_done=243
hardening_index=91
warning[]=PKGS-7392|Found one or more vulnerable packages.|-|-|
suggestion[]=SSH-7408|Consider hardening SSH configuration|Port (set 22 to )|-|
suggestion[]=BOOT-5122|Set a password on GRUB boot loader to prevent altering boot configuration|-|-|
test_category[]=all
a line without a value
"""


def md5(content: bytes) -> str:
    """As dpkg keeps it."""
    return hashlib.md5(content).hexdigest()  # noqa: S324


def test_a_report_is_read():
    assert subject.parse(REPORT) == {
        "score": 91,
        "version": "3.0.8",
        "tests": 243,
        "warnings": [{"id": "PKGS-7392", "text": "Found one or more vulnerable packages.", "details": ""}],
        "suggestions": [
            {"id": "SSH-7408", "text": "Consider hardening SSH configuration", "details": "Port (set 22 to )"},
            {
                "id": "BOOT-5122",
                "text": "Set a password on GRUB boot loader to prevent altering boot configuration",
                "details": "",
            },
        ],
    }


def test_a_report_without_a_score_has_none():
    assert subject.parse("lynis_version=3.0.8\nhardening_index=\n")["score"] is None


def test_the_packages_own_profile_is_known_by_its_checksum(tmp_path):
    profile = tmp_path / "default.prf"
    profile.write_text("quick=yes\n")
    digest = md5(b"quick=yes\n")
    conffiles = f" /etc/other 00000000000000000000000000000000\n {profile} {digest}\n"
    assert subject.alterations(conffiles, str(profile), (str(tmp_path),)) == []

    profile.write_text("quick=yes\nskip-test=SSH-7408\n")
    assert subject.alterations(conffiles, str(profile), (str(tmp_path),)) == [f"{profile} is not the package's own"]


def test_a_second_profile_is_an_alteration(tmp_path):
    profile = tmp_path / "default.prf"
    profile.write_text("")
    (tmp_path / "custom.prf").write_text("skip-test=SSH-7408\n")
    local = tmp_path / "local"
    local.mkdir()
    (local / "default.prf").write_text("")
    conffiles = f" {profile} {md5(b'')}"
    assert subject.alterations(conffiles, str(profile), (str(local), str(tmp_path))) == [
        f"{local}/default.prf is read as well",
        f"{tmp_path}/custom.prf is read as well",
    ]


def test_what_a_killed_lynis_left_is_no_running_one(tmp_path):
    pid_file = tmp_path / "lynis.pid"
    assert subject.running(str(pid_file)) == 0
    pid_file.write_text("not a number")
    assert subject.running(str(pid_file)) == 0
    # A process of that number runs, and is another program.
    pid_file.write_text(f"{os.getppid()}\n")
    mentions = b"lynis" in Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    assert (subject.running(str(pid_file)) != 0) is mentions
