#!/usr/bin/python
"""The certificate that an app host shows the edges: made on the host, whose key never leaves it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backend_certificate
short_description: Make the certificate that this host shows the edges, and the next one in time
description:
  - C(live) in the directory is a link to the pair that is shown. In the last third of its time, or when the names are
    others, a second pair is made beside it, which nobody shows yet; edges are to trust both.
  - With I(show_next) that second pair takes over, and the first one goes.
options:
  directory:
    description: Where the pairs are kept.
    type: path
    required: true
  names:
    description: The names that the certificate is for.
    type: list
    elements: str
    required: true
  days:
    description: For how many days it is made.
    type: int
    required: true
  show_next:
    description: Whether the next one takes over now.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Make the certificate that this host shows the edges
  backend_certificate:
    directory: /etc/slipway/backend
    names: [bookshop.backend.internal]
    days: 3650
"""

RETURN = r"""
certificates:
  description: What edges have to trust (PEM), the one that is shown first.
  type: list
  elements: str
  returned: always
next:
  description: Whether there is a next one that is not shown yet.
  type: bool
  returned: always
"""

import datetime
import os
import re
import shutil
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

CERTIFICATE = "certificate.pem"
KEY = "key.pem"
LIVE = "live"


def moment(text: str) -> float:
    """Seconds since the epoch of OpenSSL's `Nov 28 14:00:00 2036 GMT`."""
    found = datetime.datetime.strptime(" ".join(text.split()), "%b %d %H:%M:%S %Y GMT")
    return found.replace(tzinfo=datetime.timezone.utc).timestamp()


def is_due(text: str, names: list[str], now: float) -> bool:
    """Whether what `openssl x509 -noout -dates -ext subjectAltName` says asks for another certificate."""
    dates = dict(re.findall(r"^(notBefore|notAfter)=(.*)$", text, re.MULTILINE))
    start, end = moment(dates["notBefore"]), moment(dates["notAfter"])
    return set(re.findall(r"DNS:([^,\s]+)", text)) != set(names) or end - now < (end - start) / 3


class Pairs:
    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.directory = module.params["directory"]
        self.link = os.path.join(self.directory, LIVE)

    def path(self, number: int, name: str = "") -> str:
        return os.path.join(self.directory, str(number), name)

    def numbers(self) -> list[int]:
        """The whole pairs that there are, oldest first."""
        if not os.path.isdir(self.directory):
            return []
        found = [int(name) for name in os.listdir(self.directory) if name.isdigit()]
        return sorted(number for number in found if os.path.isfile(self.path(number, CERTIFICATE)))

    def live(self) -> int | None:
        try:
            number = int(os.path.basename(os.readlink(self.link)))
        except (OSError, ValueError):
            return None
        return number if number in self.numbers() else None

    def due(self, number: int) -> bool:
        words = ["openssl", "x509", "-noout", "-dates", "-ext", "subjectAltName", "-in", self.path(number, CERTIFICATE)]
        code, out, _ = self.module.run_command(words)
        return code != 0 or is_due(out, self.module.params["names"], time.time())

    def make(self, number: int) -> None:
        """The certificate is moved in last: a pair that has one is whole."""
        names = self.module.params["names"]
        os.makedirs(self.directory, mode=0o755, exist_ok=True)
        shutil.rmtree(self.path(number), ignore_errors=True)
        os.mkdir(self.path(number), 0o755)
        half = self.path(number, "half.pem")
        old = os.umask(0o077)
        try:
            code, _, err = self.module.run_command(
                [
                    "openssl", "req", "-x509", "-nodes", "-sha256",
                    "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
                    "-keyout", self.path(number, KEY), "-out", half, "-days", str(self.module.params["days"]),
                    "-subj", f"/CN={names[0][:64]}",
                    "-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names),
                    "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth",
                ]
            )  # fmt: skip
        finally:
            os.umask(old)
        if code != 0:
            self.module.fail_json(msg=f"openssl made no certificate: {err.strip().splitlines()[-1:]}")
        os.chmod(half, 0o644)
        os.rename(half, self.path(number, CERTIFICATE))

    def show(self, number: int) -> None:
        new = self.link + ".new"
        if os.path.lexists(new):
            os.unlink(new)
        os.symlink(str(number), new)
        os.rename(new, self.link)

    def read(self, number: int) -> str:
        with open(self.path(number, CERTIFICATE)) as stream:
            return stream.read()


def settle(pairs: Pairs, show_next: bool, dry: bool) -> dict[str, Any]:
    live = pairs.live()
    changed = False
    if live is None:
        changed = True
        if not dry:
            live = (pairs.numbers() or [0])[-1] + 1
            pairs.make(live)
            pairs.show(live)
    newer = [number for number in pairs.numbers() if live is not None and number > live]
    if live is not None and not newer and pairs.due(live):
        changed = True
        if not dry:
            newer = [live + 1]
            pairs.make(live + 1)
    if show_next and newer:
        changed = True
        if not dry:
            pairs.show(newer[-1])
            live, newer = newer[-1], []
            for number in pairs.numbers():
                if number != live:
                    shutil.rmtree(pairs.path(number))
    shown = [live, *newer] if live is not None else []
    return {"changed": changed, "certificates": [pairs.read(number) for number in shown], "next": bool(newer)}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "names": {"type": "list", "elements": "str", "required": True},
            "days": {"type": "int", "required": True},
            "show_next": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    module.exit_json(**settle(Pairs(module), module.params["show_next"], module.check_mode))


if __name__ == "__main__":
    main()
