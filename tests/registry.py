"""A real registry of images in the lab: Debian's docker-registry, in a container of its own on the lab's network.

It has a certificate of the lab's authority, lets in one account, and its log says what was asked for."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import time
from pathlib import Path
from typing import Any

from lab import pki
from lab.oci import Registry
from lab.secrets import Secrets
from lab.state import Lab
from tests.acme import docker

USER = "puller"
CONFIG = {
    "version": "0.1",
    "log": {"accesslog": {"disabled": False}, "level": "info"},
    "storage": {"filesystem": {"rootdirectory": "/registry/data"}, "delete": {"enabled": True}},
    "http": {"addr": ":5000", "tls": {"certificate": "/registry/cert.pem", "key": "/registry/key.pem"}},
    "auth": {"htpasswd": {"realm": "lab", "path": "/registry/accounts"}},
}


class LabRegistry:
    def __init__(self, lab: dict[str, Any]) -> None:
        self.lab, self.name, self.password = lab, f"slipway-{lab['name']}-registry", secrets.token_urlsafe(12)
        subprocess.run(["docker", "rm", "--force", "--volumes", self.name], capture_output=True, check=False)
        docker(
            "run", "--detach", "--name", self.name, "--label", f"slipway.lab={lab['name']}",
            "--network", lab["network"], lab["image"], "sleep", "infinity",
        )  # fmt: skip
        self.sh(
            "apt-get update -qq && apt-get install -qq -y --no-install-recommends docker-registry apache2-utils"
            " >/dev/null && mkdir /registry"
        )
        self.address = docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", self.name)
        self.host = f"{self.address}:5000"
        self._start()
        self.client = Registry(self.host, lab["ca"], USER, self.password)
        self._wait()

    def sh(self, command: str, stdin: str | None = None) -> str:
        return docker("exec", *(["-i"] if stdin is not None else []), self.name, "sh", "-ec", command, stdin=stdin)

    def _start(self) -> None:
        known = Secrets(Lab(self.lab["name"])).values
        authority = (known["ca_certificate"], known["ca_private_key"])
        certificate, key = pki.new_server(authority, ["registry"], [self.address])
        for path, content in (("cert.pem", certificate), ("key.pem", key), ("config.json", json.dumps(CONFIG))):
            self.sh(f"cat >/registry/{path}", stdin=content)
        self.sh(f"htpasswd -iBc /registry/accounts {USER}", stdin=self.password)
        docker(
            "exec", "--detach", self.name,
            "sh", "-c", "exec docker-registry serve /registry/config.json >/registry/log 2>&1",
        )  # fmt: skip

    def _wait(self) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                self.client.ask("GET", "").close()
                return
            except OSError:
                assert time.monotonic() < deadline, self.sh("cat /registry/log")
                time.sleep(0.2)

    def sent(self, repository: str) -> list[str]:
        """The digests of what was sent so far, each time it was."""
        log = self.sh("cat /registry/log")
        return re.findall(rf'"GET /v2/{re.escape(repository)}/blobs/(sha256:[0-9a-f]+)[^"]*" 200', log)

    def spoil(self, digest: str, other: bytes) -> None:
        """Have it answer with other content than a digest names."""
        path = f"/registry/data/docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"
        docker("exec", "-i", self.name, "sh", "-ec", f"cat >{path}", stdin=other.decode())

    def variables(self) -> dict[str, Any]:
        """What hosts are told of it."""
        return {
            "release_images": True,
            "release_image_registries": [f"{self.host}/shop"],
            "release_image_credentials": {self.host: {"username": USER, "password": self.password}},
            "release_image_ca_certificate": Path(self.lab["ca"]).read_text(),
        }

    def remove(self) -> None:
        docker("rm", "--force", "--volumes", self.name)
