"""Runs on a lab host: so many clients, each of which asks again as soon as it is answered, for so many seconds.

    closed_loop.py unix:/run/app/current.sock example.com /path 8 5.0
    closed_loop.py tls:127.0.0.1:443          example.com /path 8 5.0

The same program asks Gunicorn on its socket and the edge over TLS, so that what it costs by itself is in both numbers.
A socket gets a new connection for each request, as nginx gives it; TLS connections are kept, as browsers keep them.
Standard library only, Python 3.10.
"""

from __future__ import annotations

import json
import multiprocessing
import socket
import ssl
import sys
import threading
import time

PROCESSES = 2


class Client:
    def __init__(self, place: str, host: str, path: str) -> None:
        self.kind, _, self.where = place.partition(":")
        close = "close" if self.kind == "unix" else "keep-alive"
        lines = (f"GET {path} HTTP/1.1", f"Host: {host}", "X-Forwarded-Proto: https", f"Connection: {close}")
        self.request = ("\r\n".join(lines) + "\r\n\r\n").encode()
        self.host = host
        self.trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.trust.check_hostname, self.trust.verify_mode = False, ssl.CERT_NONE
        self.connection: socket.socket | None = None

    def connect(self) -> socket.socket:
        if self.kind == "unix":
            made = socket.socket(socket.AF_UNIX)
            made.settimeout(30)
            made.connect(self.where)
            return made
        address, _, port = self.where.rpartition(":")
        plain = socket.create_connection((address, int(port)), timeout=30)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.trust.wrap_socket(plain, server_hostname=self.host)

    def ask(self) -> int:
        """The status of one answer, read to its end."""
        connection = self.connection or self.connect()
        connection.sendall(self.request)
        seen = b""
        while b"\r\n\r\n" not in seen:
            seen += self._more(connection)
        head, _, body = seen.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        while len(body) < length:
            body += self._more(connection)
        if self.kind == "unix":
            connection.close()
        else:
            self.connection = connection
        return int(head.split(b" ", 2)[1])

    def _more(self, connection: socket.socket) -> bytes:
        got = connection.recv(65536)
        if not got:
            raise OSError("the connection ended within an answer")
        return got


def work(
    place: str, host: str, path: str, clients: int, seconds: float, results: multiprocessing.Queue[dict[str, int]]
) -> None:
    counts = {"good": 0, "other": 0}
    end = time.monotonic() + seconds

    def loop() -> None:
        client = Client(place, host, path)
        while time.monotonic() < end:
            try:
                status = client.ask()
            except (OSError, ValueError, StopIteration):
                client.connection, status = None, 0
            counts["good" if status == 200 else "other"] += 1

    threads = [threading.Thread(target=loop) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put(counts)


def main() -> None:
    place, host, path, clients, seconds = sys.argv[1:]
    share = [int(clients) // PROCESSES + (number < int(clients) % PROCESSES) for number in range(PROCESSES)]
    results: multiprocessing.Queue[dict[str, int]] = multiprocessing.Queue()
    begun = time.monotonic()
    workers = [
        multiprocessing.Process(target=work, args=(place, host, path, count, float(seconds), results))
        for count in share
        if count
    ]
    for worker in workers:
        worker.start()
    found = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    took = time.monotonic() - begun
    good, other = (sum(counts[name] for counts in found) for name in ("good", "other"))
    print(json.dumps({"per_second": good / took, "other": other}))


if __name__ == "__main__":
    main()
