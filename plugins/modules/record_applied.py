#!/usr/bin/python
"""Keep on the host which commit of the repository was applied to it. Its action plugin of the same name asks git."""

from __future__ import annotations

DOCUMENTATION = r"""
module: record_applied
short_description: Keep on the host which commit of the repository was applied to it
description:
  - The host's side; see the action plugin of the same name.
options:
  entry:
    description: What was applied, as the action plugin found out.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Record what was applied
  record_applied:
    playbook: site.yml
"""

RETURN = r"""
applied:
  description: What the host now holds of itself.
  type: dict
  returned: always
"""

import json
import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

RECORD = "/etc/slipway/applied.json"
HISTORY = "/var/log/slipway/applied.jsonl"
# What makes two runs the same: when, and by whom, does not.
SAME = ("commit", "dirty", "playbook")


def same(one: dict[str, Any] | None, other: dict[str, Any], *more: str) -> bool:
    return one is not None and all(one.get(key) == other.get(key) for key in (*SAME, *more))


def after(record: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any] | None:
    """The record after a run, None when it says nothing new: the last whole run, and the parts applied since."""
    whole, since = record.get("whole"), list(record.get("since") or [])
    if not entry["parts"]:
        return None if same(whole, entry) and not since else {"whole": entry, "since": []}
    if same(whole, entry) and not since:
        return None
    if any(same(part, entry, "parts") for part in since[-1:]):
        return None
    # The same part once more takes the place of its former state.
    since = [part for part in since if part.get("parts") != entry["parts"]]
    return {"whole": whole, "since": [*since, entry]}


def read(path: str) -> dict[str, Any]:
    try:
        with open(path) as stream:
            found = json.load(stream)
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(path: str, record: dict[str, Any]) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    new = path + ".new"
    with open(new, "w") as stream:
        os.fchmod(stream.fileno(), 0o644)
        json.dump(record, stream, indent=1)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(new, path)


def append(path: str, entry: dict[str, Any]) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o640)
    try:
        os.write(descriptor, (json.dumps(entry, sort_keys=True) + "\n").encode())
    finally:
        os.close(descriptor)


def main() -> None:
    module = AnsibleModule(argument_spec={"entry": {"type": "dict", "required": True}}, supports_check_mode=True)
    entry = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **module.params["entry"]}
    before = read(RECORD)
    record = after(before, entry)
    if record is not None and not module.check_mode:
        append(HISTORY, entry)
        write(RECORD, record)
    module.exit_json(changed=record is not None, applied=record or before)


if __name__ == "__main__":
    main()
