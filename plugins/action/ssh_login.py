"""Try a new ssh login from the controller, and say what came of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_login
short_description: Try a new ssh login from the controller
description:
  - Opens a connection of its own, never one that is open already, to the host of the task, by the address, port and ssh
    arguments that the inventory gives, and says whether the host let the user in. It changes nothing.
options:
  user:
    description: Who logs in.
    type: str
    required: true
  private_key_file:
    description: The key; empty leaves the choice to ssh's own configuration and agent.
    type: path
  sudo:
    description: The login must also have sudo without a password.
    type: bool
    default: false
  expect:
    description: Fail unless the login is C(accepted), or C(refused); with C(either) only report.
    type: str
    choices: [accepted, refused, either]
    default: accepted
"""

import re
import shlex
import subprocess
import time
from collections.abc import Callable
from typing import Any

from ansible.plugins.action import ActionBase

# sshd does not listen for a moment while it reloads: that is no answer to the question, and is asked again.
RELOADING = re.compile(r"Connection (refused|reset|closed)")
PATIENCE = 10
# What a host's variables say of the way to it.
CONNECTION = ("ansible_host", "ansible_port", "ansible_ssh_common_args", "ansible_ssh_extra_args")


def connection(variables: dict[str, Any], template: Callable[[Any], Any]) -> dict[str, Any]:
    """Those of a task's variables that `command` reads, worked out."""
    found = {name: template(variables[name]) for name in CONNECTION if name in variables}
    return {**found, "inventory_hostname": variables["inventory_hostname"]}


def command(user: str, key: str | None, sudo: bool, hostvars: dict[str, Any]) -> list[str]:
    """The ssh command for one fresh login to a host with these variables."""
    argv = ["ssh", "-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"]
    if key:
        # Not another key that an agent happens to hold: the proof is about this one.
        argv += ["-o", "IdentitiesOnly=yes", "-i", key]
    if hostvars.get("ansible_port"):
        argv += ["-p", str(hostvars["ansible_port"])]
    for name in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
        argv += shlex.split(str(hostvars.get(name) or ""))
    address = str(hostvars.get("ansible_host") or hostvars["inventory_hostname"])
    return [*argv, "-l", user, "--", address, "sudo -n true" if sudo else "true"]


def outcome(code: int, stderr: str, sudo: bool) -> tuple[str, str]:
    """(accepted | refused | no sudo | unreachable, the telling line of what ssh said)."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = lines[-1] if lines else f"exit code {code}"
    if code == 0:
        return "accepted", ""
    if code != 255:
        return ("no sudo" if sudo else "refused"), said
    if any("Permission denied" in line or "Too many authentication failures" in line for line in lines):
        return "refused", said
    return "unreachable", said


def attempt(argv: list[str], sudo: bool) -> tuple[str, str]:
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return "unreachable", "no answer within 60 s"
    return outcome(done.returncode, done.stderr, sudo)


def persist(ask: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    """Ask again for as long as sshd reloads; give (outcome, what ssh said)."""
    state, said = ask()
    deadline = time.monotonic() + PATIENCE
    while state == "unreachable" and RELOADING.search(said) and time.monotonic() < deadline:
        time.sleep(0.5)
        state, said = ask()
    return state, said


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            {
                "user": {"type": "str", "required": True},
                "private_key_file": {"type": "path"},
                "sudo": {"type": "bool", "default": False},
                "expect": {"type": "str", "choices": ["accepted", "refused", "either"], "default": "accepted"},
            }
        )
        hostvars = connection(task_vars or {}, self._templar.template)
        argv = command(args["user"], args["private_key_file"], args["sudo"], hostvars)
        state, said = persist(lambda: attempt(argv, args["sudo"]))
        result.update(changed=False, outcome=state, accepted=state == "accepted", said=said)
        if args["expect"] != "either" and state != args["expect"]:
            what = "with sudo" if args["sudo"] else "over ssh"
            result.update(
                failed=True,
                msg=f"A new login {what} as {args['user']} was to be {args['expect']}, and it was: {state}"
                + (f" ({said})." if said else "."),
            )
        return result
