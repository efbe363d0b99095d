"""What `make bench-fleet` does with how many hosts, and what it concludes."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fleet import PREPARING, Cost, Fleet, cost_rows, task_rows, task_seconds, verdicts
from benchmarks.site import Site
from benchmarks.story import Story

# As ansible.posix.profile_tasks ends a run.
OUTPUT = f"""\
PLAY RECAP *********************************************************************
app1 : ok=12 changed=4 unreachable=0 failed=0
===============================================================================
{PREPARING} --------------------------------------------------- 3.21s
release : Take the lease of this deploy --------------------------------- 0.50s
release : Make the release live ----------------------------------------- 1.00s
release : Make the release live ----------------------------------------- 0.75s
shop-2 is live on app1.
"""


def test_tasks_are_timed_over_all_plays() -> None:
    assert task_seconds(OUTPUT) == {
        PREPARING: 3.21,
        "release : Take the lease of this deploy": 0.5,
        "release : Make the release live": 1.75,
    }


def cost(hosts: int, wall: float, preparing: float, other: float = 1.0) -> Cost:
    tasks = {PREPARING: preparing, "release : Activate": other, "release : Unlock": 0.1}
    return Cost(hosts, [wall] * 3, [2.0 * hosts] * 3, [3.0 * hosts] * 3, [0.9] * 3, [tasks] * 3, 12, 20)


@pytest.mark.parametrize(("wall", "says"), [(17.0, "2.00 times as long"), (17.7, "2.10 times as long")])
def test_what_preparing_takes_is_told_apart(wall: float, says: str) -> None:
    costs = {"deploy": {8: cost(8, wall, 3.0), 1: cost(1, 8.0, 1.0)}}
    (sentence,) = verdicts(costs)
    assert says in sentence
    assert ("met" in sentence) == (wall == 17.0)
    assert "90% busy: 16.0 CPU-seconds the controller, 8.0 the hosts" in sentence
    heading, one, eight = cost_rows(costs)
    assert dict(zip(heading, eight, strict=True))["but preparing s"] == f"{wall - 3:.1f}"
    assert one[:4] == ("deploy.yml", "1", "8.0", "1.00")


def test_the_task_that_grows_most_comes_first() -> None:
    rows = task_rows({8: cost(8, 20.0, 3.0, other=9.0), 1: cost(1, 8.0, 1.0)}, most=2)
    assert rows == [
        ("task", "1 hosts", "8 hosts"), ("release : Activate", "1.00", "9.00"), (PREPARING, "1.00", "3.00"),
    ]  # fmt: skip


class FakeSite(Site):
    def __init__(self, host: str, log: list[str]) -> None:
        self.host, self.log = host, log

    def releasectl(self, *arguments: str, check: bool = True) -> dict[str, Any]:
        assert check
        self.log.append(f"{self.host} {arguments[0]}")
        return {"ok": True}


def test_hosts_that_do_not_count_are_drained_and_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.fleet.ROOT", tmp_path)
    made = Fleet("unit-test", 1)
    made.story = Story(5, tmp_path / "fleet.log", io.StringIO())
    log: list[str] = []
    made.apps = [FakeSite(f"app{number}", log) for number in range(1, 5)]

    def timed(_cost: Cost, name: str, limit: Sequence[str]) -> None:
        log.append(" ".join([name, *limit]))

    monkeypatch.setattr(made, "timed", timed)
    monkeypatch.setattr(made, "one", lambda *_: type("Ran", (), {"output": OUTPUT})())
    made.measure(4)
    made.measure(2)
    assert log == [
        "deploy", "rollback", "app3 drain", "app4 drain",
        "deploy --limit edge1,app1,app2", "rollback --limit edge1,app1,app2",
    ]  # fmt: skip
    assert (made.costs["deploy"][2].tasks, made.costs["deploy"][2].trips) == (12, 0)
