"""A webhook on the machine itself, as hosts of the lab see it, which can be taken away and brought back."""

from __future__ import annotations

import json
import ssl
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What the lab's firewall lets out to (group_vars/lab/firewall.yml), and what molecule/alerts/converge.yml says.
PORT = 9443
CANARY = "canary-in-the-address"
PATH = f"/services/T0/{CANARY}"
# A look that its timer began is not the one that is asked for: to start a unit that is starting is to wait for it.
LOOK = (
    "{ while systemctl is-active slipway-alerts.service | grep -q activating; do sleep 0.1; done;"
    " systemctl start slipway-alerts.service; }"
)


class Webhook:
    """Keeps what it is told."""

    def __init__(self, address: str, certificate: str) -> None:
        self.address, self.certificate = address, certificate
        self.messages: list[dict[str, Any]] = []
        self.bodies: list[dict[str, Any]] = []
        self.paths: set[str] = set()
        self.server: ThreadingHTTPServer | None = None

    def up(self) -> None:
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                webhook.paths.add(self.path)
                webhook.bodies.append(body)
                # Only plain JSON names them one by one.
                webhook.messages += [{**one, "host": body["host"]} for one in body.get("messages", [])]
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer((self.address, PORT), Handler)
        trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(self.certificate)
            file.flush()
            trust.load_cert_chain(file.name)
        self.server.socket = trust.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def down(self) -> None:
        assert self.server
        self.server.shutdown()
        self.server.server_close()
        self.server = None

    def told(self, key: str, kind: str = "", host: str = "app1") -> list[dict[str, Any]]:
        return [one for one in self.messages if one["key"] == key and one["host"] == host and kind in ("", one["kind"])]

    def wait(self, key: str, kind: str, seconds: float = 20) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while not (found := self.told(key, kind)):
            if time.monotonic() > deadline:
                raise AssertionError(f"no {kind} of {key} within {seconds} s; it was told {self.messages}")
            time.sleep(0.1)
        return found[-1]

    def forget(self) -> None:
        self.messages.clear()
        self.bodies.clear()
