"""Say on each host which commit of this repository was applied to it, by whom, and in which parts."""

from __future__ import annotations

DOCUMENTATION = r"""
module: record_applied
short_description: Record on the host which commit of this repository was applied
description:
  - Asks git on the controller for the commit, its tag and whether the tree differs from it, and hands that to the
    module of the same name, which writes C(/etc/slipway/applied.json) and appends to C(/var/log/slipway/applied.jsonl).
  - A run with C(--tags), C(--skip-tags), C(--limit) or C(--start-at-task) is a partial one, and is recorded as such on
    top of the last whole one.
  - A run of what the host has already writes nothing, and neither does check mode.
options:
  playbook:
    description: The name of the playbook.
    type: str
    required: true
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from ansible import context
from ansible.plugins.action import ActionBase

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from plugins.action.releasectl import actor

# What Ansible itself gives a meaning to.
SPECIAL_TAGS = {"all", "always", "tagged", "untagged"}


def git(root: Path, *words: str) -> bytes | None:
    """What git says, None when it says no or is not there."""
    # A checkout that another account owns is read all the same: nothing of it is run.
    argv = ["git", "-c", f"safe.directory={root}", "-C", str(root), *words]
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def source(root: Path) -> dict[str, Any]:
    """Which commit the checkout is at, and a digest of what differs from it; a copy without git has no commit."""
    head = git(root, "rev-parse", "HEAD")
    if head is None:
        return {"commit": None, "tag": None, "dirty": None}
    tag = git(root, "describe", "--tags", "--exact-match", "HEAD")
    changed = git(root, "diff", "--binary", "HEAD") or b""
    digest = hashlib.sha256(changed)
    for name in sorted((git(root, "ls-files", "-z", "--others", "--exclude-standard") or b"").split(b"\0")):
        path = root / os.fsdecode(name)
        if name and path.is_file() and not path.is_symlink():
            changed += name
            digest.update(name + b"\0" + path.read_bytes())
    return {
        "commit": head.decode().strip(),
        "tag": tag.decode().strip() if tag else None,
        "dirty": digest.hexdigest()[:12] if changed else None,
    }


def tags_in(content: Any) -> set[str]:
    """The tags that a playbook's plays, roles and tasks bear."""
    if isinstance(content, list):
        return {tag for entry in content for tag in tags_in(entry)}
    if not isinstance(content, dict):
        return set()
    own = content.get("tags") or []
    found = set(own.split(",") if isinstance(own, str) else own)
    return found | {tag for entry in content.values() if isinstance(entry, list) for tag in tags_in(entry)}


def parts(arguments: dict[str, Any], known: set[str]) -> dict[str, str]:
    """What of the playbook was run, by the command line; empty when all of it was.

    known: the tags that the playbook bears; to skip another one skips nothing.
    """
    tags = [tag for tag in arguments.get("tags") or [] if tag != "all"]
    skipped = [tag for tag in arguments.get("skip_tags") or [] if tag in known | SPECIAL_TAGS]
    found = {
        "tags": ",".join(sorted(tags)),
        "skip_tags": ",".join(sorted(skipped)),
        "limit": str(arguments.get("subset") or ""),
        "start_at_task": str(arguments.get("start_at_task") or ""),
    }
    return {name: value for name, value in found.items() if value}


class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, given = self.validate_argument_spec({"playbook": {"type": "str", "required": True}})
        if self._task.check_mode:
            return {"changed": False, "msg": "nothing was applied, so nothing is recorded"}
        known = tags_in(yaml.safe_load((ROOT / "playbooks" / given["playbook"]).read_text()))
        entry = {
            **source(ROOT),
            "by": actor(),
            "playbook": given["playbook"],
            "parts": parts(dict(context.CLIARGS), known),
        }
        result: dict[str, Any] = self._execute_module(
            module_name="record_applied", module_args={"entry": entry}, task_vars=task_vars or {}
        )
        return result
