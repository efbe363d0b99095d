"""The app's processes: one generation of each, confined, told its settings in private, and brought up by one unit."""

from __future__ import annotations

import re
import time

import pytest


@pytest.fixture
def generation(live, ops):
    """The generation that serves, <release>.<n>."""
    return ops.status()["live"]["generation"]


def running(app1):
    listed = app1.check_output(
        "systemctl list-units --no-legend --plain --state=active 'gunicorn@*' 'celery-worker@*' 'celery-beat@*'"
    )
    return sorted(line.split()[0] for line in listed.splitlines())


def main_pid(app1, unit):
    return app1.check_output(f"systemctl show --property=MainPID --value {unit}").strip()


def until(seconds, condition, say):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, say()
        time.sleep(0.3)


def test_exactly_one_generation_of_each_process_runs(app1, generation):
    wanted = [f"{kind}@{generation}.service" for kind in ("celery-beat", "celery-worker", "gunicorn")]
    until(60, lambda: running(app1) == wanted, lambda: f"{running(app1)} is not {wanted}")
    assert running(app1) == wanted


def test_gunicorn_has_the_workers_and_threads_that_were_set(app1, generation):
    pid = main_pid(app1, f"gunicorn@{generation}")
    command = app1.check_output(f"tr '\\0' ' ' < /proc/{pid}/cmdline")
    assert "--workers 4 --threads 2" in command
    assert len(app1.check_output(f"pgrep -P {pid}").split()) == 4


@pytest.mark.parametrize("process", ["gunicorn", "celery-worker", "celery-beat"])
def test_a_process_has_no_power_over_the_host(app1, generation, process):
    pid = main_pid(app1, f"{process}@{generation}")
    status = dict(
        line.split(":", 1) for line in app1.check_output(f"cat /proc/{pid}/status").splitlines() if ":" in line
    )
    assert app1.user("app").uid == int(status["Uid"].split()[0])
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"
    inside = f"nsenter --target {pid} --mount -- runuser -u app --"
    for place in ("/opt/app/releases", "/etc", "/var/lib/app", "/usr/local", "/var/www/app/static"):
        assert app1.run(f"{inside} touch {place}/probe").rc != 0, place
    for secret in ("/etc/app/env/DATABASE_URL", "/run/slipway/env", "/var/lib/app/state.json", "/opt/app/incoming"):
        assert app1.run(f"{inside} ls {secret}/").rc != 0, secret
        assert app1.run(f"{inside} cat {secret}").rc != 0, secret


def test_the_sandbox_bites_as_root_too(app1, generation):
    """As root inside the process's mounts, so that file modes alone are not what holds."""
    pid = main_pid(app1, f"gunicorn@{generation}")
    run = app1.run(f"nsenter --target {pid} --mount -- touch /etc/probe")
    assert "Read-only file system" in run.stderr


def test_only_the_edge_reaches_the_socket(app1, generation):
    directory = app1.file(f"/run/app/{generation}")
    assert (directory.user, directory.group, directory.mode) == ("app", "app-edge", 0o750)
    assert app1.check_output("readlink -f /run/app/current.sock") == f"/run/app/{generation}/gunicorn.sock"
    probe = "python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect(\"/run/app/current.sock\")'"
    assert app1.run(f"runuser -u www-data -- {probe}").rc == 0
    for user in ("nobody", "app-build", "deployer"):
        assert "PermissionError" in app1.run(f"runuser -u {user} -- {probe}").stderr, user


def test_the_settings_are_told_in_private(app1, generation):
    told = app1.file(f"/run/slipway/env/{generation}")
    assert (told.user, told.group, told.mode) == ("root", "root", 0o600)
    secret = app1.file("/etc/app/env/DJANGO_SECRET_KEY").content_string.strip()
    assert len(secret) >= 16
    assert secret not in app1.check_output("ps axww -o args")
    assert secret not in app1.check_output(f"systemctl show gunicorn@{generation}.service")
    assert secret not in app1.check_output("journalctl -q -o cat --no-pager")
    pid = main_pid(app1, f"gunicorn@{generation}")
    assert f"DJANGO_SECRET_KEY={secret}" in app1.check_output(f"tr '\\0' '\\n' < /proc/{pid}/environ")
    assert app1.run(f"runuser -u deployer -- cat /proc/{pid}/environ").rc != 0


def test_the_worker_answers_and_does_work(app1, generation):
    release = generation.rpartition(".")[0]
    root = f"/opt/app/releases/{release}"
    run = app1.run(
        "systemd-run --quiet --wait --pipe --property=User=app"
        f" --property=EnvironmentFile=/run/slipway/env/{generation}"
        f" --property=WorkingDirectory={root}/src --setenv=DJANGO_SETTINGS_MODULE=config.settings"
        f" {root}/venv/bin/celery --app config inspect ping --timeout 10"
    )
    assert f"{generation}@" in run.stdout, run.stdout + run.stderr
    assert "pong" in run.stdout


def test_the_units_are_sound_and_the_app_starts_with_the_host(app1, generation):
    assert app1.check_output("systemctl is-enabled app.target app.service").split() == ["enabled", "enabled"]
    assert "app.target" in app1.check_output("systemctl list-dependencies --plain multi-user.target")
    run = app1.run(f"systemd-analyze verify app.target app.service gunicorn@{generation}.service")
    ours = [line for line in run.stderr.splitlines() if re.search(r"app\.(target|service)|gunicorn@|celery", line)]
    assert not ours


def test_one_unit_takes_everything_down_and_brings_it_up_again(app1, edge, generation, live):
    app1.check_output("systemctl stop app.service")
    assert running(app1) == []
    answer = edge.get("/readyz")
    assert answer.status == 503
    app1.check_output("systemctl start app.service")
    edge.wait(15, release=live)
    until(60, lambda: len(running(app1)) == 3, lambda: str(running(app1)))


@pytest.mark.parametrize("process", ["celery-worker", "celery-beat"])
def test_a_killed_process_comes_back(app1, ops, live, process):
    unit = f"{process}@{ops.status()['live']['generation']}"
    before = main_pid(app1, unit)
    app1.check_output(f"kill -9 {before}")
    until(30, lambda: main_pid(app1, unit) not in ("0", before), lambda: f"{unit} did not come back")
    assert main_pid(app1, unit) not in ("0", before)
