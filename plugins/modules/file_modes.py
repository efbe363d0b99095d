#!/usr/bin/python
# Copyright: Slipway maintainers
# MIT License (see LICENSE)
"""Take away rights that files should not give, many paths in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: file_modes
short_description: Take away rights that files should not give
description:
  - Holds the modes of files that are there against the most that each may be. Bits beyond that are taken away; none is
    ever added, so a file that somebody made stricter stays so. Owner and group are set where they are given.
  - What is not there is no error. Symlinks are left alone, and so are files that are not regular.
version_added: "0.1.0"
options:
  paths:
    description: The paths, in order; where several name one file, the first speaks for it.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute, with the wildcards of a shell; C(**) stands for any directories below.
        type: str
        required: true
      id:
        description: What asks for it, the number of a control say; for people who read the task.
        type: str
      mode:
        description: The most that the mode may be, three or four octal digits, quoted.
        type: str
      owner:
        description: Name of the owner.
        type: str
      group:
        description: Name of the group.
        type: str
      kind:
        description: What to look at.
        type: str
        choices: [file, directory, any]
        default: any
      without_group:
        description: A group that this host does not know is no error; the group is left as it is.
        type: bool
        default: false
notes:
  - Supports C(check_mode) and C(--diff).
author:
  - Slipway maintainers
"""

EXAMPLES = r"""
- name: Keep what is root's to root
  file_modes:
    paths:
      - {id: "6.1.5", path: /etc/shadow, mode: "0640", owner: root, group: shadow}
      - {path: /etc/cron.*, mode: "0700", owner: root, group: root, kind: directory}
      - {path: /var/log/**, mode: "0640", kind: file}
"""

RETURN = r"""
changed_files:
  description: Every path that was changed.
  type: list
  elements: str
  returned: always
"""

import contextlib
import glob
import grp
import os
import pwd
import re
import stat
from typing import Any

from ansible.module_utils.basic import AnsibleModule


class Refused(Exception):
    """What the task fails with."""


def octal(text: str) -> int:
    if not re.fullmatch(r"[0-7]{3,4}", text):
        raise Refused(f"a mode is three or four octal digits in quotes, like '0640', and not {text!r}")
    return int(text, 8)


def matches(pattern: str) -> list[str]:
    """What a pattern stands for, hidden files included where it ends in `**`."""
    if pattern.endswith("/**"):
        found = []
        for top, names, files in os.walk(pattern[:-3]):
            found += [os.path.join(top, name) for name in (*names, *files)]
        return sorted(found)
    return sorted(glob.glob(pattern, recursive=True))


def is_meant(kind: str, mode: int) -> bool:
    if stat.S_ISREG(mode):
        return kind in ("file", "any")
    return stat.S_ISDIR(mode) and kind in ("directory", "any")


def wanted(present: tuple[int, int, int], most: int | None, uid: int | None, gid: int | None) -> tuple[int, int, int]:
    """(mode, uid, gid) as they should be. The sticky bit takes a right away, and is always left."""
    mode, present_uid, present_gid = present
    kept = mode if most is None else mode & (most | stat.S_ISVTX)
    return kept, present_uid if uid is None else uid, present_gid if gid is None else gid


def describe(state: tuple[int, int, int]) -> str:
    mode, uid, gid = state
    owner, group = str(uid), str(gid)
    with contextlib.suppress(KeyError):
        owner = pwd.getpwuid(uid).pw_name
    with contextlib.suppress(KeyError):
        group = grp.getgrgid(gid).gr_name
    return f"{mode:04o} {owner}:{group}"


def user_id(name: str | None) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid if name else None
    except KeyError:
        raise Refused(f"there is no user {name} on this host") from None


def group_id(name: str | None, needed: bool) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid if name else None
    except KeyError:
        if needed:
            raise Refused(f"there is no group {name} on this host") from None
        return None


def tighten(entries: list[dict[str, Any]], check_mode: bool) -> list[tuple[str, str, str]]:
    """(path, before, after) of every file that was, or would be, changed."""
    changed = []
    seen: set[str] = set()
    for entry in entries:
        most = octal(entry["mode"]) if entry["mode"] else None
        uid, gid = user_id(entry["owner"]), group_id(entry["group"], not entry["without_group"])
        for path in matches(entry["path"]):
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue  # It went while we looked.
            if path in seen or not is_meant(entry["kind"], status.st_mode):
                continue
            seen.add(path)
            before = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
            after = wanted(before, most, uid, gid)
            if before == after:
                continue
            changed.append((path, describe(before), describe(after)))
            if not check_mode:
                apply(path, before, after)
    return changed


def apply(path: str, before: tuple[int, int, int], after: tuple[int, int, int]) -> None:
    # By a descriptor that no symlink can turn elsewhere: what lies in a directory that others may write is hostile.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if before[1:] != after[1:]:
            os.fchown(descriptor, after[1], after[2])
        # After the owner, whose change takes set-user-id bits away.
        os.fchmod(descriptor, after[0])
    finally:
        os.close(descriptor)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "str", "required": True},
                    "id": {"type": "str"},
                    "mode": {"type": "str"},
                    "owner": {"type": "str"},
                    "group": {"type": "str"},
                    "kind": {"type": "str", "choices": ["file", "directory", "any"], "default": "any"},
                    "without_group": {"type": "bool", "default": False},
                },
            },
        },
        supports_check_mode=True,
    )
    try:
        changed = tighten(module.params["paths"], module.check_mode)
    except (Refused, OSError) as error:
        module.fail_json(msg=str(error))
    diff = [
        {"before_header": path, "after_header": path, "before": before + "\n", "after": after + "\n"}
        for path, before, after in changed
    ]
    module.exit_json(changed=bool(changed), changed_files=[path for path, _, _ in changed], diff=diff)


if __name__ == "__main__":
    main()
