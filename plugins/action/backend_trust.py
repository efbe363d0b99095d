"""Which certificates an edge has to trust: what the app's hosts told in this run, or what it knew."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backend_trust
short_description: Put together what an edge trusts of the app's hosts
description:
  - Takes what C(backend_certificate) told of each host in this run. Of a host that is not in it (down, or left out by
    C(--limit)) the file on the edge is believed; where that does not name it either, one sentence refuses it.
options:
  path:
    description: The file on the edge.
    type: path
    required: true
  hosts:
    description: The app's hosts.
    type: list
    elements: str
    required: true
"""

import base64
import re
from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase

TITLE = re.compile(r"^# (\S+)$", re.MULTILINE)
PEM = re.compile(r"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n?")


def parse(text: str) -> dict[str, list[str]]:
    """{host: its certificates} of a file that `write` made."""
    parts = TITLE.split(text)[1:]
    return {name: PEM.findall(body) for name, body in zip(parts[::2], parts[1::2], strict=True)}


def write(known: Mapping[str, list[str]]) -> str:
    return "".join(f"# {name}\n" + "".join(pem.strip() + "\n" for pem in known[name]) for name in sorted(known))


def settle(hosts: list[str], told: Mapping[str, list[str]], before: str) -> tuple[dict[str, list[str]], list[str]]:
    """(what to trust, the hosts of which nothing is known)."""
    kept = parse(before)
    known = {host: told.get(host) or kept.get(host) or [] for host in hosts}
    return {host: pems for host, pems in known.items() if pems}, [host for host, pems in known.items() if not pems]


class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        hosts = [str(host) for host in self._task.args["hosts"]]
        told = {}
        for host in hosts:
            shown = variables["hostvars"][host].get("__nginx_backend_shown") or {}
            told[host] = [str(pem) for pem in shown.get("certificates") or []]
        read = self._execute_module(
            module_name="ansible.legacy.slurp",
            module_args={"src": self._task.args["path"]},
            task_vars=variables,
        )
        before = base64.b64decode(read["content"]).decode() if "content" in read else ""
        known, missing = settle(hosts, told, before)
        if missing and not self._task.check_mode:
            mine = variables["inventory_hostname"]
            names = ", ".join(missing)
            result["failed"] = True
            result["msg"] = (
                f"{mine} does not know the certificate of {names} yet, and could send nobody there: run site.yml"
                f" without --limit, or with --limit {','.join([mine, *missing])}. The edge was not changed."
            )
            return result
        result.update(changed=False, content=write(known))
        return result
