#!/usr/bin/python
# Copyright: Slipway maintainers
# MIT License (see LICENSE)
"""Have the kernel audit by the rules on disk."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: audit_rules
short_description: Have the kernel audit by the rules on disk
description:
  - Joins C(/etc/audit/rules.d) into C(/etc/audit/audit.rules) when they differ, and loads it when the kernel has other
    rules than were loaded from it, whoever changed them.
  - The kernel lists rules in other words than files do (auditctl(8)). So what it listed right after a load is kept as a
    digest, together with the file, in I(record); a boot writes it too.
version_added: "0.1.0"
options:
  load:
    description: Whether the kernel is asked and told. Without it the rules are joined and their words are checked.
    type: bool
    default: true
  record:
    description: Where the digest is kept, on a file system that a reboot empties.
    type: path
    default: /run/slipway-audit-rules.sha256
notes:
  - Supports C(check_mode).
author:
  - Slipway maintainers
"""

EXAMPLES = r"""
- name: Have the kernel audit by the rules on disk
  audit_rules:
"""

RETURN = r"""
actions:
  description: What was (in check mode, would be) done, and why; one line each.
  type: list
  elements: str
  returned: always
"""

import glob
import hashlib
import os
import re
import shlex

from ansible.module_utils.basic import AnsibleModule

RULES = "/etc/audit/audit.rules"
SOURCES = "/etc/audit/rules.d/*.rules"
# What auditctl says when the kernel does not listen to it; what it finds wrong itself, it says in lines of its own.
ALONE = ("-D", "-c", "-i")  # Words of a file of rules, not of a command.
NOT_HEARD = re.compile(r"(Error|Cannot|You must be root).*(not permitted|refused|not supported|denied|root)")


class Refused(Exception):
    """What the task fails with."""


def digest(rules: str, listed: str) -> str:
    """As `{ cat audit.rules; auditctl -l; } | sha256sum` gives it."""
    return hashlib.sha256((rules + listed).encode()).hexdigest()


def read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except FileNotFoundError:
        return ""


def rules_of(text: str) -> list[list[str]]:
    """The rules of a file as arguments of auditctl; comments and empty lines left out."""
    return [shlex.split(line) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def complaint(output: str) -> str:
    """What auditctl finds wrong with the words of a rule, where the kernel does not take one from it anyhow."""
    return " ".join(line.strip() for line in output.splitlines() if line.strip() and not NOT_HEARD.match(line))


class Auditor:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.actions: list[str] = []

    def run(self, *command: str) -> tuple[int, str]:
        code, out, err = self.module.run_command(list(command), environ_update={"LC_ALL": "C"})
        return code, out + err

    def settle(self, load: bool, record: str) -> None:
        if self.module.check_mode and not self.module.get_bin_path("augenrules"):
            self.actions.append("auditd is not installed yet")
            return
        stale = "No change" not in self.run("augenrules", "--check")[1]
        if stale:
            self.actions.append(f"{RULES} differs from {SOURCES}: joined anew")
        if not load:
            if stale and not self.module.check_mode:
                self.join()
            return
        code, listed = self.run("auditctl", "-l")
        if code != 0:
            raise Refused(f"the kernel does not tell its audit rules: {listed.strip()}")
        if stale or read(record).strip() != digest(read(RULES), listed):
            self.actions.append("the kernel has other audit rules than its file: loaded")
            if not self.module.check_mode:
                self.load(record)

    def join(self) -> None:
        # Where the kernel listens, this would load them.
        if self.run("auditctl", "-s")[0] != 0:
            self.check_words()
        code, output = self.run("augenrules")
        if code != 0:
            raise Refused(f"augenrules failed: {output.strip()}")

    def check_words(self) -> None:
        for path in sorted(glob.glob(SOURCES)):
            for rule in rules_of(read(path)):
                trouble = "" if rule[0] in ALONE else complaint(self.run("auditctl", *rule)[1])
                if trouble:
                    raise Refused(f"auditctl refuses `{shlex.join(rule)}` in {path}: {trouble}")

    def load(self, record: str) -> None:
        code, output = self.run("augenrules", "--load")
        if code != 0:
            raise Refused(f"not every audit rule could be loaded: {output.strip()}")
        if "immutable" in output or "enabled 2" in output:
            raise Refused(
                "the audit rules are locked (-e 2): the new ones are on disk and are loaded by the next reboot"
            )
        listed = self.run("auditctl", "-l")[1]
        with open(record, "w") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(digest(read(RULES), listed) + "\n")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "load": {"type": "bool", "default": True},
            "record": {"type": "path", "default": "/run/slipway-audit-rules.sha256"},
        },
        supports_check_mode=True,
    )
    auditor = Auditor(module)
    try:
        auditor.settle(module.params["load"], module.params["record"])
    except Refused as refusal:
        module.fail_json(msg=str(refusal), actions=auditor.actions)
    diff = {"before": "", "after": "".join(line + "\n" for line in auditor.actions)}
    module.exit_json(changed=bool(auditor.actions), actions=auditor.actions, diff=diff)


if __name__ == "__main__":
    main()
