"""Looks at lab hosts as their users do: over ssh, HTTP and TLS, from the controller."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab.secrets import Secrets
from lab.state import Lab

ROOT = Path(__file__).resolve().parents[1]


def secrets(lab: dict[str, Any]) -> dict[str, Any]:
    """The lab's secrets, opened."""
    return Secrets(Lab(lab["name"])).values


def canaries(values: Any) -> Iterator[str]:
    """A line of each secret that nothing else has: of a private key one from its middle. Certificates are public."""
    if isinstance(values, dict):
        for name, value in values.items():
            if not name.endswith("certificate"):
                yield from canaries(value)
    elif isinstance(values, str) and values.strip():
        written = values.strip().splitlines()
        yield written[len(written) // 2]


def ssh(lab: dict[str, Any], user: str, host: str, command: str, *options: str) -> subprocess.CompletedProcess[str]:
    """One command over a connection of its own."""
    argv = ["ssh", "-F", lab["ssh_config"], "-o", "ControlPath=none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"]
    return subprocess.run(
        [*argv, *options, "-l", user, host, command],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


def play(lab: dict[str, Any], playbook: str, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run a playbook of this repository against the lab, as an operator does."""
    # Ansible looks for group_vars beside the playbook and the inventory; a scenario has none of its own.
    inventory = lab["inventory"] if playbook.startswith("playbooks/") else ".config/molecule/inventory"
    argv = ["ansible-playbook", "-i", inventory, playbook, *arguments]
    if variables:
        argv += ["-e", json.dumps(variables)]
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "SLIPWAY_LAB": lab["name"],
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        # Molecule asks for colours, which have no place in what is compared.
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_NOCOLOR": "1",
    }
    return subprocess.run(
        argv,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def changes(output: str) -> dict[str, int]:
    """What the recap says was (or would be) changed on each host."""
    recap = output.partition("PLAY RECAP")[2]
    found = {}
    for line in recap.splitlines():
        name, _, counts = line.partition(":")
        if "changed=" in counts:
            found[name.strip()] = int(counts.split("changed=")[1].split()[0])
    return found


def context(ca: str | None, *versions: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that trusts one authority and no other, and speaks these versions of TLS."""
    made = ssl.create_default_context(cafile=ca) if ca else ssl.create_default_context()
    if versions:
        if min(versions) < ssl.TLSVersion.TLSv1_2:
            # OpenSSL's own policy would keep the client from asking.
            made.set_ciphers("ALL:@SECLEVEL=0")
        made.minimum_version, made.maximum_version = min(versions), max(versions)
    return made


@contextlib.contextmanager
def tls(address: str, port: int, name: str, ca: str | None, *versions: ssl.TLSVersion) -> Iterator[ssl.SSLSocket]:
    with (
        socket.create_connection((address, port), timeout=10) as plain,
        context(ca, *versions).wrap_socket(plain, server_hostname=name) as encrypted,
    ):
        yield encrypted


def is_open(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=3).close()
    except OSError:
        return False
    return True


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.path = ""
        # As they came: a header that was sent twice is there twice.
        self.pairs = [(name.lower(), value) for name, value in response.getheaders()]
        self.headers = dict(self.pairs)
        self.body = response.read()

    def json(self) -> Any:
        return json.loads(self.body)


def request(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> Answer:
    try:
        connection.request(method, path, body=body, headers=headers)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def http_get(address: str, path: str = "/", **headers: str) -> Answer:
    return request(http.client.HTTPConnection(address, 80, timeout=10), "GET", path, None, headers)


ACCESS_LOG = "/var/log/nginx/access.log"


def access_log(host: Any, what: str = "cat") -> str:
    """What a command reads of all that nginx on a host logged so far: it writes many lines at a time.

    Its workers each write their own, so that lines of the same second stand in any order."""
    time.sleep(2)  # more than nginx_access_log_flush
    return str(host.check_output(f"{what} {ACCESS_LOG}"))


def https(
    lab: dict[str, Any],
    path: str = "/",
    method: str = "GET",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    name: str | None = None,
    address: str | None = None,
    port: int = 443,
) -> Answer:
    """One request to the edge over a connection of its own, its certificate verified."""
    name = name or lab["edge_name"]
    connection = http.client.HTTPSConnection(name, 443, timeout=60, context=context(lab["ca"]))
    plain = socket.create_connection((address or lab["edge_address"], port), timeout=60)
    connection.sock = context(lab["ca"]).wrap_socket(plain, server_hostname=name)
    return request(connection, method, path, body, headers or {})
