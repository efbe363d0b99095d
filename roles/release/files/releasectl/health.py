"""The health gate: a new generation answers on its own socket before any request can reach it."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable
from pathlib import Path

from .errors import Refusal

# What is asked of an app without a path for its health, and below what its answer has to be: it shows that it answers,
# and nothing of what it needs.
ANYWHERE = "/"
BROKEN = 500


def asked(target: str) -> str:
    """What is asked for, in words."""
    return target or f"any answer of {ANYWHERE} below {BROKEN}"


def well(target: str, status: int) -> bool:
    """Whether an answer is that of a healthy app."""
    return status == 200 if target else status < BROKEN


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def as_nginx(domain: str) -> dict[str, str]:
    """The headers with which a generation is asked on its own socket."""
    return {"Host": domain, "X-Forwarded-Proto": "https", "User-Agent": "releasectl"}


def probe(path: Path, target: str, domain: str, timeout: float) -> tuple[int, str]:
    """Ask ``target`` once as nginx would; return status and the beginning of the body on one line."""
    connection = UnixConnection(path, timeout)
    try:
        connection.request("GET", target or ANYWHERE, headers={**as_nginx(domain), "Connection": "close"})
        response = connection.getresponse()
        body = response.read(2048).decode(errors="replace")
        return response.status, " ".join(body.split())[:200]
    finally:
        connection.close()


def gate(
    path: Path,
    target: str,
    domain: str,
    timeout: float,
    successes: int,
    failures: int,
    alive: Callable[[], bool],
) -> None:
    """Return after ``successes`` answers of 200 in a row; refuse after ``failures`` other answers in a row,
    after ``timeout`` seconds, or as soon as ``alive`` says that the process is gone.

    A redirect counts as a failure: a health check that is sent elsewhere has not been answered. Without a ``target``
    it is any answer of / below 500 that counts.
    """
    deadline = time.monotonic() + timeout
    good = bad = 0
    reason = discreet = "it did not answer"
    while good < successes:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            late = f"{target or ANYWHERE} was not healthy within {timeout:g} s"
            raise Refusal(f"{late}: {reason}", f"{late}: {discreet}")
        try:
            status, body = probe(path, target, domain, min(remaining, 10))
        except OSError as error:
            good, reason = 0, f"it did not answer ({error.strerror or error})"
            discreet = "it did not answer"
        except http.client.HTTPException as error:
            good, reason = 0, f"it did not speak HTTP ({type(error).__name__})"
            discreet = reason
        else:
            if well(target, status):
                good, bad = good + 1, 0
                continue
            good, bad = 0, bad + 1
            discreet = f"it answered {status}"
            reason = discreet + (f" ({body})" if body else "")
            if bad >= failures:
                ill = f"{target or ANYWHERE} is not healthy"
                raise Refusal(f"{ill}: {reason}", f"{ill}: {discreet}")
        if not alive():
            raise Refusal("its process ended")
        time.sleep(0.1 if bad == 0 else 0.5)
