"""Receivers of notices on the loopback: a webhook with a certificate, and a mail server that speaks enough SMTP."""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lab import pki

CANARY = "canary-in-the-address"


def certificate(place: Path) -> tuple[str, ssl.SSLContext]:
    """An authority's PEM, and what a server of its shows on this machine."""
    authority = pki.new_authority("the test's")
    path = place / "server.pem"
    path.write_text("".join(pki.new_server(authority, ["localhost"], ["127.0.0.1"])))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return authority[0], context


class Hook:
    """Keeps what it is told, and answers as its ``behave`` does."""

    def __init__(self, place: Path) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.behave: Callable[[BaseHTTPRequestHandler], None] = status(204)
        self.release = ""  # which it serves, as an app does
        self.authority, context = certificate(place)
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                hook.paths.append(self.path)
                hook.behave(self)

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("X-Release", hook.release)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Keep the test's output clean."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that refuses the certificate, or does not wait, is no news."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self.server.server_port}/services/T0/{CANARY}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def status(code: int, after: float = 0) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answer with this status, after so many seconds."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(after)
        with contextlib.suppress(OSError):
            handler.send_response(code)
            handler.send_header("Content-Length", "0")
            handler.end_headers()

    return answer


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Hang up in the middle, with a RST."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # The bare socket: closing TLS would say goodbye.
    socket.socket(fileno=handler.connection.detach()).close()


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Say a word now and then, for ever: no single wait is a long one."""
    with contextlib.suppress(OSError):
        handler.send_response(200)
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b".")
            time.sleep(0.05)


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


class Post:
    """A mail server: STARTTLS, AUTH PLAIN, and it keeps what it takes. ``offers`` is what EHLO is answered."""

    def __init__(self, place: Path) -> None:
        self.offers = ["STARTTLS", "AUTH PLAIN"]
        self.mails: list[str] = []
        self.said: list[str] = []
        self.refuses: dict[str, str] = {}
        self.authority, context = certificate(place)
        post = self

        class Conversation(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                encrypted = False
                self.say("220 post.test")
                while words := self.rfile.readline().decode().strip():
                    verb = words.split()[0].upper()
                    post.said.append(("tls " if encrypted else "") + words)
                    if verb in post.refuses:
                        self.say(post.refuses[verb])
                    elif verb == "EHLO":
                        offers = [one for one in post.offers if one != "STARTTLS" or not encrypted]
                        self.say("\r\n".join([*(f"250-{one}" for one in ("post.test", *offers)), "250 8BITMIME"]))
                    elif verb == "STARTTLS":
                        self.say("220 go ahead")
                        self.request = context.wrap_socket(self.request, server_side=True)
                        self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", buffering=0)
                        encrypted = True
                    elif verb == "AUTH":
                        self.say("235 welcome")
                    elif verb == "DATA":
                        self.say("354 go on")
                        lines = iter(lambda: self.rfile.readline().decode(), ".\r\n")
                        post.mails.append("".join(lines))
                        self.say("250 taken")
                    elif verb == "QUIT":
                        self.say("221 bye")
                        return
                    else:
                        self.say("250 well")

            def say(self, text: str) -> None:
                self.wfile.write(f"{text}\r\n".encode())

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that refuses the certificate is no news."""

        self.server = Server(("127.0.0.1", 0), Conversation)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
