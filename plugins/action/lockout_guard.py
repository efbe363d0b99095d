"""Arm the guard on the host, prove that people still get in and disarm it, or have it put everything back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lockout_guard
short_description: Change what lets people in, with a way back
description:
  - A change to sshd, the firewall, accounts, keys, sudo or PAM may cut off whoever makes it. So before it the host is
    told to put everything back by itself after some seconds, or at its next boot; only a new login, over a connection
    of its own, tells it not to. The role C(guard) installs what does this on the host.
  - Used in a block, see the example. In check mode it does nothing; it never counts as a change.
options:
  state:
    description:
      - C(armed) before the changes, C(proven) after them, C(fired) in the rescue. C(fired) always fails, with a
        sentence that says what happened.
    type: str
    choices: [armed, proven, fired]
    required: true
  because:
    description: What is changed, for C(armed); it appears in messages, and in the host's journal.
    type: str
  seconds:
    description: How long the change may stay unproven; C(guard_seconds) unless given.
    type: int
  user:
    description: Who logs in to prove it; the connecting user unless given.
    type: str
  private_key_file:
    description: With which key; that of the connection unless given, and ssh's own choice when empty.
    type: path
  sudo:
    description: Whether the login must also have sudo without a password.
    type: bool
    default: true
  failed_task:
    description: For C(fired), the name of what failed.
    type: str
  failed_result:
    description: For C(fired), its result.
    type: dict
  hint:
    description: For C(fired), what the reader may do about it, a sentence.
    type: str
"""

EXAMPLES = r"""
- name: Change how sshd lets people in, with a way back
  block:
    - name: Arm the guard
      lockout_guard: {state: armed, because: sshd gets another configuration}
    - name: Configure sshd
      install_files:
        files:
          - {template: sshd.conf.j2, dest: /etc/ssh/sshd_config.d/30-slipway.conf}
    - name: Prove a new login, then disarm the guard
      lockout_guard: {state: proven}
  rescue:
    - name: Put it back and say what happened
      lockout_guard:
        state: fired
        failed_task: "{{ ansible_failed_task.name }}"
        failed_result: "{{ ansible_failed_result }}"
"""

import json
import os
import pwd
import re
import shlex
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase

PROGRAM = "/usr/local/libexec/slipway/guard"
DEFAULT_SECONDS = 60
# After the host's own timer is due it restarts what it must; then it is waited for no longer.
GRACE = 45


class Missing(AnsibleActionFail):
    """The guard is not on the host, so nothing was armed."""


def token(host: str, process: int | None = None) -> str:
    """Names this run on this host: the same for each task of the run, another one for each run."""
    # Tasks run in children of the process that runs the playbook, whose number and start together are its own.
    parent = process or os.getppid()
    fields = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()
    return re.sub(r"[^a-z0-9]+", "-", f"{host}-{parent}-{fields[19]}".lower()).strip("-")


def person() -> str:
    try:
        name = os.environ.get("GITHUB_ACTOR") or os.environ.get("USER") or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid {os.getuid()}"
    return f"{name} on {os.uname().nodename}"


def cause(failed_task: str, result: dict[str, Any]) -> str:
    """One sentence: which task failed, and why."""
    said = str(result.get("msg") or result.get("stderr") or "no reason was given")
    text = f"{failed_task}: {' '.join(said.split())}"
    return text if text.endswith((".", "!", "?")) else f"{text}."


def told(host: str, answer: dict[str, Any] | None, mine: str, user: str, hint: str) -> str:
    """What became of the host, as sentences."""
    if answer is None:
        return f"{host} cannot be asked what became of it: look at `journalctl -t guard` there."
    last = answer.get("last") or {}
    # Of an earlier run, or of an earlier block of this one: this one was never armed.
    if last.get("token") != mine or last["outcome"] != "fired":
        return f"{host} was left as it was."
    count = len(last["paths"])
    what = f"{count} path{'' if count == 1 else 's'}" if count else "no file, for none was changed"
    how = {"timer": "by its own timer", "boot": "at its reboot", "asked": "at once"}[last["why"]]
    sentences = f"{host} was put back as it was, {how} ({what}), and {user} may log in as before."
    return f"{sentences} {hint}".strip()


class ActionModule(ActionBase):
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            {
                "state": {"type": "str", "choices": ["armed", "proven", "fired"], "required": True},
                "because": {"type": "str"},
                "seconds": {"type": "int"},
                "user": {"type": "str"},
                "private_key_file": {"type": "path"},
                "sudo": {"type": "bool", "default": True},
                "failed_task": {"type": "str", "default": "A task failed"},
                "failed_result": {"type": "dict", "default": {}},
                "hint": {"type": "str", "default": ""},
            },
            required_if=[("state", "armed", ("because",))],
        )
        result["changed"] = False
        variables = task_vars or {}
        self._host = str(variables["inventory_hostname"])
        self._token = token(self._host)
        if self._task.check_mode:
            if args["state"] == "fired":
                result.update(failed=True, msg=cause(args["failed_task"], args["failed_result"]))
            return result
        return {**result, **getattr(self, args["state"])(args, variables)}

    def armed(self, args: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        seconds = self._seconds(args, variables)
        answer = self._guard(
            "arm",
            "--token",
            self._token,
            "--seconds",
            str(seconds),
            "--because",
            args["because"],
            "--by",
            person(),
        )
        if not answer.get("ok"):
            return {"failed": True, "msg": answer["message"]}
        return {"guard": "armed", "because": args["because"], "seconds": seconds}

    def proven(self, args: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        login = self._login(args, variables)
        if not login.get("accepted"):
            return {
                "failed": True,
                "msg": f"a new login to {self._host} as {login['user']} was not accepted: {login['outcome']}"
                + (f" ({login['said']})" if login["said"] else ""),
            }
        answer = self._guard("disarm", "--token", self._token)
        if not answer.get("ok"):
            return {"failed": True, "msg": f"the proof came too late. {answer['message']}"}
        return {"guard": "disarmed", "said": f"{login['user']} logged in anew"}

    def fired(self, args: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        reason = cause(args["failed_task"], args["failed_result"])
        answer = self._fire()
        deadline = time.monotonic() + self._seconds(args, variables) + GRACE
        login = self._login(args, variables)
        while not login.get("accepted") and time.monotonic() < deadline:
            time.sleep(2)
            login = self._login(args, variables)
        if not login.get("accepted"):
            return {
                "failed": True,
                "msg": f"{reason} {self._host} does not let {login['user']} in: {login['outcome']} ({login['said']}). "
                "Use the provider's console, and look at `journalctl -t guard` there.",
            }
        if answer is None:
            # Not over what is left of the old connection. Where the timer was first, this only asks what it did.
            self._connection.reset()
            answer = self._fire()
        return {"failed": True, "msg": f"{reason} {told(self._host, answer, self._token, login['user'], args['hint'])}"}

    def _seconds(self, args: dict[str, Any], variables: dict[str, Any]) -> int:
        """How long a change may stay unproven, and so how long the host may take to put it back by itself."""
        return int(args["seconds"] or self._templar.template(variables.get("guard_seconds")) or DEFAULT_SECONDS)

    def _fire(self) -> dict[str, Any] | None:
        """Put everything back at once. Nothing when the connection or sudo went with the change: the host does it."""
        try:
            return self._guard("fire", "--token", self._token)
        except Missing:
            return {"last": None}
        except AnsibleError:
            return None

    def _guard(self, *words: str) -> dict[str, Any]:
        """One verb on the host, as root over the task's connection."""
        done = self._low_level_execute_command(shlex.join([PROGRAM, *words]), sudoable=True)
        for line in reversed(done["stdout"].splitlines()):
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        said = " ".join((done["stdout"] + done["stderr"]).split())
        if done["rc"] in (126, 127):
            raise Missing(
                f"The guard is not on {self._host}, and without it nothing is changed that could lock you out: "
                f"run site.yml with --tags guard first. ({said})"
            )
        raise AnsibleActionFail(f"The guard on {self._host} gave no answer: {said or 'it said nothing'}")

    def _login(self, args: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """A new login, by the means that this connection was made by."""
        user = args["user"] or self._connection.get_option("remote_user") or self._play_context.remote_user
        key = args["private_key_file"]
        if key is None:
            key = self._connection.get_option("private_key_file")
        task = self._task.copy()
        task.args = {"user": user, "private_key_file": key or None, "sudo": args["sudo"], "expect": "either"}
        action = self._shared_loader_obj.action_loader.get(
            "ssh_login",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        found: dict[str, Any] = action.run(task_vars=variables)
        return {"outcome": "failed", "said": found.get("msg", ""), **found, "user": user}
