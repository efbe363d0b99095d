"""Every host knows which commit was applied to it, and configuration goes back by applying the last good tag."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
RECORD = "/etc/slipway/applied.json"
HISTORY = "/var/log/slipway/applied.jsonl"


def git(*words: str, cwd: Path) -> str:
    identity = ["-c", "user.name=Operator", "-c", "user.email=operator@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *words], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """This repository as an operator has it: a good tag, and after it a commit that somebody comes to regret."""
    clone = tmp_path_factory.mktemp("operator") / "slipway"
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, listed):
        source, target = ROOT / name, clone / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
    git("init", "--quiet", "--initial-branch=main", cwd=clone)
    git("add", "--all", cwd=clone)
    git("commit", "--quiet", "--message", "as it is", cwd=clone)
    git("tag", "good", cwd=clone)
    settings = clone / "group_vars" / "lab" / "base.yml"
    settings.write_text((settings.read_text() if settings.exists() else "---\n") + "base_journal_max_use: 300M\n")
    git("add", "--all", cwd=clone)
    git("commit", "--quiet", "--message", "a small journal will do", cwd=clone)
    return clone


@pytest.fixture
def apply(lab, repository):
    def run() -> None:
        program = Path(sys.executable).with_name("ansible-playbook")
        words = ["-i", str(ROOT / "inventories/lab"), "playbooks/site.yml", "--tags", "base", "--limit", "data1"]
        environment = {
            **os.environ, "ANSIBLE_CONFIG": str(repository / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1",
            "SLIPWAY_LAB": lab["name"],
        }  # fmt: skip
        done = subprocess.run(
            [str(program), *words],
            cwd=repository,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def limit(host) -> str:
    """What the running journal says of itself at its start."""
    host.check_output("journalctl --sync")
    said = host.check_output("journalctl -t systemd-journald -o cat -n 30")
    return [line for line in said.splitlines() if "System Journal" in line][-1].split("max ")[1].split(",")[0]


def last(host) -> dict:
    return json.loads(host.file(RECORD).content_string)["since"][-1]


def test_the_last_good_tag_brings_the_host_back(data1, repository, apply):
    before = data1.file(RECORD).content_string if data1.file(RECORD).exists else None
    assert limit(data1) == "1.0G"
    try:
        apply()
        assert limit(data1) == "300.0M"
        regretted = last(data1)
        assert regretted["commit"] == git("rev-parse", "HEAD", cwd=repository)
        assert (regretted["tag"], regretted["dirty"]) == (None, None)

        git("switch", "--quiet", "--detach", "good", cwd=repository)
        apply()
    finally:
        entry = last(data1)
        if before is not None:
            data1.check_output(f"cat > {RECORD} <<'END'\n{before}\nEND")
    assert limit(data1) == "1.0G"
    assert entry["commit"] == git("rev-parse", "good", cwd=repository)
    assert entry["tag"] == "good"
    assert entry["parts"] == {"tags": "base", "limit": "data1"}
    history = [json.loads(line) for line in data1.file(HISTORY).content_string.splitlines()]
    assert [line["commit"] for line in history[-2:]] == [regretted["commit"], entry["commit"]]
    assert all(line["by"] and line["at"] for line in history)


def test_a_host_says_what_was_applied_to_it_to_everybody(data1):
    record = data1.file(RECORD)
    assert (record.user, record.mode) == ("root", 0o644)
    assert set(json.loads(record.content_string)) == {"whole", "since"}
