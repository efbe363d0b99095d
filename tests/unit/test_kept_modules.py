"""plugins/callback/kept_modules.py: what is kept is used while nothing of it changed, and by nobody else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from plugins.callback import kept_modules as subject

ROOT = Path(__file__).resolve().parents[2]


def test_any_change_of_a_module_begins_anew(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("one")
    first = subject.fingerprint([module])
    assert subject.fingerprint([module]) == first
    os.utime(module, ns=(1, 1))
    touched = subject.fingerprint([module])
    assert touched != first
    module.write_text("a longer one")
    os.utime(module, ns=(1, 1))
    assert subject.fingerprint([module]) not in (first, touched)


def test_ours_and_those_of_collections_are_looked_at() -> None:
    found = {str(path) for path in subject.sources()}
    assert str(ROOT / "plugins/modules/people.py") in found
    assert any(path.endswith("ansible_collections/community/postgresql/MANIFEST.json") for path in found)


def test_ansible_finds_what_was_kept_and_adds_to_it(tmp_path: Path) -> None:
    for run in ("first", "second"):
        subject.keep(tmp_path / "kept", "now", tmp_path / run)
    (tmp_path / "first/module").write_text("packed")
    assert (tmp_path / "second/module").read_text() == "packed"
    assert (tmp_path / "kept/now").stat().st_mode & 0o777 == 0o700


def test_where_a_group_shares_files_what_is_kept_is_ones_own(tmp_path: Path) -> None:
    """With the umask 002 that Ubuntu gives to people."""
    before = os.umask(0o002)
    try:
        subject.keep(tmp_path / ".cache/modules", "now", tmp_path / "place")
    finally:
        os.umask(before)
    assert (tmp_path / "place").is_symlink()


def test_what_others_could_have_put_there_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "kept/now").mkdir(parents=True)
    (tmp_path / "kept/now").chmod(0o777)
    subject.keep(tmp_path / "kept", "now", tmp_path / "place")
    assert not (tmp_path / "place").exists()


def test_what_nobody_used_for_a_week_is_removed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    for name, days in (("old", 8), ("recent", 6)):
        (kept / name).mkdir(parents=True)
        (kept / name / "module").write_text("packed")
        used = time.time() - days * 24 * 3600
        os.utime(kept / name, (used, used))
    kept.chmod(0o700)
    subject.keep(kept, "now", tmp_path / "place")
    assert sorted(path.name for path in kept.iterdir()) == ["now", "recent"]


@pytest.mark.parametrize("kept", [True, False])
def test_a_run_goes_on_as_ever_where_nothing_can_be_kept(tmp_path: Path, kept: bool) -> None:
    plugins = tmp_path / "plugins/callback"
    plugins.mkdir(parents=True)
    (plugins / "kept_modules.py").write_text(Path(subject.__file__).read_text())
    if not kept:
        # No directory can be made below a file.
        (tmp_path / ".cache").write_text("")
    play = tmp_path / "play.yml"
    play.write_text(
        "- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks: [{ansible.builtin.ping: {}}]\n"
    )
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(play)],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={
            **os.environ,
            "ANSIBLE_CALLBACK_PLUGINS": str(plugins),
            "ANSIBLE_CALLBACKS_ENABLED": "kept_modules",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert bool(list(tmp_path.glob(".cache/modules/*/ansible.modules.ping*"))) is kept
