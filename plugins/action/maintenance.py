"""Close the site for maintenance, open it, or say which it is, in one sentence."""

from __future__ import annotations

import os
import pwd
import re
import socket
from typing import Any

from ansible.plugins.action import ActionBase

REASON = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
STATES = {"on": "on", "off": "off", "": "", "true": "on", "false": "off", "yes": "on", "no": "off"}


def asked(state: object, because: str) -> tuple[str, str]:
    """What is wanted, and the sentence of what is wrong with it. YAML's on is a boolean by the time it gets here."""
    wanted = STATES.get(str(state).strip().lower())
    if wanted is None:
        return "", f"maintenance is {str(state)!r}, and may be on or off. Without it the playbook says which it is."
    if wanted == "on" and not REASON.fullmatch(because):
        return (
            wanted,
            "To close the site, say why, in one line of at most 200 characters: -e because='moving the database'.",
        )
    return wanted, ""


def who() -> str:
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


def told(domain: str, done: dict[str, Any], let_through: list[str]) -> str:
    """The sentence."""
    record, former, changed = done["record"], done["former"], done["changed"]
    if not record:
        if changed:
            return f"{domain} is open again; {former['by']} had closed it at {former['at']}: {former['because']}."
        return f"{domain} is open."
    reason = str(record["because"]).rstrip(".")
    passing = f" Still let through: {', '.join(let_through)}." if let_through else ""
    return f"{domain} is closed for maintenance by {record['by']} since {record['at']}: {reason}.{passing}"


class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = self._task.args
        because = str(arguments.get("because") or "").strip()
        state, wrong = asked(arguments.get("state", ""), because)
        if wrong:
            return {**result, "failed": True, "refused": True, "changed": False, "msg": f"{wrong} Nothing was changed."}
        done: dict[str, Any] = self._execute_module(
            module_name="maintenance",
            module_args={"state": state, "because": because, "by": who(), "path": arguments["path"]},
            task_vars=task_vars or {},
        )
        if not done.get("failed"):
            done["closing"] = told(str(arguments["domain"]), done, list(arguments["let_through"]))
            if done["changed"] and self._task.check_mode:
                done["closing"] = f"In check mode nothing was changed; then: {done['closing']}"
            done["msg"] = done["closing"]
        return {**result, **done}
