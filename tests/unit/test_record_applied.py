"""What a host says was applied to it: the commit, what differed from it, and which parts came after the last whole."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from plugins.action import record_applied as asked
from plugins.modules import record_applied as kept


def entry(commit: str, dirty: str | None = None, **parts: str) -> dict[str, Any]:
    return {"at": "now", "by": "me", "commit": commit, "dirty": dirty, "playbook": "site.yml", "parts": parts}


def test_the_same_again_is_no_news():
    record = kept.after({}, entry("a"))
    assert record == {"whole": entry("a"), "since": []}
    assert kept.after(record, {**entry("a"), "at": "later", "by": "you"}) is None
    assert kept.after(record, entry("a", tags="nginx")) is None


def test_another_commit_or_tree_is():
    record = kept.after({}, entry("a"))
    assert record is not None
    assert kept.after(record, entry("b")) == {"whole": entry("b"), "since": []}
    assert kept.after(record, entry("a", "1234")) == {"whole": entry("a", "1234"), "since": []}


def test_parts_lie_on_top_of_the_last_whole_run():
    record = kept.after({"whole": entry("a"), "since": []}, entry("b", tags="nginx"))
    assert record == {"whole": entry("a"), "since": [entry("b", tags="nginx")]}
    assert kept.after(record, entry("b", tags="nginx")) is None
    record = kept.after(record, entry("c", tags="base"))
    assert record is not None
    assert [part["commit"] for part in record["since"]] == ["b", "c"]
    # The part that is applied once more is what it is now, and back at the commit of the whole it still says so.
    record = kept.after(record, entry("a", tags="nginx"))
    assert record is not None
    assert [(part["commit"], part["parts"]["tags"]) for part in record["since"]] == [("c", "base"), ("a", "nginx")]
    assert kept.after(record, entry("a")) == {"whole": entry("a"), "since": []}


def test_a_record_that_cannot_be_read_is_begun_anew(tmp_path):
    broken = tmp_path / "applied.json"
    broken.write_text("{")
    assert kept.read(str(broken)) == {}
    assert kept.read(str(tmp_path / "none")) == {}


KNOWN = {"base", "nginx", "data"}


def test_what_of_a_playbook_was_run_is_seen_from_the_command_line():
    assert asked.parts({"tags": ["all"], "skip_tags": [], "subset": None, "start_at_task": None}, KNOWN) == {}
    assert asked.parts({"tags": ("base", "nginx"), "subset": "app1"}, KNOWN) == {"tags": "base,nginx", "limit": "app1"}
    assert asked.parts({"tags": ["all"], "skip_tags": ["data"], "start_at_task": "x"}, KNOWN) == {
        "skip_tags": "data",
        "start_at_task": "x",
    }
    # Ansible gives them in an order that is another one each time.
    assert asked.parts({"tags": ["tls", "base"], "skip_tags": ["nginx", "data"]}, KNOWN) == {
        "tags": "base,tls",
        "skip_tags": "data,nginx",
    }
    # What no task bears leaves nothing out.
    assert asked.parts({"tags": ["all"], "skip_tags": ["molecule-notest"]}, KNOWN) == {}


def test_a_playbooks_tags_are_those_of_its_plays_roles_and_tasks():
    plays = [
        {"tags": ["always"], "tasks": [{"block": [{"tags": "a,b"}]}]},
        {"roles": [{"role": "r", "tags": "r"}, "bare"]},
    ]
    assert asked.tags_in(plays) == {"always", "a", "b", "r"}


def git(root: Path, *words: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    done = subprocess.run(["git", "-C", str(root), *identity, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_checkout_is_asked(tmp_path):
    assert asked.source(tmp_path) == {"commit": None, "tag": None, "dirty": None}
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "a")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert asked.source(tmp_path) == {"commit": head, "tag": None, "dirty": None}
    git(tmp_path, "tag", "v1")
    assert asked.source(tmp_path)["tag"] == "v1"
    (tmp_path / "b").write_text("2")
    first = asked.source(tmp_path)["dirty"]
    (tmp_path / "b").write_text("3")
    second = asked.source(tmp_path)["dirty"]
    (tmp_path / "a").write_text("4")
    assert len({None, first, second, asked.source(tmp_path)["dirty"]}) == 4
