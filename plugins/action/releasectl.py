"""Run one verb of releasectl on the host, as the account that is connected: one ssh command, no module, no become."""

from __future__ import annotations

import json
import os
import pwd
import shlex
import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

PROGRAM = ["sudo", "-n", "/usr/local/sbin/releasectl"]
LOOKING = ("status", "history", "preview", "dumps", "resolve")
# Verbs that may be asked again after a cut connection: the same words attach to what still runs, and find what is done.
REPEATABLE = (
    *LOOKING,
    "prepare",
    "migrate",
    "activate",
    "settings",
    "discard",
    "prune",
    "unlock",
    "drain",
    "undrain",
    "maintenance",
)
PATIENCE = 120  # seconds in which a lost host may come back
PAUSE = 3
JOURNAL_LINES = 20


def actor(environment: Any = os.environ) -> str:
    """Say who asked: the person at this machine, or the CI run."""
    if environment.get("GITHUB_ACTOR"):
        return f"{environment['GITHUB_ACTOR']}, run {environment.get('GITHUB_RUN_ID', 'unknown')}"
    try:
        person = environment.get("USER") or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an account without an entry, as in some containers
        person = f"uid {os.getuid()}"
    return f"{person} on {os.uname().nodename}"


def words(verb: str, options: dict[str, Any], who: str) -> list[str]:
    """Build the command; an option that is empty is left out, one that is true stands alone."""
    found = [*PROGRAM, verb]
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            found.append(option)
        elif value is not None and value is not False and value != "":
            # One word, so that a value that begins with a dash stays a value.
            found.append(f"{option}={value}")
    printable = "".join(c if c.isprintable() else "?" for c in who)[:120]
    return [*found, f"--actor={printable}", "--json"]


def understand(verb: str, code: int, out: str, err: str) -> dict[str, Any]:
    """Turn what the command said into a result; whatever happened, `msg` is a sentence."""
    last = next((line for line in reversed(out.splitlines()) if line.startswith("{")), "")
    try:
        answer = json.loads(last)
    except ValueError:
        return {"failed": True, "refused": True, "changed": False, "msg": _silence(verb, code, err), "exit": code}
    result = {name: value for name, value in answer.items() if name not in ("ok", "message", "verb")}
    result.update(changed=bool(answer.get("changed")), msg=str(answer.get("message", "")), exit=code)
    if not answer.get("ok") or code != 0:
        result["failed"] = result["refused"] = True
        if result.get("journal"):
            result["journal"] = [str(line)[:500] for line in result["journal"]][-JOURNAL_LINES:]
    return result


def _silence(verb: str, code: int, err: str) -> str:
    """Explain an answer that is none."""
    if "password is required" in err or "not allowed" in err or "may not run" in err:
        return "This account may not run releasectl: run site.yml for this host (it applies the role deployers)."
    if code == 127 or "command not found" in err:
        return "releasectl is not on this host: run site.yml first (it applies the role release)."
    said = next((line.strip() for line in reversed(err.splitlines()) if line.strip()), "it said nothing")
    return f"releasectl {verb} ended with {code} and no answer: {said[:300]}"


class ActionModule(ActionBase):
    """`releasectl: {verb: …, options: {id: …}}`; `refuse` is a sentence for which it is not even asked.

    With `closing: true` its message is what the run ends with.
    """

    _VALID_ARGS = frozenset(("verb", "options", "refuse", "closing"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        verb = self._task.args.get("verb")
        if not isinstance(verb, str) or not verb:
            raise AnsibleActionFail("releasectl needs a verb, for example 'verb: status'.")
        options = dict(self._task.args.get("options") or {})
        looking = verb in LOOKING or (verb in ("migrate", "rollback") and options.get("plan") is True)
        if self._task.check_mode and not looking:
            return {"skipped": True, "changed": False, "msg": f"releasectl {verb} is not run in check mode."}
        if sentence := str(self._task.args.get("refuse") or ""):
            return {"failed": True, "refused": True, "changed": False, "msg": sentence}
        result = self._patiently(verb, options)
        if verb == "status" and not result.get("failed"):
            result["msg"] = f"{(result.get('live') or {}).get('release') or 'Nothing'} is live."
        if self._task.args.get("closing"):
            result["closing"] = result["msg"]
        return result

    def _patiently(self, verb: str, options: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        cut = False
        while True:
            try:
                if cut and verb == "activate":
                    status = self._ask("status", {})
                    live = status.get("live") or {}
                    # While it is watched the same words attach to that, and bring what comes of it.
                    if live.get("release") == options.get("id") and not status.get("watching"):
                        return {"changed": True, "exit": 0, "msg": f"{options['id']} is live.", **live}
                return self._ask(verb, options)
            except AnsibleConnectionFailure as failure:
                # The first word to a host is not repeated: that host is simply unreachable.
                if verb in ("status", "preview", "dumps", "lock") or (verb not in REPEATABLE and not cut):
                    raise
                if time.monotonic() > deadline:
                    message = (
                        f"The connection was lost while releasectl {verb} ran, and did not come back within"
                        f" {PATIENCE} s. What it was doing goes on there: see 'sudo releasectl status' on the host."
                        f" ({' '.join(str(failure).split())[:200]})"
                    )
                    return {"failed": True, "refused": True, "changed": False, "exit": 255, "msg": message}
                cut = True
                time.sleep(PAUSE)
                self._connection.reset()

    def _ask(self, verb: str, options: dict[str, Any]) -> dict[str, Any]:
        said = self._low_level_execute_command(shlex.join(words(verb, options, actor())), sudoable=False)
        return understand(verb, int(said["rc"]), said["stdout"], said["stderr"])
