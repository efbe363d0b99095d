"""tests/run.py and tests/tally.py: what counts as passed, and what does not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import run
from tests.tally import tally, told

PASSED = '<testcase classname="c" name="good"/>'
FAILED = '<testcase classname="c" name="bad"><failure message="no"/></testcase>'
BROKEN = '<testcase classname="c" name="broken"><error message="no"/></testcase>'
SKIPPED = '<testcase classname="c" name="later"><skipped/></testcase>'
RECAP = "  │ app1                       : ok=3    changed=0    unreachable=0    failed=0\n"


def converged(recap: str) -> str:
    return f"INFO     [s > converge] Executing\n{recap}INFO     [s > converge] Executed: Successful\n"


def report(path: Path, *cases: str) -> Path:
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return path


def test_the_tally_is_of_the_cases(tmp_path: Path) -> None:
    found = tally([report(tmp_path / "a.xml", PASSED, FAILED, BROKEN, SKIPPED), report(tmp_path / "b.xml", PASSED)])
    assert (found.passed, found.skipped) == (2, 1)
    assert found.failed == ["a: c::bad", "a: c::broken"]


def test_numbers_that_tests_tell_are_passed_on(tmp_path: Path) -> None:
    said = '<property name="told" value="3 lost"/><property name="x" value="y"/>'
    case = f'<testcase name="t"><properties>{said}</properties></testcase>'
    assert told([report(tmp_path / "fleet.xml", case, PASSED)]) == ["fleet: 3 lost"]


@pytest.mark.parametrize(
    ("log", "cases", "verdict"),
    [
        (converged(RECAP), [PASSED], ""),
        (
            converged(RECAP.replace("changed=0", "changed=1")),
            [PASSED],
            "to apply its roles again was to change something: {'app1': 1}",
        ),
        ("INFO     [s > verify] Executing\n", [PASSED], ""),
        (converged("skipping: no hosts matched\n"), [PASSED], "it ran on no host"),
        (converged(RECAP.replace("ok=3", "ok=0")), [PASSED], "it ran on no host"),
        (converged(RECAP), [], "it asserted nothing"),
        (converged(RECAP), [SKIPPED], "it asserted nothing"),
        (converged(RECAP), None, "it asserted nothing"),
    ],
)
def test_a_green_scenario_that_did_nothing_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, cases: list[str] | None, verdict: str
) -> None:
    monkeypatch.setattr(run, "REPORTS", tmp_path)
    (tmp_path / "s.log").write_text(log)
    if cases is not None:
        report(tmp_path / "s.xml", *cases)
    assert run.judge("s", tmp_path / "s.log") == verdict


def test_a_scenario_that_sets_hosts_up_is_a_failure_when_it_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "REPORTS", tmp_path)
    (tmp_path / "site.log").write_text("INFO     [site > verify] Executing\n")
    report(tmp_path / "site.xml", PASSED)
    assert run.judge("site", tmp_path / "site.log") == "it ran on no host"


def test_a_step_that_fails_is_a_failed_case_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "REPORTS", tmp_path)
    record = run.Record()
    run.step(record, "good", lambda _: "")
    run.step(record, "bad", lambda _: "molecule ended with 2")
    found = tally([tmp_path / "run.xml"])
    assert (found.passed, found.failed) == (1, ["run: run::bad"])


def test_a_command_that_takes_too_long_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PATIENCE", 1)
    child = tmp_path / "child"
    code = run.Commands().run(["sh", "-c", f"sleep 600 & echo $! > {child}; wait"], tmp_path / "log", {})
    assert code == 124
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and alive(int(child.read_text())):
        time.sleep(0.05)
    assert not alive(int(child.read_text()))


def alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_those_that_were_left_out_are_counted(tmp_path: Path) -> None:
    (tmp_path / "nginx.log").write_text(
        "collected 76 items / 3 deselected / 73 selected\n== 73 passed, 3 deselected in 9s ==\n"
    )
    (tmp_path / "crash.log").write_text("=== 1 failed, 7 passed, 5 deselected in 20.10s ===\n")
    (tmp_path / "tls.log").write_text("=== 10 passed in 2.00s ===\n")
    assert run.left_out(tmp_path.glob("*.log")) == 8


def test_what_is_long_is_done_with_the_long_tests_or_when_it_is_named() -> None:
    assert set(run.LONG) < set(run.scenarios())
    assert [lane.scenarios for lane in run.lanes(["first-host"])] == [["first-host"]]


def test_an_unknown_scenario_is_refused_with_those_that_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "tests/run.py", "no-such"], cwd=run.ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "SLIPWAY_LAB": "unit"},
    )  # fmt: skip
    assert done.returncode == 2
    assert "no scenario no-such; there are " in done.stderr
