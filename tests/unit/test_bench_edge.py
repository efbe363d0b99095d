"""What the edge's bench concludes: ratios round by round, and no number from answers that were not good ones."""

from __future__ import annotations

import pytest

from benchmarks.edge import Comparison, h2load_rate, wrk_rate
from benchmarks.story import StepFailed

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


H2LOAD = """\
finished in 3.02s, 8028.33 req/s, 0B/s
requests: 24085 total, 24088 started, 24085 done, 24085 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 24085 2xx, 0 3xx, 0 4xx, 0 5xx
"""


def test_the_rate_is_h2loads() -> None:
    assert h2load_rate(H2LOAD) == 8028.33


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("24085 succeeded, 0 failed", "24080 succeeded, 5 failed"),
        ("24085 done, 24085 succeeded", "0 done, 0 succeeded"),
        ("24085 succeeded, 0 failed", "24085 succeeded, 3 failed"),
    ],
)
def test_bad_answers_to_h2load_are_no_measurement(good: str, bad: str) -> None:
    with pytest.raises(StepFailed, match="not answered well"):
        h2load_rate(H2LOAD.replace(good, bad))


def test_an_h2load_that_says_nothing_is_no_measurement() -> None:
    with pytest.raises(StepFailed, match="could not connect"):
        h2load_rate("client could not connect to host")
