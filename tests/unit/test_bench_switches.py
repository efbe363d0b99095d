"""What `make bench-switches` chooses and concludes; the switches themselves are real ones, on a lab."""

import io
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks import switches
from benchmarks.cores import Cores, politely
from benchmarks.loadgen.result import Outcome, Window, summarize
from benchmarks.site import Site
from benchmarks.story import StepFailed, Story
from benchmarks.switches import CYCLE, Cargo, Switches, missed, other_kind, tails


class FakeSite(Site):
    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def releasectl(self, *arguments: str, check: bool = True) -> dict[str, Any]:
        assert check
        self.asked.append(arguments)
        return {"ok": True}


def status(live: str = "shop-3", **images: bool) -> dict[str, Any]:
    """Of four releases, of which those named are of images or not."""
    kinds = {"shop-1": False, "shop-2": True, "shop-3": False, "shop-4": False} | {
        name.replace("_", "-"): image for name, image in images.items()
    }
    releases = [{"id": name, "image": "r/shop@sha256:0" if image else None} for name, image in kinds.items()]
    return {"live": {"release": live, "generation": f"{live}.7"}, "previous": "shop-1", "releases": releases}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Switches:
    monkeypatch.setattr("benchmarks.switches.ROOT", tmp_path)
    made = Switches("unit-test", 3, 200.0)
    made.story = Story(6, tmp_path / "switches.log", io.StringIO())
    made.site = FakeSite()
    made.artifacts, made.images = [Cargo("shop-8", "shop-8.tar.gz")], [Cargo("shop-9", "r/shop@sha256:9")]
    made.made = [{"way": CYCLE[number], "seconds": 3.0, "whole": 5.0, "busy": 0.5} for number in range(3)]
    return made


# Which switch.
def test_one_in_five_is_a_whole_deploy_and_every_way_is_among_them() -> None:
    ways = Counter(CYCLE)
    assert (ways[switches.DEPLOY] + ways[switches.DEPLOY_IMAGE]) / len(CYCLE) == 0.2
    assert set(CYCLE) == {
        switches.DEPLOY, switches.DEPLOY_IMAGE, switches.ROLLBACK, switches.BACK, switches.ACTIVATE, switches.RESTART,
    }  # fmt: skip


def test_it_goes_to_the_newest_of_the_other_kind() -> None:
    assert other_kind(status("shop-3")) == "shop-2"
    assert other_kind(status("shop-2")) == "shop-4"
    assert other_kind(status("shop-3", shop_2=False)) == "shop-4"
    assert other_kind(status("shop-4", shop_2=False)) == "shop-3"


def test_a_single_release_is_none_to_switch_to() -> None:
    lonely = status("shop-1")
    lonely["releases"] = lonely["releases"][:1]
    with pytest.raises(StepFailed, match="shop-1 is the only release"):
        other_kind(lonely)


@pytest.mark.parametrize(
    ("way", "release", "asked"),
    [
        (switches.RESTART, "shop-3", ("restart",)),
        (switches.ACTIVATE, "shop-2", ("activate", "--id", "shop-2")),
        (switches.BACK, "shop-1", ("rollback",)),
    ],
)
def test_a_verb_is_called_for_the_release_that_is_expected(
    bench: Switches, way: str, release: str, asked: tuple[str, ...]
) -> None:
    switch = bench.choose(way, status())
    assert isinstance(bench.site, FakeSite)
    assert bench.site.asked == []
    switch.make()
    assert (switch.way, switch.release, bench.site.asked) == (way, release, [asked])


@pytest.mark.parametrize(
    ("way", "release", "words"),
    [
        (switches.DEPLOY, "shop-8", ("deploy", "-e", "release_artifact=shop-8.tar.gz")),
        (switches.DEPLOY_IMAGE, "shop-9", ("deploy", "-e", "release_image=r/shop@sha256:9")),
        (switches.ROLLBACK, "shop-1", ("rollback",)),
    ],
)
def test_a_playbook_is_run_for_the_release_that_is_expected(
    bench: Switches, monkeypatch: pytest.MonkeyPatch, way: str, release: str, words: tuple[str, ...]
) -> None:
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(bench, "playbook", lambda *given: ran.append(given))
    switch = bench.choose(way, status())
    switch.make()
    assert (switch.release, ran) == (release, [words])


class FakeLoad:
    def __init__(self, sent: int, done: int, lost: int) -> None:
        self.now = {"sent": sent, "done": done, "lost": lost}

    def snapshot(self) -> dict[str, int]:
        return self.now


@pytest.mark.parametrize(("sent", "done", "lost", "serves"), [
    (1000, 990, 0, True), (1000, 990, 1, False), (1000, 700, 0, False),
])  # fmt: skip
def test_a_machine_that_cannot_serve_the_load_is_told_so(
    bench: Switches, monkeypatch: pytest.MonkeyPatch, sent: int, done: int, lost: int, serves: bool
) -> None:
    monkeypatch.setattr(bench.story, "rest", lambda _seconds: None)
    load: Any = FakeLoad(sent, done, lost)
    if serves:
        bench.warm_up(load)
        return
    with pytest.raises(StepFailed, match=r"does not serve 200 requests a second; make bench-switches RATE=100"):
        bench.warm_up(load)


def test_what_a_switch_held_up_is_waited_for(bench: Switches, monkeypatch: pytest.MonkeyPatch) -> None:
    tallies = iter([(1000, 700), (1020, 900), (1040, 1011)])  # 300, 120 and 29 wait; at rest there are 30
    load: Any = type("Load", (), {"snapshot": lambda _self: dict(zip(("sent", "done"), next(tallies), strict=True))})()
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    bench.caught_up(load)
    assert list(tallies) == []


def test_what_never_catches_up_ends_the_run(bench: Switches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.switches.PATIENCE", -1)
    with pytest.raises(StepFailed, match="300 requests still wait for an answer"):
        bench.caught_up(FakeLoad(1000, 700, 0))  # type: ignore[arg-type]


# What came of it.
def run_of(calm: float, switch: float, lost: int = 0) -> dict[str, Any]:
    """A run whose answers take so many seconds in calm windows, and during a switch."""
    outcomes = [Outcome(n / 100, "api", False, status=200, latency=calm) for n in range(100)]
    outcomes += [Outcome(1 + n / 100, "api", False, status=200, latency=switch) for n in range(100)]
    outcomes += [Outcome(1.5, "slow", False, status=200, latency=2.0)]
    outcomes += [Outcome(1.6, "api", False, lost="reset") for _ in range(lost)]
    windows = [Window("calm", 0.0, 1.0)] + [
        Window(f"switch/{way}", 1.0 + place / 3, 1.0 + (place + 1) / 3) for place, way in enumerate(CYCLE[:3])
    ]
    return summarize(outcomes, [("start", 0.0)], len(outcomes), windows=windows)


@pytest.mark.parametrize(("calm", "switch", "goal"), [(0.010, 0.020, "met"), (0.010, 0.021, "missed")])
def test_the_tail_is_held_against_that_of_calm_windows(calm: float, switch: float, goal: str) -> None:
    windows = run_of(calm, switch)["windows"]
    rows = [row for row in tails(windows) if row[1] == "switch"]
    assert {(row[-2], row[-1]) for row in rows} == {(f"{switch / calm:.2f}", goal)}
    assert len(rows) == len(["all but slow", "api"]), "kinds that were not sent are not told"
    assert bool(missed(windows)) == (goal == "missed")


def summed_up(bench: Switches, result: dict[str, Any], agree: bool = True) -> tuple[int, str]:
    result |= {"cpu_seconds": 1.0}
    answered = result["total"]["by_status"]
    nginx = {"client": answered, "client_unanswered": 0, "nginx": answered, "agree": agree, "differences": {"502": 1}}
    bench.witnessed = {"result": result, "nginx": nginx}
    code = bench.summary()
    assert isinstance(bench.story._out, io.StringIO)
    return code, bench.story._out.getvalue()


def test_a_run_that_lost_nothing_says_what_it_measured(bench: Switches) -> None:
    code, said = summed_up(bench, run_of(0.010, 0.050))
    assert code == 0
    for words in (
        "deploy.yml, an artifact",
        "0 lost",
        "they agree",
        "Missed: p99 of api during a switch is 5.00 times",
    ):
        assert words in said
    assert (bench.reports / "bench-switches.json").is_file()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lost": 2}, "2 requests were lost"),
        ({"agree": False}, "nginx's log tells another story"),
        ({"count": 4}, "3 switches of 4 were made"),
    ],
)
def test_a_run_that_shows_less_than_it_should_fails(bench: Switches, change: dict[str, Any], says: str) -> None:
    bench.count = change.get("count", 3)
    code, said = summed_up(bench, run_of(0.010, 0.010, lost=change.get("lost", 0)), change.get("agree", True))
    assert code == 1
    assert f"Failed: {says}" in said


def test_a_run_without_slow_requests_fails(bench: Switches) -> None:
    result = run_of(0.010, 0.010)
    del result["total"]["by_kind"]["slow"]
    assert "no slow request" in summed_up(bench, result)[1]


# The machine.
def test_the_share_of_the_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 110.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    second = os.sysconf("SC_CLK_TCK")
    stat = tmp_path / "stat"
    stat.write_text("cpu 100 0 100 9999 50 0 0 0 0 0\ncpu0 1 2 3\n")
    cores = Cores(stat)
    # user, nice, system, idle, waiting, irq, softirq, stolen
    stat.write_text(f"cpu {100 + 6 * second} {second} {100 + 2 * second} 99999 500 0 {second} 7777 0 0\ncpu0 1 2 3\n")
    assert cores.busy == 10.0
    assert cores.share == 0.5


def test_the_controller_is_last_in_the_queue() -> None:
    code = "import os, sys; print(os.nice(0), sys.argv[1])"
    done = subprocess.run(politely([sys.executable, "-c", code, "a b"]), capture_output=True, text=True, check=True)
    assert done.stdout == "19 a b\n"
