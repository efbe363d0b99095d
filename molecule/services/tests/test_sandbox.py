"""The sandbox of the app's units: how tight it is, that it bites, and that the app does all of its work in it."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.outside import https

ROOT = Path(__file__).resolve().parents[3]
PROCESSES = ("gunicorn", "celery-worker", "celery-beat")
# What systemd-analyze(1) calls the exposure: 0 is shut, 10 is open. The record 0016 says what is left and why.
MOST_EXPOSED = 1.5
TRIAL = "/opt/trial"
# What belongs to the process that a unit is for, and not to its sandbox.
OWN = re.compile(
    r"^(Type|NotifyAccess|Exec\w+|EnvironmentFile|RuntimeDirectory\w*|Restart\w*|KillMode|Timeout\w+|SyslogIdentifier)="
)


@pytest.fixture
def generation(live, ops):
    return ops.status()["live"]["generation"]


@pytest.fixture(scope="module")
def trial(lab, app1):
    """The bookshop with its tests, on the host: a release leaves them out."""
    container = lab["hosts"]["app1"]["container"]
    app1.check_output(f"mkdir -p {TRIAL}")
    subprocess.run(
        ["docker", "cp", f"{ROOT}/examples/bookshop", f"{container}:{TRIAL}/bookshop"], check=True, capture_output=True
    )
    yield f"{TRIAL}/bookshop"
    app1.check_output(f"rm -rf {TRIAL} /run/systemd/system/trial-*.service && systemctl daemon-reload")


@pytest.fixture
def inside(app1, generation, trial):
    """Run a command as a unit that is a process's own, but for what it starts."""

    def run(process: str, command: str) -> tuple[int, str]:
        text = app1.check_output(f"systemctl cat {process}@{generation}.service")
        # Drop-ins included; what a unit stands in relation to is in its other sections.
        sections = re.findall(r"^\[(\w+)\]\n(.*?)(?=^\[\w+\]$|\Z)", text, re.MULTILINE | re.DOTALL)
        lines = [line for name, body in sections if name == "Service" for line in body.splitlines()]
        service = [line for line in lines if not OWN.match(line)]
        python = f"/opt/app/releases/{generation.rpartition('.')[0]}/venv/bin/python"
        unit = "\n".join(
            [
                "[Service]", "Type=oneshot", *service, f"WorkingDirectory={trial}", "Environment=HOME=/tmp",
                "Environment=PYTHONDONTWRITEBYTECODE=1 PATH=/usr/bin:/bin", f"ExecStart={python} {command}",
            ]
        )  # fmt: skip
        name = f"trial-{process}"
        app1.check_output(f"cat > /run/systemd/system/{name}.service <<'END'\n{unit}\nEND")
        begun = app1.check_output("date +%s")
        code = app1.run(f"systemctl daemon-reload && systemctl start {name}").rc
        app1.check_output("journalctl --sync")
        return code, app1.check_output(f"journalctl -u {name} -o cat --no-pager --since @{begun}")

    return run


@pytest.mark.parametrize("unit", ["app", *(f"{process}@{{}}" for process in PROCESSES)])
def test_a_unit_is_hardly_exposed(app1, generation, unit):
    said = app1.check_output(f"systemd-analyze security --no-pager {unit.format(generation)}.service")
    level = re.search(r"exposure level for \S+: ([0-9.]+)", said)
    assert level, said
    assert float(level[1]) <= MOST_EXPOSED, said


@pytest.mark.parametrize("process", ["gunicorn", "celery-worker"])
def test_the_apps_own_tests_pass_in_it(inside, process):
    code, output = inside(process, "manage.py test --settings config.settings_test")
    ran = re.search(r"^Ran (\d+) tests", output, re.MULTILINE)
    assert ran, output
    assert (code, int(ran[1]) >= 28) == (0, True), output
    assert re.search(r"^OK$", output, re.MULTILINE), output


@pytest.mark.parametrize(
    ("attempt", "refusal"),
    [
        # Memory that is written and then run.
        ("import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)", "PermissionError"),
        # A user namespace, in which it would be root.
        ("import ctypes; exit(ctypes.CDLL(None).unshare(0x10000000) and 'refused')", "refused"),
        ("import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)", "Address family not supported"),
        ("open('/proc/meminfo')", "FileNotFoundError"),
        ("import os; os.kill(1, 0)", "PermissionError"),
        ("import os; os.listdir('/proc/1')", "FileNotFoundError"),
        ("import os; os.setpriority(os.PRIO_PROCESS, 0, 5)", "PermissionError"),
        ("import os; os.chmod('/tmp', 0o4777)", "PermissionError"),
    ],
)  # fmt: skip
def test_it_bites(inside, attempt, refusal):
    code, output = inside("celery-worker", f'-c "{attempt}"')
    assert code != 0, output
    assert refusal in output


def test_only_the_data_services_can_be_reached(inside, lab, live):
    """By address, whatever the firewall says; the lab names data1 in services_ip_allow."""
    connect = "-c \"import socket; socket.create_connection(('{}', {}), 5)\""
    code, output = inside("gunicorn", connect.format(lab["hosts"]["data1"]["ipv4"], 5432))
    assert code == 0, output
    # The host's own edge, which everybody else reaches: what is sent there is dropped on the way.
    assert https(lab, "/").status == 200
    code, output = inside("gunicorn", connect.format(lab["hosts"]["app1"]["ipv4"], 443))
    assert code != 0
    assert re.search("PermissionError|TimeoutError", output), output


def test_an_order_goes_all_the_way(lab, live, data1):
    """Page, API, database, queue, worker, database again: with every process in its sandbox."""
    assert https(lab, "/").status == 200
    books = https(lab, "/api/books/").json()["books"]
    order = json.dumps({"book": books[0]["id"], "quantity": 1, "email": "reader@example.org"}).encode()
    answer = https(lab, "/api/orders/", "POST", order, {"Content-Type": "application/json"})
    assert answer.status == 201, answer.body
    number = int(answer.json()["id"])
    query = f"select confirmed_at is not null from bookshop_order where id = {number}"  # noqa: S608
    end = time.monotonic() + 30
    while (said := data1.check_output(f'runuser -u postgres -- psql -At app -c "{query}"')) != "t":
        assert time.monotonic() < end, f"the worker did not confirm the order ({said})"
        time.sleep(0.5)
    assert https(lab, "/admin/login/").status == 200


def test_an_exception_comes_last_with_its_reason(ops):
    exception = {"process": "gunicorn", "directive": "MemoryDenyWriteExecute=no", "reason": "a compiler in the app"}
    run = ops.playbook(
        "playbooks/site.yml", "--tags", "services", "--limit", "app1", "--check", "--diff",
        "-e", json.dumps({"services_sandbox_exceptions": [exception]}),
    )  # fmt: skip
    assert run.code == 0, run.output
    added = [line for line in run.output.splitlines() if line.startswith("+") and not line.startswith("+++")]
    assert added == ["+# a compiler in the app", "+MemoryDenyWriteExecute=no"]
