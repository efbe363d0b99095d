"""Clients that mean harm: slow ones, idle ones, huge bodies and nonsense. Others are answered meanwhile, and the
numbers are printed."""

from __future__ import annotations

import contextlib
import resource
import socket
import ssl
import statistics
import threading
import time

import pytest

from tests.outside import context, https

SLOW, IDLE = 500, 10_000
PATIENCE = 3.0  # seconds that nobody else may have to wait
MEGABYTE = 1 << 20


@pytest.fixture(autouse=True)
def release(live):
    return live


@pytest.fixture
def say(capsys):
    """On the terminal and in the log, though the test passes."""

    def speak(text: str) -> None:
        with capsys.disabled():
            print(f"\n  edge: {text}", flush=True)

    return speak


def others(lab, times: int = 30) -> list[float]:
    """How long visitors waited who came meanwhile; each was answered."""
    took = []
    for number in range(times):
        begun = time.monotonic()
        assert https(lab, ("/", "/api/books/", "/readyz")[number % 3]).status == 200
        took.append(time.monotonic() - begun)
    return took


def numbers(took: list[float]) -> str:
    median, slowest = statistics.median(took) * 1000, max(took) * 1000
    return f"{len(took)} others answered, median {median:.0f} ms, slowest {slowest:.0f} ms"


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        return connection.recv(1) == b""
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True


def test_slow_clients_do_not_keep_others_waiting_and_are_sent_away(lab, say):
    trust = context(lab["ca"])
    slow = []
    for _ in range(SLOW):
        plain = socket.create_connection((lab["edge_address"], 443), timeout=10)
        connection = trust.wrap_socket(plain, server_hostname=lab["edge_name"])
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {lab['edge_name']}\r\nX-a: ".encode())
        slow.append(connection)
    begun, took = time.monotonic(), []
    while time.monotonic() - begun < 18:
        for connection in slow:
            with contextlib.suppress(OSError):
                connection.settimeout(1)
                connection.sendall(b"b")
        took += others(lab, 6)
        time.sleep(0.5)
    gone = sum(is_closed(connection) for connection in slow)
    for connection in slow:
        connection.close()
    say(f"{SLOW} slow clients: {numbers(took)}; {gone} were sent away")
    assert max(took) < PATIENCE
    assert gone == SLOW


def test_ten_thousand_idle_connections_leave_room(lab, app1, say):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, IDLE + 2000)), hard))
    idle = []
    try:
        for _ in range(IDLE):
            idle.append(socket.create_connection((lab["edge_address"], 443), timeout=10))
        held = int(app1.check_output("curl -sf http://127.0.0.1:8081/nginx_status | head -n 1").split()[-1])
        took = others(lab)
    finally:
        for connection in idle:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    say(f"{IDLE} idle connections ({held} held at once): {numbers(took)}")
    assert held >= IDLE * 0.9
    assert max(took) < PATIENCE


@pytest.mark.parametrize("chunked", [False, True], ids=["told", "chunked"])
def test_a_gigabyte_is_refused_and_never_reaches_a_disk(lab, app1, say, chunked):
    plain = socket.create_connection((lab["edge_address"], 443), timeout=30)
    connection = context(lab["ca"]).wrap_socket(plain, server_hostname=lab["edge_name"])
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {1024 * MEGABYTE}"
    head = (
        f"POST /api/orders/ HTTP/1.1\r\nHost: {lab['edge_name']}\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    )
    answer, sent, took = b"", 0, []
    visitors = threading.Thread(target=lambda: took.extend(others(lab, 12)))
    visitors.start()
    connection.sendall(head.encode())
    block = b"x" * MEGABYTE
    piece = b"%x\r\n%s\r\n" % (len(block), block) if chunked else block
    with contextlib.suppress(OSError):
        for _ in range(1024):
            connection.sendall(piece)
            sent += MEGABYTE
    with contextlib.suppress(OSError):
        answer = connection.recv(4096)
    connection.close()
    visitors.join()
    left = app1.check_output("du -sm /var/lib/nginx").split()[0]
    said = answer.split(b"\r\n")[0].decode() or "connection closed"
    say(f"1 GB upload: {said} after {sent // MEGABYTE} MB, {left} MB on the host's disk; {numbers(took)}")
    # nginx reads on for a while, or the client would not read what it is told; it keeps nothing of it.
    assert b" 413 " in answer
    assert int(left) < 20
    assert max(took) < PATIENCE


MALFORMED = {
    "nonsense": b"\x16\x03\x01\x00\xff\x00\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: {name}\r\nHost: evil.example\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: {name}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "length and chunks": (
        b"POST / HTTP/1.1\r\nHost: {name}\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG"
    ),
    "odd chunks": b"POST / HTTP/1.1\r\nHost: {name}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "bad chunk": b"POST / HTTP/1.1\r\nHost: {name}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "negative length": b"POST / HTTP/1.1\r\nHost: {name}\r\nContent-Length: -1\r\n\r\n",
    "long line": b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: {name}\r\n\r\n",
    "long header": b"GET / HTTP/1.1\r\nHost: {name}\r\nX-a: " + b"a" * 40_000 + b"\r\n\r\n",
    "nul": b"GET / HTTP/1.1\r\nHost: {name}\r\nX-a: a\x00b\r\n\r\n",
    "version": b"GET / HTTP/9.9\r\nHost: {name}\r\n\r\n",
}


def test_malformed_requests_are_refused_and_harm_nobody(lab, app1, say):
    workers = app1.check_output("pgrep -P $(systemctl show -P MainPID nginx)")
    seen = {}
    for kind, text in MALFORMED.items():
        plain = socket.create_connection((lab["edge_address"], 443), timeout=10)
        with context(lab["ca"]).wrap_socket(plain, server_hostname=lab["edge_name"]) as connection:
            try:
                connection.sendall(text.replace(b"{name}", lab["edge_name"].encode()))
                line = connection.recv(4096).split(b"\r\n")[0].decode(errors="replace")
            except OSError:
                line = ""
        seen[kind] = int(line.split()[1]) if line.startswith("HTTP/") else 0
    took = others(lab)
    told = ", ".join(f"{kind} {status or 'closed'}" for kind, status in seen.items())
    say(f"malformed requests: {told}; {numbers(took)}")
    assert {kind for kind, status in seen.items() if status not in (0, 400, 411, 413, 414, 501, 505)} == set()
    assert max(took) < PATIENCE
    assert app1.check_output("pgrep -P $(systemctl show -P MainPID nginx)") == workers
