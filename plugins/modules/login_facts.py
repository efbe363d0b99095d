#!/usr/bin/python
# Copyright: Slipway maintainers
# MIT License (see LICENSE)
"""Who this run logged in as, and what sshd of this host could offer: read before anything about logins is changed."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: login_facts
short_description: Learn who this run logged in as, and which host keys sshd has
description:
  - Says which account the run came in by (before C(sudo)), which groups it is in, and how long each of the host's ssh
    keys is. It changes nothing.
version_added: "0.2.0"
options:
  host_keys:
    description: Paths of private host keys; of those whose public half is there, the length is told.
    type: list
    elements: path
    default: []
notes:
  - Supports C(check_mode).
author:
  - Slipway maintainers
"""

EXAMPLES = r"""
- name: Learn who this run logged in as
  login_facts:
    host_keys: [/etc/ssh/ssh_host_ed25519_key, /etc/ssh/ssh_host_rsa_key]
  register: came_in
"""

RETURN = r"""
user:
  description: The account that the run logged in as.
  type: str
  returned: always
groups:
  description: The names of all groups of that account.
  type: list
  elements: str
  returned: always
host_keys:
  description: The keys that are there, as C({path, type, bits}).
  type: list
  elements: dict
  returned: always
"""

import base64
import binascii
import grp
import os
import pwd
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def read_string(blob: bytes, offset: int) -> tuple[bytes, int]:
    """One string of the ssh wire format (RFC 4251, 5), and where the next one begins."""
    length = int.from_bytes(blob[offset : offset + 4], "big")
    end = offset + 4 + length
    if length > len(blob) or end > len(blob):
        raise ValueError("the key is cut off")
    return blob[offset + 4 : end], end


def describe_key(line: str) -> tuple[str, int]:
    """(type, bits) of a public key's line."""
    fields = line.split()
    if len(fields) < 2:
        raise ValueError("no public key")
    blob = base64.b64decode(fields[1], validate=True)
    kind, offset = read_string(blob, 0)
    if kind == b"ssh-rsa":
        _, offset = read_string(blob, offset)  # the exponent
        modulus, _ = read_string(blob, offset)
        return "ssh-rsa", int.from_bytes(modulus, "big").bit_length()
    if kind == b"ssh-ed25519":
        return "ssh-ed25519", 256
    return kind.decode("ascii", "replace"), 0


def host_keys(paths: list[str]) -> list[dict[str, Any]]:
    found = []
    for path in paths:
        try:
            with open(path + ".pub") as stream:
                kind, bits = describe_key(stream.read())
        except (OSError, ValueError, binascii.Error):
            continue
        if os.path.exists(path):
            found.append({"path": path, "type": kind, "bits": bits})
    return found


def account(environment: dict[str, str], uid: int) -> str:
    """Who logged in: sudo says so, and without sudo it is who runs this."""
    return environment.get("SUDO_USER") or pwd.getpwuid(uid).pw_name


def groups_of(user: str) -> list[str]:
    names = []
    for gid in os.getgrouplist(user, pwd.getpwnam(user).pw_gid):
        try:
            names.append(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    return sorted(names)


def main() -> None:
    module = AnsibleModule(
        argument_spec={"host_keys": {"type": "list", "elements": "path", "default": []}}, supports_check_mode=True
    )
    user = account(dict(os.environ), os.getuid())
    try:
        groups = groups_of(user)
    except KeyError:
        module.fail_json(msg=f"This run logged in as {user}, whom this host does not know.")
    module.exit_json(changed=False, user=user, groups=groups, host_keys=host_keys(module.params["host_keys"]))


if __name__ == "__main__":
    main()
