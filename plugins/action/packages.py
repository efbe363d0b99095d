"""Asks dpkg whether packages are as they should be, and calls ansible.builtin.apt only where they are not."""

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Install or remove packages, and be quick where there is nothing to do
description:
  - M(ansible.builtin.apt) opens apt's whole cache to find out that nothing is to be done, in every task anew. This asks
    C(dpkg-query) and the file in which apt keeps what it installed by itself, in one command and without a module.
  - Where they say that all is well, nothing else is done. Anything else is M(ansible.builtin.apt)'s, with the same
    arguments, be it a package that is missing or half there, one that C(apt autoremove) could take away (apt marks what
    it is told to install), a name with a version, or an answer that is not understood.
  - So are apt's lists when they are older than the task has them be. Tasks that come later rely on that refresh, also
    where the one that asks for it has all of its packages.
options:
  name:
    description:
      - As M(ansible.builtin.apt) has it. Dpkg is asked of plain names, and with C(state=absent) of C(*) and C(?).
    type: list
    elements: str
    required: true
  state:
    description: As M(ansible.builtin.apt) has it.
    type: str
    choices: [absent, present]
    default: present
  install_recommends:
    description: As M(ansible.builtin.apt) has it.
    type: bool
  policy_rc_d:
    description: As M(ansible.builtin.apt) has it.
    type: int
  update_cache:
    description: As M(ansible.builtin.apt) has it.
    type: bool
    default: false
  cache_valid_time:
    description: As M(ansible.builtin.apt) has it, in seconds.
    type: int
    default: 0
"""

import re
import shlex
from typing import Any

from ansible.plugins.action import ActionBase

# Debian Policy 5.6.7; what apt takes beyond that (versions, releases, architectures, files, tasks) is for apt to read.
NAME = {"present": re.compile(r"[a-z0-9][a-z0-9+.-]+"), "absent": re.compile(r"[a-z0-9][a-z0-9+.*?-]+")}
# dpkg-query ends with 1 where it does not know one of the names. The age is of what ansible.builtin.apt takes it of.
QUESTION = r"""
printf 'native %s\n' "$(dpkg --print-architecture)"
dpkg-query -W -f 'dpkg ${db:Status-Status} ${db:Status-Eflag} ${Package} ${Architecture}\n' "$@" 2>/dev/null
[ $? -le 1 ] || exit
if [ -e extended_states ]; then
  awk -v asked=" $* " '$1 == "Package:" { name = $2 }
    $0 == "Auto-Installed: 1" && index(asked, " " name " ") { print "auto", name }' extended_states || exit
fi
for file in periodic/update-success-stamp lists; do
  if [ -e "$file" ]; then echo "lists $(($(date +%s) - $(stat -c %Y "$file")))"; break; fi
done
"""


def question(names: list[str], state: str = "/var/lib/apt") -> str:
    """What a host is asked, for sh. state: apt's directory."""
    return f"cd {shlex.quote(state)} || exit\nset -- {shlex.join(names)}{QUESTION}"


def all_is_well(said: str, names: list[str], wanted: str, valid: int | None) -> bool:
    """Whether ansible.builtin.apt would change nothing, by a host's answer to the question.

    wanted: present | absent; valid: how old apt's lists may be, in seconds, None for any age.
    """
    found: dict[str, list[list[str]]] = {"native": [], "dpkg": [], "auto": [], "lists": []}
    for line in said.splitlines():
        topic, _, rest = line.partition(" ")
        if topic not in found:
            return False
        found[topic].append(rest.split())
    try:
        [[native]] = found["native"]
        if valid is not None:
            [[age]] = found["lists"]
            if int(age) >= valid:
                return False
    except ValueError:
        return False
    if wanted == "absent":
        return all(words[:1] in (["not-installed"], ["config-files"]) for words in found["dpkg"])
    there = {tuple(words) for words in found["dpkg"]}
    return not found["auto"] and all(
        any(("installed", "ok", name, architecture) in there for architecture in (native, "all")) for name in names
    )


class ActionModule(ActionBase):
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            {
                "name": {"type": "list", "elements": "str", "required": True},
                "state": {"type": "str", "choices": ["absent", "present"], "default": "present"},
                "install_recommends": {"type": "bool"},
                "policy_rc_d": {"type": "int"},
                "update_cache": {"type": "bool", "default": False},
                "cache_valid_time": {"type": "int", "default": 0},
            }
        )
        names, state, seconds = args["name"], args["state"], args["cache_valid_time"]
        if all(NAME[state].fullmatch(name) for name in names):
            said = self._low_level_execute_command(question(names))
            valid = seconds if args["update_cache"] or seconds else None
            if said["rc"] == 0 and all_is_well(said["stdout"], names, state, valid):
                return {**result, "changed": False}
        done: dict[str, Any] = self._execute_module(
            module_name="ansible.builtin.apt", module_args=dict(self._task.args), task_vars=task_vars or {}
        )
        return {**result, **done}
