"""A real ACME server in the lab: pebble, which Let's Encrypt tests clients with, strict, with an authority of its own.

It runs in a container of its own on the lab's network, outside every firewall, and asks the edge on port 80 as Let's
Encrypt would. Names lead where `names` says."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

from cryptography import x509

from lab import pki
from lab.secrets import Secrets
from lab.state import Lab
from tests.outside import play, tls

# Certbot renews what ends within 30 days; the daily check complains of what ends within 21.
DAYS = 25
CONFIG = {
    "listenAddress": "0.0.0.0:14000",
    "managementListenAddress": "0.0.0.0:15000",
    "certificate": "/pebble/cert.pem",
    "privateKey": "/pebble/key.pem",
    "httpPort": 80,
    "tlsPort": 443,
    "ocspResponderURL": "",
    "externalAccountBindingRequired": False,
    "certificateValidityPeriod": DAYS * 86400,
}


CONVERGE = "molecule/acme/converge.yml"
# The edge's own name, one that joins it, and one that leads to nobody.
NAME, SECOND, ASTRAY = "bookshop.localhost", "shop.localhost", "astray.localhost"
# A file that the edge serves by itself.
HASHED = "/static/acme.0123456789ab.css"
# Leaves an edge with everything but a certificate.
WIPE = "systemctl stop nginx certbot.timer; rm -rf /etc/slipway/tls /etc/letsencrypt /var/lib/slipway/acme"


def docker(*arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        input=stdin, stdin=subprocess.DEVNULL if stdin is None else None, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"docker {' '.join(arguments[:3])}: {done.stderr}"
    return done.stdout.strip()


class Acme:
    def __init__(self, lab: dict[str, Any], names: dict[str, str]) -> None:
        self.lab, self.name = lab, f"slipway-{lab['name']}-acme"
        subprocess.run(["docker", "rm", "--force", self.name], capture_output=True, check=False)
        hosts = [word for name, address in names.items() for word in ("--add-host", f"{name}:{address}")]
        docker(
            "run", "--detach", "--name", self.name, "--label", f"slipway.lab={lab['name']}",
            "--network", lab["network"], *hosts, lab["image"], "sleep", "infinity",
        )  # fmt: skip
        self.sh(
            "apt-get update -qq && apt-get install -qq -y --no-install-recommends pebble >/dev/null && mkdir /pebble"
        )
        self.address = docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.name)
        self.directory = f"https://{self.address}:14000/dir"

    def sh(self, command: str, stdin: str | None = None) -> str:
        return docker("exec", *(["-i"] if stdin is not None else []), self.name, "sh", "-ec", command, stdin=stdin)

    def start(self) -> None:
        """Its own certificate is of the lab's authority; what it issues is of one that it makes anew."""
        known = Secrets(Lab(self.lab["name"])).values
        authority = (known["ca_certificate"], known["ca_private_key"])
        certificate, key = pki.new_server(authority, ["acme"], [self.address])
        for path, content in (("cert", certificate), ("key", key)):
            self.sh(f"cat >/pebble/{path}.pem", stdin=content)
        self.sh("cat >/pebble/config.json", stdin=json.dumps({"pebble": CONFIG}))
        # By default it turns down one good nonce in twenty. certbot tries once more, then fails: one issue in fifty.
        docker(
            "exec", "--detach", "--env", "PEBBLE_VA_NOSLEEP=1", "--env", "PEBBLE_WFE_NONCEREJECT=0", self.name,
            "sh", "-c", "exec pebble -strict -config /pebble/config.json >/pebble/log 2>&1",
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while True:
            try:
                self.root = self.fetch("roots/0")
                return
            except OSError:
                assert time.monotonic() < deadline, self.sh("cat /pebble/log")
                time.sleep(0.2)

    def fetch(self, path: str) -> str:
        context = ssl.create_default_context(cafile=self.lab["ca"])
        with urllib.request.urlopen(f"https://{self.address}:15000/{path}", context=context, timeout=5) as answer:
            return str(answer.read().decode())

    def save_root(self, path: Path) -> str:
        path.write_text(self.root)
        return str(path)

    def issued(self) -> int:
        """How many certificates it has issued."""
        return self.sh("cat /pebble/log").count("Issued certificate serial")

    def go_away(self, host: Any, verb: str = "--insert") -> None:
        """Be down, as a host sees it; and come back (`--delete`). What it knows it would forget if it ended."""
        reset = "-p tcp --dport 14000 -j REJECT --reject-with tcp-reset"
        host.check_output(f"iptables {verb} OUTPUT -d {self.address} {reset}")

    def come_back(self, host: Any) -> None:
        self.go_away(host, "--delete")

    def remove(self) -> None:
        docker("rm", "--force", self.name)


class Site:
    """What the operator does."""

    def __init__(self, lab: dict[str, Any], acme: Acme) -> None:
        self.lab = lab
        self.variables: dict[str, Any] = {
            "tls_provider": "acme",
            "tls_acme_directory": acme.directory,
            "tls_acme_staging_directory": acme.directory,
            "tls_acme_ca_certificates": [Path(lab["ca"]).read_text()],
            "tls_acme_email": "ops@bookshop.example",
            "tls_acme_agree_terms": True,
        }

    def apply(self, *arguments: str, **variables: Any) -> Any:
        return play(self.lab, CONVERGE, *arguments, **(self.variables | variables))


def start(host: Any, unit: str) -> tuple[bool, str]:
    """Run a unit to its end: (whether it succeeded, what it said)."""
    cursor = host.check_output("journalctl -n 0 --show-cursor | sed -n 's/^-- cursor: //p'")
    done = host.run(f"systemctl start {unit}")
    said = host.check_output(f"journalctl --sync; journalctl -o json --after-cursor='{cursor}' -u {unit}")
    lines = [json.loads(line) for line in said.splitlines()]
    return done.rc == 0, "\n".join(str(line["MESSAGE"]) for line in lines if line.get("SYSLOG_IDENTIFIER") != "systemd")


def shown(lab: dict[str, Any], name: str = NAME, ciphers: str = "") -> x509.Certificate:
    """What the edge shows, trusted or not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if ciphers:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(ciphers)
    with (
        socket.create_connection((lab["edge_address"], 443), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as shaken,
    ):
        return x509.load_der_x509_certificate(shaken.getpeercert(binary_form=True) or b"")


def shows_another(lab: dict[str, Any], before: x509.Certificate) -> bool:
    """Whether a new one is shown: nginx's old processes take connections for a moment after a reload."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if shown(lab) != before:
            return True
        time.sleep(0.1)
    return False


def is_trusted(lab: dict[str, Any], root: str, name: str = NAME) -> bool:
    with contextlib.suppress(ssl.SSLError), tls(lab["edge_address"], 443, name, root):
        return True
    return False


def told(done: Any) -> str:
    """The end of what a play printed, on one line."""
    return " ".join((done.stdout + done.stderr).split())[-1500:]
