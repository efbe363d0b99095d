"""Accounts that a test makes, let in by a key: where sshd looks for it depends on which roles the host has."""

from __future__ import annotations

from typing import Any

# The role deployers keeps keys here, as root's; where it was not applied sshd looks in the home.
PLACE = "/etc/slipway/authorized_keys"


def give_key(host: Any, name: str, key: str) -> None:
    host.check_output(f"echo '{key}' >~{name}/.ssh/authorized_keys && chown -R {name} ~{name}/.ssh")
    host.check_output(f"if [ -d {PLACE} ]; then install -m 0644 ~{name}/.ssh/authorized_keys {PLACE}/{name}; fi")


def take_key(host: Any, name: str) -> None:
    host.check_output(f"rm -f {PLACE}/{name}")
