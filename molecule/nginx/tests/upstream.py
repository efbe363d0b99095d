"""Stands in for the app: answers on a unix socket, and says what it was asked. Runs on the lab host."""

import json
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

directory, release = Path(sys.argv[1]), sys.argv[2]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        with (directory / "requests").open("a") as stream:
            stream.write(self.path + "\n")
        if self.path.startswith("/slow"):
            time.sleep(3)
        if self.path.startswith("/cut"):
            self.close_connection = True
            return
        status = int(self.path[5:8]) if self.path.startswith("/own-5") else 200
        seen = {"release": release, "path": self.path, "body": len(body), "headers": dict(self.headers.items())}
        seen["padding"] = "x" * 2000 if self.path.startswith("/long") else ""
        data = json.dumps(seen).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Release", release)
        self.send_header("Strict-Transport-Security", "max-age=1")
        if self.path.startswith("/own-headers"):
            self.send_header("Content-Security-Policy", "default-src 'none'")
            self.send_header("X-Frame-Options", "SAMEORIGIN")
            self.send_header("Cache-Control", "private")
            self.send_header("X-Request-ID", "mine")
        if self.path.startswith("/own-503"):
            self.send_header("Retry-After", "5")
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = answer

    def address_string(self):
        return "nginx"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 512


Server(str(directory / "gunicorn.sock"), Handler).serve_forever()
