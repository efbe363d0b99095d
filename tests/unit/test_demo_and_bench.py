"""What the demo and the bench conclude: a demo that cannot fail shows nothing, a bench that cannot measures nothing."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import Bench
from benchmarks.demo import Demo, recap
from benchmarks.loadgen.result import Outcome, summarize
from benchmarks.site import Site
from benchmarks.story import ROOT, Ran, StepFailed, Story, table


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(2, tmp_path / "story.log", io.StringIO())


def told(story: Story) -> str:
    assert isinstance(story._out, io.StringIO)
    return story._out.getvalue()


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


# Steps.
def test_a_step_is_numbered_and_timed(story: Story) -> None:
    with story.step("Do it") as step:
        ran = story.run(python("print('hello')"))
        step.note = "done well"
    assert ran.output == "hello\n"
    assert ran.cpu_seconds > 0
    assert "[1/2] Do it ..." in told(story)
    assert ", done well" in told(story)
    assert "hello" in story.log.read_text()
    assert "hello" not in told(story)


def test_a_failed_command_shows_its_last_lines_and_where_the_rest_is(story: Story) -> None:
    with pytest.raises(StepFailed, match="code 3") as caught, story.step("Do it"):
        story.run(python("import sys\nfor n in range(100): print('line', n)\nsys.exit(3)"))
    story.failed(caught.value)
    assert "Do it: FAILED" in told(story)
    assert "line 99" in told(story)
    assert "line 71\n" in told(story)
    assert "line 69\n" not in told(story)
    assert str(story.log) in told(story)


def test_a_command_that_hangs_is_stopped(story: Story) -> None:
    with pytest.raises(StepFailed, match="too long"), story.step("Wait"):
        story.run(python("import time; time.sleep(60)"), timeout=0.3)
    assert story.steps[0].seconds == 0


def test_a_kill_takes_what_runs_along(tmp_path: Path) -> None:
    code = (
        "import io, sys; from pathlib import Path;"
        "from benchmarks.story import Story, end_on_signals; end_on_signals();"
        f"story = Story(1, Path({str(tmp_path / 'log')!r}), io.StringIO());"
        "story.run([sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'])"
    )
    process = subprocess.Popen(python(code), stderr=subprocess.DEVNULL, cwd=ROOT)
    deadline = time.monotonic() + 20
    while not (lines := [line for line in read(tmp_path / "log") if line.isdigit()]) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()
    assert process.wait(20) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(lines[0]), 0)


def read(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_the_live_line_names_the_task_that_runs(story: Story) -> None:
    story.log.write_text("TASK [nginx : Install it] ****\nok: [app1]\nTASK [tls : Look] *****\nok: [app1]\n")
    assert story._doing(0) == "tls : Look"


def test_a_table_lines_up() -> None:
    text = table([("step", "seconds"), ("one", "1.5"), ("eleven", "10.0")])
    assert text.splitlines() == ["step    seconds", "------  -------", "one         1.5", "eleven     10.0"]


# The demo.
class FakeSite(Site):
    def __init__(self, answers: str, live: str, releases: list[str]) -> None:
        self.answers, self.record = answers, live
        self.releases = releases

    def answering(self) -> str:
        return self.answers

    def releasectl(self, *_arguments: str, check: bool = True) -> dict[str, Any]:
        assert check
        return {"ok": True, "live": {"release": self.record}, "releases": [{"id": name} for name in self.releases]}


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    made = Demo("unit-test")
    made.story = Story(9, tmp_path / "demo.log", io.StringIO())
    made.first, made.second, made.bad = "shop-1", "shop-2", "shop-bad"
    made.site = FakeSite("shop-2", "shop-2", ["shop-1", "shop-2"])
    made.result = result([Outcome(number / 100, "page", False, status=200) for number in range(500)] + [slow()])
    made.witnessed = {"nginx": {"agree": True, "nginx": {"200": 501}, "client": {"200": 501}}}
    return made


def slow() -> Outcome:
    return Outcome(1.0, "slow", True, status=200)


def result(outcomes: list[Outcome], scheduled: int | None = None) -> dict[str, Any]:
    return summarize(outcomes, [("start", 0.0)], len(outcomes) if scheduled is None else scheduled)


def test_a_demo_in_which_all_went_well(demo: Demo) -> None:
    demo.seen("shop-2")
    demo.refused(2, "… shop-bad failed its health gate …")
    assert demo.problems() == []


def test_a_demo_sees_a_bad_release_that_was_accepted(demo: Demo) -> None:
    with pytest.raises(StepFailed, match="accepted the bad release"):
        demo.refused(0, "shop-bad is live")


def test_a_demo_sees_a_deploy_that_failed_for_another_reason(demo: Demo) -> None:
    with pytest.raises(StepFailed, match="not because of the bad release"):
        demo.refused(4, "app1 is unreachable")


def test_a_demo_sees_that_the_refused_release_answers(demo: Demo) -> None:
    demo.site = FakeSite("shop-bad", "shop-bad", ["shop-1"])
    with pytest.raises(StepFailed, match="should be answered by shop-2 alone"):
        demo.refused(2, "shop-bad")


def test_a_demo_sees_what_a_refused_release_left(demo: Demo) -> None:
    demo.site = FakeSite("shop-2", "shop-2", ["shop-1", "shop-2", "shop-bad"])
    with pytest.raises(StepFailed, match="still on the host"):
        demo.refused(2, "shop-bad")


def test_a_demo_sees_that_record_and_answer_differ(demo: Demo) -> None:
    demo.site = FakeSite("shop-2", "shop-1", ["shop-1", "shop-2"])
    with pytest.raises(StepFailed, match="the record says that shop-1 is live"):
        demo.seen("shop-2")


def test_one_lost_request_fails_the_demo(demo: Demo) -> None:
    demo.result = result(
        [slow()] + [Outcome(0.1, "page", False, status=200)] * 400 + [Outcome(1, "page", True, lost="reset")]
    )
    assert ["1 of 402 requests were lost" in problem for problem in demo.problems()] == [True]


def test_a_demo_without_enough_load_proves_nothing(demo: Demo) -> None:
    demo.result = result([Outcome(0.1, "page", False, status=200)])
    assert {problem.split(":")[0] for problem in demo.problems()} == {
        "only 1 requests were sent",
        "no slow request was among them",
    }


def test_two_tallies_that_differ_fail_the_demo(demo: Demo) -> None:
    demo.witnessed["nginx"]["agree"] = False
    assert "tells another story" in demo.problems()[0]


def test_requests_without_an_outcome_fail_the_demo(demo: Demo) -> None:
    demo.result["total"]["complete"] = False
    assert len(demo.problems()) == 1


def test_a_recap_is_summed_up() -> None:
    text = "app1 : ok=90 changed=41 failed=0\ndata1 : ok=30 changed=9 failed=0\n"
    assert recap(text) == "50 changes"


# The bench.
@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench("unit-test", 10, 3, 120)
    made.story = Story(7, tmp_path / "bench.log", io.StringIO())
    made.witnessed = {"result": result([slow()]), "nginx": {"agree": True, "differences": {}}}
    return made


def phases(ours: int = 0, plan: int = 7, between: int = 0) -> dict[str, dict[str, Any]]:
    lost = {"start": 0, "ours": ours, "after-ours": between, "plan": plan, "after-plan": 0, "undrained": 0}
    return {name: {"lost": count, "examples": []} for name, count in lost.items()}


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (phases(), None),
        (phases(ours=1), "our switch lost 1"),
        (phases(plan=0), "the measurement is broken"),
        (phases(between=2), "while nothing was switched"),
    ],
)
def test_what_the_bench_concludes(bench: Bench, found: dict[str, dict[str, Any]], says: str | None) -> None:
    problems = bench.problems(found)
    assert [says in problem for problem in problems] == ([True] if says else [])  # type: ignore[operator]


def test_the_bench_believes_two_witnesses_only(bench: Bench) -> None:
    bench.witnessed["nginx"]["agree"] = False
    assert "another story" in bench.problems(phases())[0]


def test_the_bench_refuses_the_time_of_a_site_that_was_not_idle(bench: Bench, tmp_path: Path) -> None:
    def ran(output: str) -> Ran:
        return Ran(0, 1.0, 1.0, tmp_path, output)

    bench.expect_idle(ran("app1 : ok=90 changed=0 failed=0\n"))
    assert bench.site_tasks == 90
    for output in ("app1 : ok=90 changed=1 failed=0\n", "nothing was run\n"):
        with pytest.raises(StepFailed, match="says nothing"):
            bench.expect_idle(ran(output))


def test_ours_is_held_against_each_other_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.bench.ROOT", tmp_path)
    made = Bench("unit-test", 1, 3, 10.0)
    for ours, script, other in ((6.0, 4.0, 5.0), (8.0, 4.0, 5.0), (7.0, 4.0, 5.0)):
        ran = {"playbook": ours, "script": script, "Capistrano": other}
        made.note("deploy", {way: Ran(0, seconds, 1.0, tmp_path / "log") for way, seconds in ran.items()})
    rows = {row[1]: row[2:5] for row in made.time_rows()[1:]}
    assert rows["playbook"] == ("7.0", "", "")
    assert rows["script"] == ("4.0", "1.75", "1.75")
    assert rows["Capistrano"] == ("5.0", "1.40", "1.3 missed")
