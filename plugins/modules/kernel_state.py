#!/usr/bin/python
# Copyright: Slipway maintainers
# MIT License (see LICENSE)
"""Have the running kernel be as its configuration files say: parameters, modules that are not wanted, mount options."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: kernel_state
short_description: Have the running kernel be as its files say
description:
  - Files under C(/etc/sysctl.d), C(/etc/modprobe.d) and units of systemd say what a boot makes of a host. This looks at
    what the running kernel has, and changes what differs, whoever changed it. One round trip for all of it.
version_added: "0.1.0"
options:
  sysctl:
    description:
      - Parameters and their values. A C(*) in a name stands for every interface that is there now, C(all) and
        C(default) among them.
      - What this kernel does not have is told under RV(unknown), and is no error.
    type: dict
    default: {}
  sysctl_prefixes:
    description: Where given, only parameters that begin with one of these are looked at.
    type: list
    elements: str
    default: []
  blocked_modules:
    description: Modules that shall not be loaded. One that is in use stays, with a warning.
    type: list
    elements: str
    default: []
  mounts:
    description: Mount points, and options that each must have. One that is not mounted is told under RV(unmounted).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The mount point.
        type: path
        required: true
      options:
        description: Options of the mount point, such as C(nodev).
        type: list
        elements: str
        required: true
notes:
  - Supports C(check_mode) and C(--diff).
author:
  - Slipway maintainers
"""

EXAMPLES = r"""
- name: Have the running kernel do what its files say
  kernel_state:
    sysctl:
      kernel.randomize_va_space: 2
      net.ipv4.conf.*.accept_redirects: 0
    blocked_modules: [cramfs]
    mounts:
      - {path: /dev/shm, options: [nodev, nosuid, noexec]}
"""

RETURN = r"""
actions:
  description: What was (in check mode, would be) done, and why; one line each.
  type: list
  elements: str
  returned: always
unknown:
  description: Parameters that this kernel does not have.
  type: list
  elements: str
  returned: always
unmounted:
  description: Mount points at which nothing is mounted.
  type: list
  elements: str
  returned: always
"""

import glob
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

PROC_SYS = "/proc/sys"
# Options of a mount point. `mount -o remount,bind` replaces all of them, so those that are there are said again.
KEPT = {"ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime"}


class Refused(Exception):
    """What the task fails with."""


def parameter_files(name: str, root: str = PROC_SYS) -> list[str]:
    """The files that a parameter's name stands for: net.ipv4.conf.*.rp_filter has one for each interface."""
    pattern = os.path.join(root, *name.split("."))
    return sorted(glob.glob(pattern)) if "*" in name else [pattern] if os.path.exists(pattern) else []


def normal(value: object) -> str:
    """A parameter of several numbers has them apart by tabs."""
    return " ".join(str(value).split())


def modules_loaded(text: str, blocked: list[str]) -> list[str]:
    """Those of the blocked modules that /proc/modules names. The kernel writes usb_storage for usb-storage."""
    loaded = {line.split()[0] for line in text.splitlines() if line.strip()}
    return [name for name in blocked if name.replace("-", "_") in loaded]


def mount_options(text: str, path: str) -> set[str] | None:
    """The options of the mount point by /proc/self/mountinfo (proc(5)); of several at one place the last is on top."""
    found = None
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 5 and fields[4].replace("\\040", " ") == path:
            found = set(fields[5].split(","))
    return found


class Kernel:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.check_mode: bool = module.check_mode
        self.actions: list[str] = []
        self.unknown: list[str] = []
        self.unmounted: list[str] = []

    def set_parameters(self, wanted: dict[str, Any], prefixes: list[str]) -> None:
        for name, value in wanted.items():
            if prefixes and not name.startswith(tuple(prefixes)):
                continue
            files = parameter_files(name)
            if not files:
                self.unknown.append(name)
            for path in files:
                self.set_parameter(path, normal(value))

    def set_parameter(self, path: str, value: str) -> None:
        name = os.path.relpath(path, PROC_SYS).replace("/", ".")
        try:
            with open(path) as file:
                present = normal(file.read())
            if present == value:
                return
            self.actions.append(f"{name}: {present} becomes {value}")
            if self.check_mode:
                return
            with open(path, "w") as file:
                file.write(value + "\n")
            with open(path) as file:
                after = normal(file.read())
        except FileNotFoundError:
            return  # An interface that went while we looked.
        except OSError as error:
            raise Refused(f"the kernel does not take {name} = {value}: {error.strerror}") from error
        if after != value:
            raise Refused(f"the kernel was given {name} = {value} and has {after}")

    def unload(self, blocked: list[str]) -> None:
        if not blocked:
            return
        with open("/proc/modules") as file:
            loaded = modules_loaded(file.read(), blocked)
        for name in loaded:
            if self.check_mode:
                self.actions.append(f"{name}: is loaded")
                continue
            code, out, err = self.module.run_command(["modprobe", "-r", name])
            if code == 0:
                self.actions.append(f"{name}: unloaded")
            else:
                self.module.warn(
                    f"The module {name} is loaded and cannot be unloaded ({(out + err).strip()}): it goes with the "
                    "next reboot. If this host needs it, take it out of hardening_blocked_modules."
                )

    def set_mount_options(self, path: str, wanted: list[str]) -> None:
        with open("/proc/self/mountinfo") as file:
            present = mount_options(file.read(), path)
        if present is None:
            self.unmounted.append(path)
            return
        missing = [option for option in wanted if option not in present]
        if not missing:
            return
        self.actions.append(f"{path}: is mounted without {', '.join(missing)}")
        if self.check_mode:
            return
        options = ["remount", "bind", *sorted((present & KEPT) | set(wanted))]
        code, out, err = self.module.run_command(["mount", "-o", ",".join(options), path])
        if code != 0:
            raise Refused(f"{path} cannot be mounted with {', '.join(missing)}: {(out + err).strip()}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "sysctl": {"type": "dict", "default": {}},
            "sysctl_prefixes": {"type": "list", "elements": "str", "default": []},
            "blocked_modules": {"type": "list", "elements": "str", "default": []},
            "mounts": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "options": {"type": "list", "elements": "str", "required": True},
                },
            },
        },
        supports_check_mode=True,
    )
    kernel = Kernel(module)
    try:
        kernel.set_parameters(module.params["sysctl"], module.params["sysctl_prefixes"])
        kernel.unload(module.params["blocked_modules"])
        for mount in module.params["mounts"]:
            kernel.set_mount_options(mount["path"], mount["options"])
    except Refused as refusal:
        module.fail_json(msg=str(refusal), actions=kernel.actions)
    diff = {"before": "", "after": "".join(line + "\n" for line in kernel.actions)}
    module.exit_json(
        changed=bool(kernel.actions),
        actions=kernel.actions,
        unknown=kernel.unknown,
        unmounted=kernel.unmounted,
        diff=diff,
    )


if __name__ == "__main__":
    main()
