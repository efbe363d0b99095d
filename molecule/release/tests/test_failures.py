"""What goes wrong beside a release: the release that serves goes on. Rows of docs/ops/failures.md, by their names.

Most of it is shown by a restart: it starts a new generation by the same switch as a deploy, and is over in seconds."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab import cargo as packing
from molecule.conftest import LAB

TABLE = "bookshop_author"


@pytest.fixture(scope="module", autouse=True)
def before(ops: Any, edge: Any, cargo: dict[str, Any]) -> Iterator[str]:
    """What serves before, and again after."""
    release = ops.have_live(edge, cargo["good-1"])
    yield release
    edge.wait(30, release=release)
    assert ops.status()["drift"] == []


@pytest.fixture
def refused(ops: Any, edge: Any, before: str) -> Callable[..., str]:
    """Try a verb that has to be refused, while what was live goes on serving as the same generation."""

    def attempt(*words: str) -> str:
        live = ops.status()["live"]
        answer = ops.releasectl(*(words or ("restart",)))
        assert answer["ok"] is False, answer
        assert ops.status()["live"] == live
        assert ops.status()["intent"] is None
        return str(answer["message"])

    return attempt


@pytest.fixture
def next_generation(app1: Any, ops: Any) -> Iterator[Callable[..., str]]:
    """Bound a process of the generation that the next verb will start, and of no other."""
    places = []

    def bound(text: str, process: str = "gunicorn") -> str:
        state = json.loads(app1.check_output("cat /var/lib/app/state.json"))
        unit = f"{process}@{state['live']['release']}.{state['counter'] + 1}.service"
        places.append(f"/run/systemd/system/{unit}.d")
        app1.check_output(f"mkdir -p {places[-1]} && printf '[Service]\\n{text}\\n' > {places[-1]}/test.conf")
        app1.check_output("systemctl daemon-reload")
        return unit

    yield bound
    app1.check_output(f"rm -r {' '.join(places)}; systemctl daemon-reload")


@contextmanager
def stopped(host: Any, unit: str) -> Iterator[None]:
    host.check_output(f"systemctl stop {unit}")
    try:
        yield
    finally:
        host.check_output(f"systemctl start {unit}")


@pytest.mark.failure("out-of-memory")
def test_a_new_instance_that_the_kernel_ends_for_its_memory_is_refused(
    refused: Any, next_generation: Any, edge: Any, before: str, app1: Any
) -> None:
    unit = next_generation("MemoryMax=24M\\nMemorySwapMax=0")
    message = refused()
    assert "did not start" in message or "failed its health gate" in message
    assert app1.run(f"systemctl is-active {unit}").rc != 0
    assert edge.get("/").release == before


@pytest.mark.failure("worker-fails")
def test_a_worker_that_cannot_load_the_app_is_refused_before_the_web_is_switched(
    refused: Any, next_generation: Any, edge: Any, before: str, app1: Any
) -> None:
    working = app1.check_output("systemctl list-units --plain --no-legend --state=active 'celery-worker@*'").split()[0]
    # It is there for a second, and then it is not.
    script = "sleep 1; echo ModuleNotFoundError: No module named cutlery; exit 1"
    next_generation(f'ExecStart=\\nExecStart=/bin/sh -c "{script}"\\nRestart=no', "celery-worker")
    message = refused()
    assert f"The Celery worker of {before} did not start: ModuleNotFoundError: No module named cutlery" in message
    assert app1.check_output(f"systemctl is-active {working}") == "active"
    assert edge.get("/").release == before


@pytest.mark.failure("database-away")
def test_while_the_database_is_away_nothing_new_goes_live(refused: Any, configured: Any, data1: Any, edge: Any) -> None:
    configured(health_timeout=6)
    with stopped(data1, "postgresql"):
        assert "/readyz" in refused()
        assert "Applied: none" in refused("migrate")
        assert edge.get("/healthz").status == 200, "the one that serves is still there"
    edge.wait(30)


@pytest.mark.failure("broker-away")
def test_while_the_broker_is_away_nothing_new_goes_live(refused: Any, configured: Any, data1: Any, edge: Any) -> None:
    configured(health_timeout=6)
    with stopped(data1, "redis-server"):
        assert "/readyz" in refused()
        assert edge.get("/healthz").status == 200, "the one that serves is still there"
    edge.wait(30)


@pytest.fixture(scope="module")
def stuck(lab: dict[str, Any], ops: Any, app1: Any, before: str) -> Iterator[str]:
    """A prepared release whose second migration never ends."""
    made = packing.variants(["stuck-6"], LAB)["stuck-6"]
    name = made["artifact"].rpartition("/")[2]
    with Path(made["artifact"]).open("rb") as stream:
        ssh = ["ssh", "-F", lab["ssh_config"], "deployer@app1", f"cat > /opt/app/incoming/{name}"]
        subprocess.run(ssh, stdin=stream, check=True, timeout=120)
    answer = ops.releasectl("prepare", "--id", made["id"], "--artifact", name, "--sha256", made["sha256"])
    assert answer["ok"], answer
    yield made["id"]
    back = ["--id", made["id"], "--app=bookshop", "--migration=0002_first_books"]
    assert ops.releasectl("migrate", *back)["ok"]
    assert ops.releasectl("discard", "--id", made["id"])["ok"]
    app1.check_output(f"rm -f /opt/app/incoming/{name}")


@pytest.mark.failure("migration-waits")
def test_a_migration_that_waits_for_a_table_gives_up_and_changes_nothing(
    stuck: str, refused: Any, configured: Any, data1: Any, edge: Any, before: str
) -> None:
    configured(migrate_lock_timeout=2)
    hold = f"BEGIN; LOCK TABLE {TABLE} IN ACCESS SHARE MODE; SELECT pg_sleep(40)"
    sql = f"runuser -u postgres -- psql -q -d app -c '{hold}'"
    data1.check_output(f"systemd-run -q --unit=holds-a-table {sql}")
    try:
        message = refused("migrate", "--id", stuck, "--maintenance=closed")
        assert edge.get("/").release == before
    finally:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'"
        data1.check_output(f'runuser -u postgres -- psql -q -d app -c "{ended}"')
    for words in ("Applied: none", "Failed: bookshop.0003_pen", "release_migrate_lock_timeout", "rolled back"):
        assert words in message


@pytest.mark.failure("migration-hangs")
def test_a_migration_that_hangs_is_ended_and_says_what_is_applied(
    stuck: str, refused: Any, configured: Any, edge: Any, before: str
) -> None:
    configured(migrate_statement_timeout=2)
    message = refused("migrate", "--id", stuck)
    for words in ("Applied: bookshop.0003_pen", "Failed: bookshop.0004_sleeps", "release_migrate_statement_timeout"):
        assert words in message
    assert edge.get("/").release == before


@pytest.mark.failure("controller-killed")
def test_a_deploy_whose_controller_died_is_named_and_its_lease_can_be_taken(ops: Any, edge: Any, before: str) -> None:
    lease = ops.releasectl("lock", "--purpose", "'deploy of x'", "--seconds=10", "--actor", "'a controller'")
    assert lease["ok"], lease
    assert "a controller" in ops.releasectl("prune")["message"]
    assert ops.releasectl("unlock", "--force")["ok"]
    assert ops.releasectl("prune")["ok"]
    assert edge.get("/").release == before


@pytest.mark.failure("crash-after-switch")
@pytest.mark.full
def test_a_release_that_crashes_ten_seconds_after_the_switch_goes_back(
    app1: Any, ops: Any, edge: Any, cargo: dict[str, Any], before: str
) -> None:
    other = next(cargo[name] for name in ("good-2", "good-3") if cargo[name]["id"] != before)
    crashed = []

    def crash() -> None:
        edge.wait(240, path="/", release=other["id"])
        time.sleep(10)
        main = f"systemctl show -p MainPID --value gunicorn@{other['id']}.*"
        crashed.append(app1.check_output(f"kill -9 $({main})"))

    thread = threading.Thread(target=crash)
    thread.start()
    run = ops.deploy(other["artifact"], "-e", "release_watch_seconds=120")
    thread.join(10)
    assert crashed, "nothing crashed, so this shows nothing"
    assert run.code != 0
    assert f"{other['id']} was live for 1" in run.closing
    assert f"app1 went back to {before}." in run.closing
    assert edge.get("/").release == before
    assert ops.releasectl("discard", f"--id={other['id']}")["ok"]


@pytest.mark.failure("ignores-sigterm")
@pytest.mark.full
def test_a_release_that_does_not_stop_is_ended_and_keeps_nobody_waiting(app1: Any, ops: Any, edge: Any) -> None:
    old = ops.status()["live"]["generation"]
    unit = f"gunicorn@{old}.service"
    app1.check_output(f"systemctl kill --signal=STOP --kill-who=all {unit}")
    begun = time.monotonic()
    answer = ops.releasectl("restart")
    assert answer["ok"], answer
    assert time.monotonic() - begun < 60, "the switch waited for it"
    assert edge.get("/").status == 200
    while app1.run(f"systemctl is-active {unit}").stdout.strip() in ("active", "deactivating"):
        assert time.monotonic() - begun < 180, "it was never ended"
        time.sleep(2)
    assert ops.status()["drift"] == []


@pytest.mark.failure("long-requests")
@pytest.mark.full
def test_thirty_seconds_in_flight_are_finished_by_the_release_that_began_them(ops: Any, edge: Any) -> None:
    answers = []

    def ask() -> None:
        answers.append(edge.get("/slow?seconds=30", timeout=60))

    threads = [threading.Thread(target=ask) for _request in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    answer = ops.releasectl("restart")
    assert answer["ok"], answer
    assert not answers, "they were answered before the switch, so this shows nothing"
    for thread in threads:
        thread.join(60)
    assert [(answer.status, answer.text) for answer in answers] == [(200, "took 30 s\n")] * 3


@pytest.mark.failure("open-streams")
@pytest.mark.full
def test_an_open_stream_goes_on_over_a_switch_and_ends_when_the_old_release_is_told_to(
    ops: Any, edge: Any, configured: Any, before: str
) -> None:
    ticking = packing.variants(["ticking-5"], LAB)["ticking-5"]
    run = ops.deploy(ticking["artifact"])
    assert run.code == 0, run.output
    seen: list[float] = []
    ended = threading.Event()

    def listen() -> None:
        connection = http.client.HTTPSConnection(edge.name, timeout=30, context=edge.trust)
        plain = socket.create_connection((edge.address, 443), 30)
        connection.sock = edge.trust.wrap_socket(plain, server_hostname=edge.name)
        connection.request("GET", "/ticks")
        stream = connection.getresponse()
        try:
            while stream.read1(200):
                seen.append(time.monotonic())
        except (OSError, http.client.HTTPException):
            pass
        ended.set()

    try:
        configured(drain_timeout=10)
        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        while len(seen) < 3:
            time.sleep(0.2)
        assert ops.releasectl("restart")["ok"]
        switched = time.monotonic()
        assert ended.wait(120), "it was never told to end"
        assert seen[-1] > switched + 5, "it was cut by the switch"
        assert edge.get("/").status == 200
    finally:
        assert ops.rollback(before).code == 0


def test_a_boot_carries_a_switch_to_its_end_that_was_cut_behind_its_link(
    ops: Any, edge: Any, app1: Any, before: str
) -> None:
    """In the sandbox of app.service, with what is left to such a generation: the low priority of one that is tried."""
    state = json.loads(app1.check_output("cat /var/lib/app/state.json"))
    live = state["live"]
    intent = {
        "verb": "rollback", "release": live["release"], "number": live["number"] + 1, "settings": live["settings"],
        "started": live["since"], "actor": "nobody", "previous": state["previous"], "setup": live["setup"],
    }  # fmt: skip
    # Another release was live until then, and is not running any more.
    told = json.dumps({**state, "counter": live["number"] + 1, "live": {**live, "release": "gone"}, "intent": intent})
    app1.check_output("systemctl stop app.service")
    app1.check_output(f"printf %s '{told}' >/var/lib/app/state.json")
    app1.check_output("systemctl start app.service")
    edge.wait(30, release=before)
    assert ops.status()["live"]["generation"] == f"{before}.{live['number'] + 1}"
    assert set(app1.check_output("ps -C gunicorn -L -o ni=").split()) == {"0"}
