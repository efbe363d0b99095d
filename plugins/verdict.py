"""What the verdicts on a run over several hosts share: reading what each host registered, and ending the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def registered(variables: Mapping[str, Any], prefix: str, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Of each host of the play, failed ones included, what it registered as ``<prefix><name>``, or None."""
    names = tuple(names)
    known = variables["hostvars"]
    return {
        str(host): {name: known[host].get(f"{prefix}{name}") for name in names}
        for host in variables["ansible_play_hosts_all"]
    }


def left_out(variables: Mapping[str, Any], groups: Iterable[str], hosts: Mapping[str, Any]) -> list[str]:
    """The hosts of these groups that the play did not have (--limit), each once."""
    members = variables.get("groups") or {}
    everybody = dict.fromkeys(str(name) for group in groups for name in members.get(group) or [])
    return [name for name in everybody if name not in hosts]


def ended(end: Mapping[str, Any]) -> dict[str, Any]:
    """The task's result, well or badly: what callbacks print last."""
    bad = bool(end["troubled"])
    return {
        "changed": False,
        "failed": bad,
        "refused": bad,
        "msg": end["closing"],
        "closing": end["closing"],
        "journal": end["journal"],
    }
