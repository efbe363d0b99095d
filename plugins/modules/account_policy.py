#!/usr/bin/python
# Copyright: Slipway maintainers
# MIT License (see LICENSE)
"""Has every account of a host keep to the policy for passwords and for system accounts; keys are not its business."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: account_policy
short_description: Have all accounts of a host keep to the password and system account policy
description:
  - Accounts that a password can open age as given. Accounts that only keys open never age, whatever the defaults were
    when they were made, since an aged account is refused with a key as well.
  - System accounts have no login shell and no password, but for those that are excepted.
  - One look at C(/etc/passwd) and C(/etc/shadow); C(chage) and C(usermod) for what differs.
version_added: "0.2.0"
options:
  max_days:
    description: After how many days a password must be changed.
    type: int
    required: true
  min_days:
    description: How many days a password must be kept.
    type: int
    required: true
  warn_days:
    description: How many days before that a warning is given.
    type: int
    required: true
  inactive_days:
    description: How many days after that the password still opens the account, to change it.
    type: int
    required: true
  never_inactive:
    description: Accounts whose aged password can always still be changed.
    type: list
    elements: str
    default: [root]
  login_shells_for:
    description: System accounts that keep their login shell.
    type: list
    elements: str
    default: []
  login_groups:
    description: Groups whose members keep their login shell.
    type: list
    elements: str
    default: []
notes:
  - Supports C(check_mode) and C(--diff).
author:
  - Slipway maintainers
"""

EXAMPLES = r"""
- name: Have accounts keep to the policy
  account_policy: {max_days: 365, min_days: 1, warn_days: 7, inactive_days: 30}
"""

RETURN = r"""
corrections:
  description: What was (in check mode, would be) corrected, one line each.
  type: list
  elements: str
  returned: always
"""

import grp
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule

NEVER = -1
FIRST_USER = 1000
NOBODY = 65534
# What a system account may run for a login shell; sync, shutdown and halt are the shells of accounts of those names.
NO_SHELL = {"/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/false"}
OWN_SHELL = {"root", "sync", "shutdown", "halt"}


def read(path: str) -> dict[str, list[str]]:
    """name: fields of each line."""
    found = {}
    with open(path) as stream:
        for line in stream:
            fields = line.rstrip("\n").split(":")
            if len(fields) > 6:
                found[fields[0]] = fields
    return found


def opens(password: str) -> bool:
    """Whether some password opens an account with this in /etc/shadow. An empty one does, too."""
    return not re.match(r"[!*]", password)


def number(field: str) -> int:
    return int(field) if re.fullmatch(r"-?\d+", field) else NEVER


def members(groups: list[str], passwd: dict[str, list[str]]) -> set[str]:
    """The accounts that are in one of these groups."""
    found: set[str] = set()
    for name in groups:
        try:
            group = grp.getgrnam(name)
        except KeyError:
            continue
        found.update(group.gr_mem)
        found.update(user for user, fields in passwd.items() if fields[3] == str(group.gr_gid))
    return found


def plan(
    passwd: dict[str, list[str]], shadow: dict[str, list[str]], policy: dict[str, Any], may_log_in: set[str]
) -> list[tuple[str, list[str]]]:
    """(what is wrong, the command that corrects it) for each account that differs."""
    steps = []
    for name, fields in passwd.items():
        entry = shadow.get(name)
        if entry is None:
            continue
        password, (lowest, highest, warn, inactive) = entry[1], (number(field) for field in entry[3:7])
        if opens(password):
            idle = NEVER if name in policy["never_inactive"] else policy["inactive_days"]
            wanted = (policy["min_days"], policy["max_days"], policy["warn_days"], idle)
            if (lowest, highest, warn, inactive) != wanted:
                options = [f"--mindays={wanted[0]}", f"--maxdays={wanted[1]}", f"--warndays={wanted[2]}"]
                command = ["chage", *options, f"--inactive={wanted[3]}", name]
                steps.append((f"{name}: its password does not age as it should", command))
        elif 0 <= highest < 99999 or inactive >= 0:
            command = ["chage", "--mindays=0", "--maxdays=-1", "--inactive=-1", name]
            steps.append((f"{name}: it would age, and only keys open it", command))
        uid = number(fields[2])
        if not (uid < FIRST_USER or uid == NOBODY) or name in OWN_SHELL:
            continue
        if fields[6] not in NO_SHELL and name not in may_log_in:
            command = ["usermod", "-s", "/usr/sbin/nologin", name]
            steps.append((f"{name}: a system account with the shell {fields[6]}", command))
        if opens(password):
            steps.append((f"{name}: a system account that a password opens", ["usermod", "-L", name]))
    return steps


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "max_days": {"type": "int", "required": True},
            "min_days": {"type": "int", "required": True},
            "warn_days": {"type": "int", "required": True},
            "inactive_days": {"type": "int", "required": True},
            "never_inactive": {"type": "list", "elements": "str", "default": ["root"]},
            "login_shells_for": {"type": "list", "elements": "str", "default": []},
            "login_groups": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    passwd = read("/etc/passwd")
    may_log_in = {*module.params["login_shells_for"], *members(module.params["login_groups"], passwd)}
    steps = plan(passwd, read("/etc/shadow"), module.params, may_log_in)
    lines = [line for line, _ in steps]
    if not module.check_mode:
        for line, command in steps:
            code, out, err = module.run_command(command, environ_update={"LC_ALL": "C"})
            if code != 0:
                module.fail_json(msg=f"{line}; `{' '.join(command)}` failed: {(out + err).strip()}", corrections=lines)
    diff = {"before": "", "after": "".join(f"{line}\n" for line in lines)}
    module.exit_json(changed=bool(lines), corrections=lines, diff=diff)


if __name__ == "__main__":
    main()
