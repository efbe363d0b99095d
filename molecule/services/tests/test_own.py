"""What an app runs of its own: a worker, a single and a job, over a switch and until they are gone."""

from __future__ import annotations

import json
import time

import pytest

SLEEP = ["python", "-c", "import time; time.sleep(10**6)"]
PROCESSES = [
    {"name": "probe", "command": SLEEP, "stop_timeout": 5},
    {"name": "lonely", "command": SLEEP, "single": True, "stop_timeout": 5},
]
# It says where it is and with what, and takes longer than a switch.
JOB = [
    {
        "name": "tell",
        "command": [
            "sh",
            "-c",
            "python manage.py diffsettings >/dev/null && echo told by $RELEASE_GENERATION; sleep 25",
        ],
        "calendar": "2099-01-01",
    }
]
UNITS = "'app-probe@*' 'app-lonely@*' 'app-job-tell@*'"


@pytest.fixture(scope="module")
def apply(ops):
    def site(extra, timers):
        run = ops.playbook(
            "playbooks/site.yml", "--tags", "services,release", "--limit", "app1",
            "-e", json.dumps({"app_extra_processes": extra, "app_timers": timers}),
        )  # fmt: skip
        assert run.code == 0, run.output

    return site


def running(app1):
    listed = app1.check_output(f"systemctl list-units --no-legend --plain --state=active,activating {UNITS}")
    return sorted(line.split()[0] for line in listed.splitlines())


def until(app1, wanted):
    end = time.monotonic() + 60
    while (found := running(app1)) != wanted:
        assert time.monotonic() < end, f"{found} is not {wanted}"
        time.sleep(0.5)


@pytest.mark.full
def test_they_come_move_and_go_with_generations(app1, ops, live, apply):
    apply(PROCESSES, JOB)
    try:
        first = ops.status()["live"]["generation"]
        until(app1, [f"app-lonely@{first}.service", f"app-probe@{first}.service"])
        user = app1.check_output(f"systemctl show --property=User --value app-probe@{first}")
        assert user == "app"
        app1.check_output("systemctl start --no-block app-job-tell.service")
        until(app1, [f"app-job-tell@{first}.service", f"app-lonely@{first}.service", f"app-probe@{first}.service"])

        assert app1.run("releasectl restart").rc == 0
        second = ops.status()["live"]["generation"]
        assert second != first
        # The job goes on in the generation that it began in, the others are the new one's.
        until(app1, [f"app-job-tell@{first}.service", f"app-lonely@{second}.service", f"app-probe@{second}.service"])
        until(app1, [f"app-lonely@{second}.service", f"app-probe@{second}.service"])
        app1.check_output("journalctl --sync")
        said = app1.check_output(f"journalctl -o cat --no-pager -u app-job-tell@{first}")
        assert f"told by {first}" in said
        assert ops.status()["drift"] == []
    finally:
        apply([], [])
    until(app1, [])
    assert app1.run("ls /etc/systemd/system/app-*@.service /etc/systemd/system/app-job-*").rc != 0
