"""Hold the inventory's groups against what an app needs, before any host is asked."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_hosts
short_description: Check that the groups make a whole, and that their hosts can reach each other as they shall
description:
  - Runs on the controller and connects to nothing. Each problem is one sentence.
options:
  backends:
    description: The app's hosts that edges reach over the network.
    type: list
    elements: str
  transport:
    description: How they speak, C(tls) or C(private).
    type: str
  port:
    description: At which port.
    type: int
  private_networks:
    description: Networks in which plain HTTP is allowed. Without it that is not looked at.
    type: list
    elements: str
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from ansible.plugins.action import ActionBase

# What an edge or sshd has already.
TAKEN = (22, 80, 443)


def group_problems(groups: Mapping[str, list[str]]) -> Iterable[str]:
    def of(name: str) -> list[str]:
        return [str(host) for host in groups.get(name) or []]

    schedulers = of("scheduler")
    if len(schedulers) > 1:
        yield (
            f"The group scheduler has {len(schedulers)} hosts, {', '.join(schedulers)}, and each of them would send"
            " every due task: leave one of them in it"
        )
    if of("worker") and not schedulers:
        yield "The group worker has hosts and the group scheduler has none: put one host into it"
    if schedulers and not of("worker"):
        yield f"{schedulers[0]} schedules tasks, and the group worker has no host that would do them: put one into it"
    for one, other in (("edge", "app"), ("app", "edge")):
        if of(one) and not of(other):
            yield f"The group {one} has hosts and the group {other} has none, so nobody is served: put one into it"


def address_problems(addresses: Mapping[str, list[str]], transport: str, private: list[str] | None) -> Iterable[str]:
    """What is wrong with how the edges and the app's hosts reach each other."""
    networks = [ipaddress.ip_network(network) for network in private or []]
    for host, mine in addresses.items():
        if not mine:
            yield f"app_addresses of {host} is empty: give it the addresses at which the other hosts reach it"
        for text in mine:
            try:
                address = ipaddress.ip_address(text)
            except ValueError:
                yield (
                    f"app_addresses of {host} has {text!r}, which is no address: the edges and the app's hosts need"
                    " theirs (ansible_host, or app_addresses in host_vars)"
                )
                continue
            if transport == "private" and private is not None and not any(address in network for network in networks):
                yield (
                    f"app_backend_transport is private, and {text} of {host} is in none of firewall_private_networks"
                    f" ({', '.join(private) or 'empty'}): plain HTTP would leave the private network; take tls"
                )


def problems(
    groups: Mapping[str, list[str]],
    addresses: Mapping[str, list[str]],
    transport: str,
    port: int,
    private: list[str] | None,
) -> list[str]:
    found = list(group_problems(groups))
    if transport not in ("tls", "private"):
        found.append(f"app_backend_transport is {transport!r}: there are tls and private")
    if not 1 <= port <= 65535 or port in TAKEN:
        found.append(f"app_backend_port is {port}: take a port that nothing else has ({', '.join(map(str, TAKEN))})")
    return found + list(address_problems(addresses, transport, private))


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        result["changed"] = False
        variables = task_vars or {}
        arguments = self._task.args
        groups, hostvars = variables["groups"], variables["hostvars"]
        backends = [str(host) for host in arguments.get("backends") or []]
        between = dict.fromkeys([*(groups.get("edge") or []), *backends]) if backends else {}
        addresses = {str(host): [str(one) for one in hostvars[host]["app_addresses"]] for host in between}
        private = arguments.get("private_networks")
        found = problems(
            groups,
            addresses,
            str(arguments.get("transport") or "tls"),
            int(arguments.get("port") or 8443),
            None if private is None else [str(network) for network in private],
        )
        if found:
            result["failed"] = result["refused"] = True
            result["msg"] = "\n".join(
                [*(f"{problem}." for problem in found), "Nothing was changed. Correct this and run the playbook again."]
            )
        return result
