#!/usr/bin/python
"""Have services run, enabled, with the configuration that is on disk."""

from __future__ import annotations

DOCUMENTATION = r"""
module: running_services
short_description: Have services run, enabled, with the configuration that is on disk
description:
  - Looks at what runs, not at what a handler was told. A daemon that started (or was last reloaded) before its files
    were written is reloaded or restarted, whoever wrote them and however the run that did ended.
  - Services are taken in the order given. One round trip for all of them.
options:
  services:
    description: The services.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The unit, with or without C(.service).
        type: str
        required: true
      enabled:
        description: Whether it starts at boot. Without it that is left as it is.
        type: bool
      started:
        description: Whether it shall run now. Without it only its place at boot is looked at.
        type: bool
        default: true
      reload_after:
        description: Files, and directories with all below them, which the service reads again on reload.
        type: list
        elements: path
        default: []
      restart_after:
        description: Files, and directories with all below them, which the service reads at its start only.
        type: list
        elements: path
        default: []
      validate:
        description: A command that must succeed before the service is started, reloaded or restarted.
        type: str
      process_groups:
        description: Groups that each child process of the service must be in; it is reloaded when one is not.
        type: list
        elements: str
        default: []
      reload_replaces_processes:
        description:
          - The service answers a reload with new child processes, as nginx does; it counts only when they are there.
        type: bool
        default: false
      only_if_active:
        description: Leave the service alone unless it runs.
        type: bool
        default: false
"""

EXAMPLES = r"""
- name: Have nginx serve the configuration on disk
  running_services:
    services:
      - name: nginx
        enabled: true
        reload_after: [/etc/nginx]
        validate: nginx -t
        reload_replaces_processes: true
"""

RETURN = r"""
actions:
  description: What was (in check mode, would be) done, and why; one line each.
  type: list
  elements: str
  returned: always
"""

import contextlib
import datetime
import grp
import os
import shlex
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "UnitFileState",
    "NeedDaemonReload",
    "StateChangeTimestamp",
    "ActiveEnterTimestamp",
    "MainPID",
)
# What `systemctl is-enabled` calls a unit that starts at boot, or that something else starts.
ENABLED = {"enabled", "enabled-runtime", "static", "alias", "indirect", "generated", "linked", "transient"}
TICK = 1.0 / os.sysconf("SC_CLK_TCK")


def parse_properties(text: str) -> dict[str, str]:
    """What `systemctl show` prints, as a dict."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def parse_time(text: str) -> float:
    """Seconds since the epoch of `Mon 2026-11-23 16:27:00.123456 UTC`; 0 when the thing never happened."""
    parts = (text or "").split()
    if len(parts) != 4:
        return 0.0
    moment = datetime.datetime.strptime(parts[1] + " " + parts[2], "%Y-%m-%d %H:%M:%S.%f")
    return moment.replace(tzinfo=datetime.timezone.utc).timestamp()


def newest(paths: list[str]) -> tuple[str | None, float]:
    """The newest of these files, and of all below these directories: (path, time of its last change)."""
    found: tuple[str | None, float] = (None, 0.0)
    for path in paths:
        candidates = [path]
        for top, directories, files in os.walk(path):
            candidates += [os.path.join(top, name) for name in directories + files]
        for candidate in candidates:
            try:
                changed = os.lstat(candidate).st_mtime
            except FileNotFoundError:
                continue
            if changed > found[1]:
                found = (candidate, changed)
    return found


def children(pid: int) -> dict[int, tuple[float, set[int]]]:
    """The child processes of a process: {pid: (time of its start, its group ids)}."""
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        # A process may end while we look.
        with contextlib.suppress(OSError, IndexError, ValueError):
            with open("/proc/" + name + "/stat") as stream:
                fields = stream.read().rpartition(")")[2].split()
            if int(fields[1]) != pid:
                continue
            with open("/proc/" + name + "/status") as stream:
                status = dict(line.split(":", 1) for line in stream.read().splitlines() if ":" in line)
            groups = {int(group) for group in status["Groups"].split()} | {int(status["Gid"].split()[1])}
            found[int(name)] = (boot + int(fields[19]) * TICK, groups)
    return found


def plan(
    service: dict[str, Any],
    state: dict[str, str],
    files: dict[str, tuple[str | None, float]],
    processes: dict[int, tuple[float, set[int]]],
    wanted_groups: set[int],
) -> list[tuple[str, str]]:
    """What has to be done to one service, as (verb, why) in order. A pure function of what was seen.

    state: its properties; files: {"reload": (path, time), "restart": (path, time)}; processes: see children().
    """
    active = state["ActiveState"] in ("active", "reloading")
    if service["only_if_active"] and not active:
        # It is left alone, but what starts it later shall start what is on disk.
        return [("daemon-reload", "its unit file changed")] if state.get("NeedDaemonReload") == "yes" else []
    steps = []
    if state["LoadState"] == "masked":
        steps.append(("unmask", "it is masked"))
    if state.get("NeedDaemonReload") == "yes":
        steps.append(("daemon-reload", "its unit file changed"))
    if service["enabled"] is True and state.get("UnitFileState") not in ENABLED:
        steps.append(("enable", "it does not start at boot"))
    if service["enabled"] is False and state.get("UnitFileState") in ("enabled", "enabled-runtime"):
        steps.append(("disable", "it starts at boot"))
    if not service["started"]:
        return steps
    if not active:
        steps.append(("start", "it is " + state["ActiveState"]))
        return steps

    path, changed = files["restart"]
    if path and changed > parse_time(state["ActiveEnterTimestamp"]):
        steps.append(("restart", path + " is newer than its start"))
        return steps
    path, changed = files["reload"]
    if path and changed > parse_time(state["StateChangeTimestamp"]):
        steps.append(("reload", path + " is newer than its last reload"))
    elif path and service["reload_replaces_processes"] and not any(s + TICK >= changed for s, _ in processes.values()):
        steps.append(("reload", path + " is newer than its processes"))
    elif any(not wanted_groups <= groups for _, groups in processes.values()):
        steps.append(("reload", "a process of it is not in " + ", ".join(service["process_groups"])))
    return steps


class Services:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module

    def systemctl(self, *arguments: str) -> tuple[int, str, str]:
        done: tuple[int, str, str] = self.module.run_command(["systemctl", *arguments], environ_update={"LC_ALL": "C"})
        return done

    def look(self, service: dict[str, Any]) -> dict[str, str]:
        _, out, _ = self.systemctl("show", "--timestamp=us+utc", "-p", ",".join(PROPERTIES), service["name"])
        return parse_properties(out)

    def journal(self, name: str) -> list[str]:
        _, out, _ = self.module.run_command(["journalctl", "-u", name, "-n", "20", "--no-pager", "-o", "cat"])
        return str(out).splitlines()

    def groups(self, names: list[str]) -> set[int]:
        ids = set()
        for name in names:
            try:
                ids.add(grp.getgrnam(name).gr_gid)
            except KeyError:
                if not self.module.check_mode:
                    self.module.fail_json(msg="There is no group " + name + " on this host.")
        return ids

    def settle(self, service: dict[str, Any]) -> list[str]:
        state = self.look(service)
        files = {"reload": newest(service["reload_after"]), "restart": newest(service["restart_after"])}
        watched = service["reload_replaces_processes"] or service["process_groups"]
        processes = children(int(state.get("MainPID") or 0)) if watched and state.get("MainPID", "0") != "0" else {}
        steps = plan(service, state, files, processes, self.groups(service["process_groups"]))
        lines = [service["name"] + ": " + verb + ", for " + why for verb, why in steps]
        if steps and not self.module.check_mode:
            self.apply(service, [verb for verb, _ in steps], processes)
        return lines

    def apply(self, service: dict[str, Any], verbs: list[str], processes: dict[int, Any]) -> None:
        name = service["name"]
        disturbing = {"start", "restart", "reload"} & set(verbs)
        if service["validate"] and disturbing:
            code, out, err = self.module.run_command(shlex.split(service["validate"]))
            if code != 0:
                self.module.fail_json(
                    msg=name
                    + " was left as it runs: its new configuration is refused by `"
                    + service["validate"]
                    + "`.",
                    output=(out + err).splitlines()[-20:],
                )
        for verb in verbs:
            arguments = [verb] if verb == "daemon-reload" else [verb, name]
            code, out, err = self.systemctl(*arguments)
            if code != 0:
                self.module.fail_json(
                    msg="systemctl " + " ".join(arguments) + " failed: " + (out + err).strip(),
                    journal=self.journal(name),
                )
        if not disturbing:
            return
        if self.look(service)["ActiveState"] != "active":
            self.module.fail_json(msg=name + " does not stay up after " + verbs[-1] + ".", journal=self.journal(name))
        if verbs[-1] == "reload" and service["reload_replaces_processes"]:
            self.await_new(service, processes)

    def await_new(self, service: dict[str, Any], old: dict[int, Any]) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if set(children(int(self.look(service)["MainPID"]))) - set(old):
                return
            time.sleep(0.1)
        self.module.fail_json(
            msg=service["name"] + " was told to reload and still runs its former configuration.",
            journal=self.journal(service["name"]),
        )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "services": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "enabled": {"type": "bool"},
                    "started": {"type": "bool", "default": True},
                    "reload_after": {"type": "list", "elements": "path", "default": []},
                    "restart_after": {"type": "list", "elements": "path", "default": []},
                    "validate": {"type": "str"},
                    "process_groups": {"type": "list", "elements": "str", "default": []},
                    "reload_replaces_processes": {"type": "bool", "default": False},
                    "only_if_active": {"type": "bool", "default": False},
                },
            },
        },
        supports_check_mode=True,
    )
    services = Services(module)
    lines = []
    for service in module.params["services"]:
        lines += services.settle(service)
    diff = {"before": "", "after": "".join(line + "\n" for line in lines)}
    module.exit_json(changed=bool(lines), actions=lines, diff=diff)


if __name__ == "__main__":
    main()
