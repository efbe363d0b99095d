#!/usr/bin/python
"""Bring all packages of a host up to date, and say exactly which went from what to what."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package_upgrades
short_description: Upgrade all packages, and say which went from what to what
description:
  - Refreshes apt's lists (in check mode too, or it would speak of yesterday), and fetches or installs what is newer.
    New packages that an upgrade needs, such as a kernel, come along; none is removed, and held ones stay.
  - Configuration files that were changed on the host stay as they are.
options:
  state:
    description: With C(fetched) the packages are downloaded only; with C(upgraded) they are installed.
    type: str
    choices: [fetched, upgraded]
    required: true
  lock_seconds:
    description: How long to wait for another apt or dpkg to end.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: Upgrade all packages
  package_upgrades:
    state: upgraded
"""

RETURN = r"""
packages:
  description: What is (in check mode and with C(fetched), would be) upgraded.
  type: list
  elements: dict
  returned: always
  sample: [{name: openssl, before: 3.0.15-1, after: 3.0.16-1}]
kept:
  description: What is newer and stays, held or for what its upgrade would remove.
  type: list
  elements: str
  returned: always
reboot:
  description: Whether the host asks for a reboot.
  type: bool
  returned: always
reboot_for:
  description: The packages that ask for it.
  type: list
  elements: str
  returned: always
summary:
  description: The same in a line.
  type: str
  returned: always
"""

import os
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule

FLAG = "/run/reboot-required"
ENVIRONMENT = {
    "LC_ALL": "C",
    "DEBIAN_FRONTEND": "noninteractive",
    "APT_LISTCHANGES_FRONTEND": "none",
    # What an upgrade made stale is restarted without a question; needrestart's own configuration keeps the app's units.
    "NEEDRESTART_MODE": "a",
}
UPGRADE = ["upgrade", "--with-new-pkgs"]
INSTALLS = re.compile(r"^Inst (\S+)(?: \[([^\]]*)\])? \((\S+)")


def planned(simulation: str) -> list[dict[str, str]]:
    """What `apt-get --simulate` would install: name, the version before (empty for a new package) and after."""
    found = []
    for line in simulation.splitlines():
        match = INSTALLS.match(line)
        if match:
            found.append({"name": match[1], "before": match[2] or "", "after": match[3]})
    return found


def kept_back(simulation: str) -> list[str]:
    """What `apt-get` says it keeps back."""
    match = re.search(r"^The following packages have been kept back:\n((?: .*\n)+)", simulation, re.MULTILINE)
    return match[1].split() if match else []


def summary(packages: list[dict[str, str]]) -> str:
    """One line for a person: the first few by name and version, the others by number."""
    if not packages:
        return "nothing to upgrade"
    shown = [
        f"{p['name']} {p['before']} -> {p['after']}" if p["before"] else f"{p['name']} (new)" for p in packages[:8]
    ]
    more = f" and {len(packages) - 8} more" if len(packages) > 8 else ""
    return f"{len(packages)} packages: {', '.join(shown)}{more}" if len(packages) > 1 else f"1 package: {shown[0]}"


def flagged() -> tuple[bool, list[str]]:
    """Whether a reboot is asked for, and by which packages."""
    if not os.path.exists(FLAG):
        return False, []
    try:
        with open(FLAG + ".pkgs") as stream:
            return True, sorted(set(stream.read().split()))
    except FileNotFoundError:
        return True, []


class Apt:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def get(self, *words: str) -> str:
        argv = ["apt-get", "-q", "-y", "-o", f"DPkg::Lock::Timeout={self.module.params['lock_seconds']}"]
        argv += ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold", *words]
        code, out, err = self.module.run_command(argv, environ_update=ENVIRONMENT)
        if code != 0:
            told = [line for line in err.splitlines() if line.startswith("E:")] or err.splitlines()[-3:]
            self.module.fail_json(
                msg=f"apt-get {' '.join(words)} failed: {' '.join(told)}", output=out.splitlines()[-20:]
            )
        return str(out)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["fetched", "upgraded"], "required": True},
            "lock_seconds": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    apt = Apt(module)
    apt.get("update")
    simulation = apt.get("--simulate", *UPGRADE)
    packages = planned(simulation)
    upgrades = module.params["state"] == "upgraded"
    if packages and not module.check_mode:
        apt.get(*([] if upgrades else ["--download-only"]), *UPGRADE)
    reboot, reboot_for = flagged()
    result: dict[str, Any] = {
        "packages": packages, "kept": kept_back(simulation), "reboot": reboot, "reboot_for": reboot_for,
        "summary": summary(packages),
    }  # fmt: skip
    module.exit_json(changed=bool(packages) and upgrades, **result)


if __name__ == "__main__":
    main()
