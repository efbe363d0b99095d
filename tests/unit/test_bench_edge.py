"""What the edge's bench concludes: ratios round by round, and no number from answers that were not good ones."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.edge import Comparison, wrk_rate
from benchmarks.story import ROOT, StepFailed

WRK = "Running 4s test @ https://a/\n  40000 requests in 4.00s, 1GB read\nRequests/sec:  9876.5\n"


def test_the_rate_is_wrks() -> None:
    assert wrk_rate(WRK) == 9876.5


@pytest.mark.parametrize(
    "more", ["  Non-2xx or 3xx responses: 12\n", "  Socket errors: connect 0, read 3, write 0, timeout 0\n"]
)
def test_bad_answers_are_no_measurement(more: str) -> None:
    with pytest.raises(StepFailed, match="not answered well"):
        wrk_rate(WRK.replace("Requests/sec", more + "Requests/sec"))


def test_a_wrk_that_says_nothing_is_no_measurement() -> None:
    with pytest.raises(StepFailed, match="unable to connect"):
        wrk_rate("unable to connect to a:443 Connection refused")


def comparison(*edge: float) -> Comparison:
    asked: list[str] = []
    rates = iter(edge)

    def ours() -> float:
        asked.append("edge")
        return next(rates)

    def bare() -> float:
        asked.append("bare")
        return 100.0

    made = Comparison("static", "requests/s", {"edge": ours, "bare": bare}, 0.95)
    for number in range(len(edge)):
        made.measure(number)
    assert asked[:4] == ["edge", "bare", "bare", "edge"]
    return made


def test_ways_take_turns_and_each_round_has_its_ratio() -> None:
    made = comparison(98, 90, 99)
    assert made.ratios("bare") == [0.98, 0.9, 0.99]
    assert made.rows()[-1] == ("", "edge / bare", "0.900", "0.980", "0.990", "ratio")
    assert made.missed() == ""


def test_a_goal_that_is_missed_is_said() -> None:
    assert comparison(94, 90, 99).missed() == "static: 0.940 of bare, the goal is 0.95"


@pytest.mark.parametrize(("status", "good"), [("200 OK", True), ("503 Busy", False)])
def test_the_client_counts_what_was_answered_well(tmp_path: Path, status: str, good: bool) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    server.listen(16)

    def serve() -> None:
        while True:
            connection, _ = server.accept()
            connection.recv(65536)
            # In two pieces: the end of an answer is known by its length.
            connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nab".encode())
            connection.sendall(b"cd")
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    words = [sys.executable, "benchmarks/closed_loop.py", f"unix:{tmp_path / 's'}", "a.test", "/", "2", "0.3"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    found = json.loads(done.stdout)
    assert (found["per_second"] > 10) is good
    assert (found["other"] == 0) is good
