#!/usr/bin/python
# Copyright: Slipway maintainers
# MIT License (see LICENSE)
"""Have the firewall that runs be the one that UFW's files say."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: running_firewall
short_description: Have the firewall that runs be the one that UFW's files say
description:
  - Loads UFW's files in an empty network namespace, as the next boot will, and compares what came of it with what the
    kernel has, chain by chain, for IPv4 and IPv6. Whatever differs, whoever did that, is put right in one step for each
    family; connections that stand are not cut.
  - Chains of others stay. A rule of others that accepts packets past UFW is taken out, unless its chain is one of
    I(foreign_chains); one that only drops or rejects stays, and is reported.
version_added: "0.2.0"
options:
  foreign_chains:
    description: Chains of others that may accept, as shell patterns.
    type: list
    elements: str
    default: []
  sets_program:
    description: The program that makes the sets which rules name, called with C(create).
    type: path
  sets_prefix:
    description: Sets whose names begin so are ours; those that no rule names any more are removed.
    type: str
  resolver:
    description: The service that fills them; it is reloaded when a set had to be made, so that it forgets old answers.
    type: str
notes:
  - Supports C(check_mode) and C(--diff).
author:
  - Slipway maintainers
"""

EXAMPLES = r"""
- name: Have the firewall run as its files say
  running_firewall:
    foreign_chains: ["DOCKER*", "f2b-*"]
"""

RETURN = r"""
actions:
  description: What was (in check mode, would be) put right, one line each.
  type: list
  elements: str
  returned: always
strangers:
  description: Rules of others beside UFW's that accept nothing, and were left.
  type: list
  elements: str
  returned: always
"""

import fnmatch
import os
import re
import shlex
import time
from collections.abc import Iterable

from ansible.module_utils.basic import AnsibleModule

BUILTIN = ("INPUT", "FORWARD", "OUTPUT")
UFW_INIT = "/lib/ufw/ufw-init"
MARK = "=== slipway ==="
# As the next boot does it, with nothing there yet. What UFW says goes to the side.
REFERENCE = f"""
{UFW_INIT} start >&2 || exit 1
iptables-save -t filter
echo '{MARK}'
if [ -e /proc/net/if_inet6 ]; then ip6tables-save -t filter; fi
echo '{MARK}'
if command -v ipset >/dev/null; then ipset list -n; fi
"""


class Table:
    """The filter table of one family, as iptables-save prints it."""

    def __init__(self, text: str) -> None:
        self.policies: dict[str, str] = {}
        self.chains: dict[str, list[str]] = {}
        for line in text.splitlines():
            if line.startswith(":"):
                name, policy = line[1:].split()[:2]
                self.chains[name] = []
                if name in BUILTIN:
                    self.policies[name] = policy
            elif line.startswith("-A "):
                self.chains.setdefault(line.split()[1], []).append(line)

    def own(self) -> list[str]:
        return [name for name in self.chains if name not in BUILTIN]


def target(rule: str) -> str:
    """What a rule does with a packet: a verdict, or the name of a chain."""
    words = shlex.split(rule)
    for option in ("-j", "-g"):
        if option in words:
            return words[words.index(option) + 1]
    return ""


def accepts(rule: str, table: Table, tolerated: Iterable[str], seen: frozenset[str] = frozenset()) -> bool:
    """Whether a packet can be accepted by this rule, or by a chain that it leads to."""
    to = target(rule)
    if to == "ACCEPT":
        return True
    if to in seen or to not in table.chains or any(fnmatch.fnmatchcase(to, pattern) for pattern in tolerated):
        return False
    return any(accepts(other, table, tolerated, seen | {to}) for other in table.chains[to])


def dockers(rule: str, table: Table) -> bool:
    """Whether Docker put this rule beside its chains: for the bridges that it made, on the way through."""
    words = rule.split()
    return (
        words[1] == "FORWARD"
        and "DOCKER" in table.chains
        and any(re.fullmatch(r"docker0|br-[0-9a-f]{12}|br-\w+", word) for word in words)
    )


def same(wanted: list[str], live: list[str], chain: str) -> bool:
    # Docker ends its own chain with a return; after our last rule it is never reached.
    if chain == "DOCKER-USER" and live[-1:] == ["-A DOCKER-USER -j RETURN"]:
        live = live[:-1]
    return wanted == live


class Plan:
    """What has to be done to one family's table; a pure function of what was seen."""

    def __init__(self, wanted: Table, live: Table, tolerated: list[str]) -> None:
        self.actions: list[str] = []
        self.strangers: list[str] = []
        self.commands: list[str] = []
        removed: list[str] = []
        added: list[str] = []
        for chain in BUILTIN:
            if live.policies.get(chain) != wanted.policies[chain]:
                self.actions.append(f"{chain}: policy {live.policies.get(chain)} becomes {wanted.policies[chain]}")
            ours = [rule for rule in live.chains.get(chain, []) if rule in wanted.chains[chain]]
            if ours != wanted.chains[chain]:
                self.actions.append(f"{chain}: the way into UFW's chains is not as UFW made it")
                removed += ours
                added += wanted.chains[chain]
            for rule in live.chains.get(chain, []):
                if rule in wanted.chains[chain]:
                    continue
                if dockers(rule, live):
                    continue
                if accepts(rule, live, tolerated):
                    self.actions.append(f"{chain}: takes out a rule of others that accepts: {rule}")
                    removed.append(rule)
                elif not any(fnmatch.fnmatchcase(target(rule), pattern) for pattern in tolerated):
                    self.strangers.append(rule)
        own = wanted.own()
        for chain in own:
            if chain not in live.chains:
                self.actions.append(f"{chain}: is not there")
            elif not same(wanted.chains[chain], live.chains[chain], chain):
                extra = [rule for rule in live.chains[chain] if rule not in wanted.chains[chain]]
                missing = [rule for rule in wanted.chains[chain] if rule not in live.chains[chain]]
                self.actions += [f"{chain}: takes out: {rule}" for rule in extra]
                self.actions += [f"{chain}: puts in: {rule}" for rule in missing]
                if not extra and not missing:
                    self.actions.append(f"{chain}: the order of its rules is another")
        if not self.actions:
            return
        if not any(chain in live.chains for chain in own if chain != "DOCKER-USER"):
            others = [action for action in self.actions if ": takes out a rule of others" in action]
            self.actions = ["UFW's rules are not loaded: loads them", *others]
        self.commands = ["*filter"]
        self.commands += [f":{chain} {wanted.policies[chain]} [0:0]" for chain in BUILTIN]
        # To name a chain so makes it, or empties it.
        self.commands += [f":{chain} - [0:0]" for chain in own]
        self.commands += ["-D" + rule[2:] for rule in removed]
        self.commands += added
        self.commands += [rule for chain in own for rule in wanted.chains[chain]]
        self.commands += ["COMMIT", ""]


class Firewall:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.tolerated = module.params["foreign_chains"]
        self.actions: list[str] = []
        self.strangers: list[str] = []

    def run(self, *command: str, data: str | None = None) -> str:
        """Run a program that must succeed."""
        code, out, err = self.module.run_command(list(command), data=data, environ_update={"LC_ALL": "C"})
        if code != 0:
            self.module.fail_json(msg=f"{' '.join(command[:3])} failed: {(err or out).strip()}", actions=self.actions)
        return str(out)

    def reference(self) -> tuple[list[Table], set[str]] | None:
        code, out, err = self.module.run_command(["unshare", "--net", "sh", "-c", REFERENCE])
        parts = out.split(MARK + "\n")
        if code != 0 or len(parts) != 3 or "ufw-user-input" not in parts[0]:
            # In check mode UFW's files may be those of its package still, with which it loads nothing.
            if self.module.check_mode:
                return None
            said = (err or out).strip()[-800:]
            self.module.fail_json(msg=f"UFW cannot load its own files; what runs was left as it is. It says: {said}")
        tables = [Table(text) for text in parts[:2] if text.strip()]
        return tables, set(parts[2].split())

    def live(self, families: int) -> list[Table]:
        return [Table(self.run(program, "-t", "filter")) for program in ("iptables-save", "ip6tables-save")[:families]]

    def live_sets(self) -> set[str]:
        if not self.module.get_bin_path("ipset"):
            return set()
        return set(self.run("ipset", "list", "-n").split())

    def settle(self) -> None:
        if not os.path.exists(UFW_INIT):
            if not self.module.check_mode:
                self.module.fail_json(msg="UFW is not installed on this host.")
            self.actions.append("UFW is not there yet; its rules would be loaded")
            return
        reference = self.reference()
        if reference is None:
            self.actions.append("UFW's files are not there yet; its rules would be loaded")
            return
        wanted, wanted_sets = reference
        missing = wanted_sets - self.live_sets()
        self.actions += [f"makes the set {name}" for name in sorted(missing)]
        plans = [Plan(*pair, self.tolerated) for pair in zip(wanted, self.live(len(wanted)))]  # noqa: B905
        for plan in plans:
            self.actions += plan.actions
            self.strangers += plan.strangers
        prefix = self.module.params["sets_prefix"]
        stale = {name for name in self.live_sets() - wanted_sets if prefix and name.startswith(prefix)}
        self.actions += [f"removes the set {name}" for name in sorted(stale)]
        starts = [self.module.run_command(["systemctl", verb, "--quiet", "ufw"])[0] == 0
                  for verb in ("is-enabled", "is-active")]  # fmt: skip
        if not all(starts):
            self.actions.append("has UFW start at boot")
        if self.module.check_mode:
            return
        if missing and self.module.params["sets_program"]:
            self.run(self.module.params["sets_program"], "create")
        for program, plan in zip(("iptables-restore", "ip6tables-restore"), plans):  # noqa: B905
            if plan.commands:
                self.run(program, "--noflush", data="\n".join(plan.commands))
        self.prove(wanted)
        self.drop(stale)
        if not all(starts):
            # It finds its rules loaded, and leaves them.
            self.run("systemctl", "enable", "--now", "--quiet", "ufw")
        if missing and self.module.params["resolver"]:
            self.run("systemctl", "reload", self.module.params["resolver"])

    def prove(self, wanted: list[Table]) -> None:
        left = [
            action
            for pair in zip(wanted, self.live(len(wanted)))  # noqa: B905
            for action in Plan(*pair, self.tolerated).actions
        ]
        if left:
            self.module.fail_json(
                msg="The rules were loaded and still differ: " + "; ".join(left), actions=self.actions
            )

    def drop(self, stale: set[str]) -> None:
        for name in sorted(stale):
            # The kernel lets go of a set some moments after the rule that named it.
            for _ in range(20):
                if self.module.run_command(["ipset", "destroy", name])[0] == 0:
                    break
                time.sleep(0.1)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "foreign_chains": {"type": "list", "elements": "str", "default": []},
            "sets_program": {"type": "path"},
            "sets_prefix": {"type": "str"},
            "resolver": {"type": "str"},
        },
        supports_check_mode=True,
    )
    firewall = Firewall(module)
    firewall.settle()
    diff = {"before": "", "after": "".join(line + "\n" for line in firewall.actions)}
    module.exit_json(changed=bool(firewall.actions), actions=firewall.actions, strangers=firewall.strangers, diff=diff)


if __name__ == "__main__":
    main()
