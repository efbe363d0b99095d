"""Offer a public key to a host, and say whether sshd would take it. Needs no private key, and gets nowhere."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_offer
short_description: Ask a running sshd whether it would take a key
description:
  - A client that logs in first asks whether a public key is worth a signature (RFC 4252, 7). This asks just that, over
    a connection of its own, for people whose private key we do not have. The answer is what the file of keys, sshd's
    options and the key's end date come to; the account's own end date is PAM's, which comes after.
options:
  user:
    description: Who would log in.
    type: str
    required: true
  public_keys:
    description: The keys, one line each.
    type: list
    elements: str
    required: true
  expect:
    description: Fail unless each key is C(accepted), or C(refused).
    type: str
    choices: [accepted, refused]
    required: true
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from plugins.access.entries import fingerprint
from plugins.action.ssh_login import command, connection, outcome, persist


def verdict(code: int, stderr: str, key: str) -> tuple[str, str]:
    """(accepted | refused | unreachable, the telling line)."""
    mark = fingerprint(key)
    taken = next((line for line in stderr.splitlines() if "Server accepts key" in line and mark in line), None)
    if taken:
        return "accepted", taken.strip()
    plain = "\n".join(line for line in stderr.splitlines() if not line.startswith(("debug", "Load key", "OpenSSH_")))
    state, said = outcome(code, plain, sudo=False)
    return ("refused" if state == "refused" else "unreachable"), said


def offer(user: str, key: str, hostvars: dict[str, Any]) -> tuple[str, str]:
    with tempfile.TemporaryDirectory(prefix="slipway-offer-") as scratch:
        path = Path(scratch) / "key.pub"
        path.write_text(key.strip() + "\n")
        argv = command(user, str(path), False, hostvars)
        # Of repeated options ssh takes the first, so that a configuration that is quiet does not silence this.
        for option in ("LogLevel=DEBUG1", "PreferredAuthentications=publickey", "IdentityAgent=none"):
            argv[1:1] = ["-o", option]

        def ask() -> tuple[str, str]:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
            )
            return verdict(done.returncode, done.stderr, key)

        return persist(ask)


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            {
                "user": {"type": "str", "required": True},
                "public_keys": {"type": "list", "elements": "str", "required": True, "no_log": False},
                "expect": {"type": "str", "choices": ["accepted", "refused"], "required": True},
            }
        )
        hostvars = connection(task_vars or {}, self._templar.template)
        answers = {}
        for key in args["public_keys"]:
            state, said = offer(args["user"], key, hostvars)
            answers[fingerprint(key)] = state
            if state != args["expect"] and not result.get("failed"):
                wanted = f"The key {fingerprint(key)} was to be {args['expect']} for {args['user']}"
                result.update(failed=True, msg=f"{wanted}, and it is {state}: {said}")
        result.update(changed=False, answers=answers)
        return result
