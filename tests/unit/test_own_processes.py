"""app_extra_processes and app_timers: which units they make, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.filter.processes import own_processes, process_files, process_problems

HUEY = {"name": "huey", "command": ["python", "manage.py", "run_huey"], "stop_signal": "SIGINT"}
BOT = {"name": "bot", "command": ["python", "-m", "bot"], "single": True, "stop_timeout": 20}
REPORT = {"name": "report", "command": ["python", "manage.py", "report"], "calendar": "*-*-* 03:00:00"}


def test_workers_are_on_each_host_that_works_and_the_rest_once() -> None:
    def units(*groups: str) -> list[str]:
        return [process["unit"] for process in own_processes([HUEY, BOT], [REPORT], groups)]

    assert units("app") == []
    assert units("app", "worker") == ["app-huey"]
    assert units("scheduler") == ["app-bot", "app-job-report"]


def test_a_job_has_a_timer_and_what_it_starts() -> None:
    found = process_files(own_processes([HUEY], [REPORT], ["worker", "scheduler"]))
    assert [file["dest"].rpartition("/")[2] for file in found] == [
        "app-huey@.service", "app-job-report@.service", "app-job-report.service", "app-job-report.timer",
    ]  # fmt: skip


def test_what_is_right_is_no_problem() -> None:
    assert process_problems([HUEY, BOT], [REPORT]) == []


@pytest.mark.parametrize(
    ("extra", "timers", "said"),
    [
        ("huey", [], "app_extra_processes is no list"),
        (["huey"], [], "Entry 1 of app_extra_processes is no mapping"),
        ([{**HUEY, "name": "Huey"}], [], "Huey is no name of a process"),
        ([{**HUEY, "name": "job-x"}], [], "not with job-"),
        ([HUEY, HUEY], [], "huey is there twice"),
        ([{**HUEY, "command": "python manage.py"}], [], "huey has no command: a list of words"),
        ([{**HUEY, "command": ["a\nb"]}], [], "control character"),
        ([{**HUEY, "calender": "hourly"}], [], "huey has calender, which is not known"),
        ([{**HUEY, "stop_signal": "TERM"}], [], "stop_signal that is none of SIGTERM"),
        ([{**HUEY, "stop_timeout": 0}], [], "stop_timeout that is no number"),
        ([{**HUEY, "single": "maybe"}], [], "neither true nor false"),
        ([], [{**REPORT, "calendar": ""}], "report has no calendar"),
        ([], [{**REPORT, "calendar": "daily\nOnBootSec=1"}], "report has no calendar"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_where(extra: Any, timers: Any, said: str) -> None:
    (problem,) = process_problems(extra, timers)
    assert said in problem
    assert "group_vars/<environment>/main.yml" in problem
