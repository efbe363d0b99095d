"""New settings reach a host that serves: tried, in force, or taken back; and a release says which it needs.

The tests tell one story and run in their order: each leaves the host as the next expects it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import cargo as packing
from molecule.conftest import LAB
from tests.asking import Watch

CANARY = "canary-3b5d-do-not-show"
# What a shell, a service manager or an envdir could take for something else.
AWKWARD = {
    "AWKWARD_LINES": "first\nsecond\n\nlast",
    "AWKWARD_END": "ends with a newline\n",
    "AWKWARD_EQUALS": "=a==b=",
    "AWKWARD_QUOTES": "'single' \"double\" `back`",
    "AWKWARD_DOLLAR": "$HOME ${PATH} $$ $(id) %h %%",
    "AWKWARD_SLASHES": '\\ \\n \\\\ \\" end\\',
    "AWKWARD_UNICODE": "Grüße, Ελλάδα, 書店, \U0001f4da, e\u0301",
    "AWKWARD_BLANKS": "  two before,\ttab; # no remark ! & | < > * ?",
    "AWKWARD_EMPTY": "",
    "AWKWARD_LONG": "".join(chr(33 + n % 94) for n in range(64 * 1024)),
}
Settings = Callable[..., Any]


@pytest.fixture(scope="module")
def serving(ops: Any, edge: Any, cargo: Any) -> str:
    release: str = ops.have_live(edge, cargo["good-1"])
    return release


@pytest.fixture
def settings(ops: Any, serving: str, tmp_path: Path) -> Settings:
    """Run settings.yml with some settings more than the lab's own."""

    def run(more: dict[str, Any], *words: str) -> Any:
        (tmp_path / "more.json").write_text(
            json.dumps(
                {
                    "more": more,
                    "envdir_settings": (
                        "{{ app_settings_schema | settings_defaults | combine(app_settings, app_secrets, more) }}"
                    ),
                }
            )
        )
        return ops.playbook("playbooks/settings.yml", "-e", f"@{tmp_path / 'more.json'}", *words)

    return run


@pytest.fixture(scope="module", autouse=True)
def as_before(ops: Any, serving: str) -> Iterator[None]:
    """Afterwards the settings are the lab's own."""
    yield
    run = ops.playbook("playbooks/settings.yml")
    assert run.code == 0, run.output


def hexed(app1: Any, path: str) -> bytes:
    """The bytes of a file on the host."""
    return bytes.fromhex(app1.check_output(f"od -An -v -tx1 {path} | tr -d ' \\n'"))


def test_each_value_arrives_byte_for_byte(app1: Any, ops: Any, settings: Settings) -> None:
    run = settings(AWKWARD)
    assert run.code == 0, run.output
    generation = ops.status()["live"]["generation"]
    for unit in ("gunicorn", "celery-worker", "celery-beat"):
        pid = app1.check_output(f"systemctl show --property=MainPID --value {unit}@{generation}.service")
        entries = hexed(app1, f"/proc/{pid}/environ").split(b"\0")
        found = dict(entry.split(b"=", 1) for entry in entries if entry)
        assert {name: found.get(name.encode()) for name in AWKWARD} == {k: v.encode() for k, v in AWKWARD.items()}, unit


def test_a_name_that_is_not_set_any_more_is_gone_from_the_next_generation(
    app1: Any, ops: Any, settings: Settings
) -> None:
    run = settings({"AWKWARD_EQUALS": "=a==b="})
    assert run.code == 0, run.output
    generation = ops.status()["live"]["generation"]
    pid = app1.check_output(f"systemctl show --property=MainPID --value gunicorn@{generation}.service")
    names = {entry.split(b"=", 1)[0] for entry in hexed(app1, f"/proc/{pid}/environ").split(b"\0")}
    assert {name for name in names if name.startswith(b"AWKWARD_")} == {b"AWKWARD_EQUALS"}


def test_a_change_is_in_force_without_a_lost_request_and_a_second_run_changes_nothing(
    app1: Any, ops: Any, edge: Any, settings: Settings, serving: str
) -> None:
    before = ops.status()
    words = f"Ahoy at {time.time()}"
    would = settings({"GREETING": words, "SECRET": CANARY}, "--check", "--diff")
    assert would.code == 0, would.output
    for line in ("+GREETING", "+SECRET", "-AWKWARD_EQUALS"):
        assert line in would.output.splitlines()
    assert "Settings would change. app1: added GREETING, SECRET; removed AWKWARD_EQUALS." in would.closing
    assert words not in would.output
    assert ops.status()["settings_current"] == before["settings_current"]
    assert ops.status()["settings_waiting"] is None

    with Watch(edge) as watch:
        run = settings({"GREETING": words, "SECRET": CANARY}, "--diff", "-v")
    assert run.code == 0, run.output
    assert watch.failures == []
    assert watch.asked > 20
    assert "New settings are in force. app1: added GREETING, SECRET; removed AWKWARD_EQUALS." in run.closing
    assert f"{serving} was restarted with them on app1." in run.closing
    assert CANARY not in run.output
    assert words not in run.output
    assert words in edge.get("/").text
    after = ops.status()
    assert after["live"]["release"] == serving
    assert after["live"]["generation"] != before["live"]["generation"]
    assert after["live"]["settings"] == after["settings_current"] == app1.check_output("readlink /etc/app/env")
    assert after["fingerprint"] != before["fingerprint"]
    assert after["drift"] == []
    event = ops.releasectl("history", "--limit=1")["events"][0]
    assert (event["verb"], event["outcome"]) == ("settings", "ok")
    assert event["settings"]["fingerprint"] == after["fingerprint"]
    assert event["actor"].startswith("ops (")
    assert app1.run("grep -rqe " + CANARY + " /var/log/app /var/lib/app").rc == 1
    assert app1.run("journalctl -q --since -3min -o cat --no-pager | grep -qe " + CANARY).rc == 1

    again = settings({"GREETING": words, "SECRET": CANARY})
    assert again.code == 0, again.output
    assert "The settings are in force on app1 already, nothing was changed." in again.closing
    assert ops.status()["live"]["generation"] == after["live"]["generation"]
    store = app1.check_output("find /etc/app/env.* -printf '%m %u %g\\n' | sort -u").splitlines()
    assert store == ["600 root root", "700 root root"]
    assert app1.file("/etc/app/fingerprint.key").mode == 0o600


BAD = "{{ app_settings.DATABASE_URL | regex_replace('//app:[^@]+@', '//app:" + CANARY + "@') }}"


@pytest.mark.failure("bad-setting")
def test_a_bad_value_leaves_the_old_one_serving_and_in_force(
    app1: Any, ops: Any, edge: Any, settings: Settings, serving: str, cargo: Any
) -> None:
    before = ops.status()
    with Watch(edge) as watch:
        run = settings({"DATABASE_URL": BAD, "GREETING": "never seen"})
    assert run.code != 0
    assert watch.failures == []
    assert "The settings were not changed." in run.closing
    assert "was taken back (changed DATABASE_URL, GREETING; removed SECRET), since" in run.closing
    assert "failed its health gate" in run.closing
    assert f"{before['settings_current']} stays in force, and {serving} serves with it." in run.closing
    assert CANARY not in run.output
    after = ops.status()
    for key in ("live", "settings_current", "fingerprint", "drift"):
        assert after[key] == before[key], key
    assert after["settings_waiting"] is None
    assert after["lease"] is None
    assert ops.releasectl("history", "--limit=1")["events"][0]["outcome"] == "failed"
    assert "never seen" not in edge.get("/").text
    # What starts next has what is in force, not what was refused.
    other = cargo["good-2"] if serving != cargo["good-2"]["id"] else cargo["good-1"]
    deployed = ops.deploy(other["artifact"])
    assert deployed.code == 0, deployed.output
    assert ops.status()["live"]["settings"] == before["settings_current"]
    assert ops.rollback(serving).code == 0
    assert app1.check_output("readlink /etc/app/env") == before["settings_current"]


def test_site_yml_takes_a_bad_value_back_as_well(ops: Any, edge: Any, serving: str, tmp_path: Path) -> None:
    before = ops.status()
    bad = tmp_path / "bad.json"
    bad.write_text(
        json.dumps({"envdir_settings": "{{ app_settings | combine(app_secrets, {'DATABASE_URL': bad}) }}", "bad": BAD})
    )
    run = ops.playbook("playbooks/site.yml", "--tags", "envdir,release", "-e", f"@{bad}")
    assert run.code != 0
    assert "was taken back (changed DATABASE_URL" in run.output
    assert ops.status()["settings_current"] == before["settings_current"]
    assert edge.get("/").release == serving


def test_it_can_be_taken_back_by_hand(ops: Any, edge: Any, settings: Settings) -> None:
    before = ops.status()["settings_current"]
    assert settings({"GREETING": "For a moment"}).code == 0
    new = ops.status()["settings_current"]
    assert "For a moment" in edge.get("/").text
    answer = ops.releasectl("settings", f"--take-back={new}")
    assert answer["ok"], answer
    assert ops.status()["live"]["settings"] == ops.status()["settings_current"] == before
    assert "For a moment" not in edge.get("/").text


def test_while_somebody_deploys_nothing_is_delivered(ops: Any, settings: Settings) -> None:
    lease = ops.releasectl("lock", "--purpose", "'deploy of something-else'", "--actor", "'ada on her laptop'")
    try:
        run = settings({"GREETING": "too early"})
    finally:
        assert ops.releasectl("unlock", f"--token={lease['token']}")["ok"]
    assert run.code != 0
    assert "ada on her laptop" in run.closing
    assert ops.status()["settings_waiting"] is None


def _until(ops: Any, seconds: float = 120) -> dict[str, Any]:
    """What the host says once no verb runs there any more."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            # A verb that only looks at the lease waits for none that runs.
            answer = ops.releasectl("unlock", "--force")
        except (IndexError, json.JSONDecodeError, subprocess.TimeoutExpired):
            answer = {}
        if answer.get("ok"):
            status: dict[str, Any] = ops.status()
            return status
        time.sleep(0.5)
    pytest.fail(f"after {seconds} s the host still does something")


@pytest.mark.failure("settings-interrupted")
@pytest.mark.parametrize("task", ["Install the settings of the app", "Put them in force once"])
@pytest.mark.parametrize("what", ["controller", "host"])
def test_a_change_that_is_interrupted_is_the_old_or_the_new_one_and_the_next_run_finishes_it(
    lab: dict[str, Any], ops: Any, edge: Any, settings: Settings, serving: str, tmp_path: Path, what: str, task: str
) -> None:
    words = f"After {what}: {task} {time.time()}"
    old = ops.status()["settings_current"]
    given = tmp_path / "given.json"
    given.write_text(
        json.dumps({"envdir_settings": "{{ app_settings | combine(app_secrets, more) }}", "more": {"GREETING": words}})
    )
    process = ops.begin("playbooks/settings.yml", "-e", f"@{given}")
    for line in process.stdout:
        if task in line:
            break
    time.sleep(random.uniform(0, 1.5))
    if what == "controller":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        container = lab["hosts"]["app1"]["container"]
        subprocess.run(["docker", "restart", container], check=True, stdout=subprocess.DEVNULL, timeout=120)
    process.communicate(timeout=400)
    edge.wait(120, release=serving)
    told = _until(ops)
    # A verb that died settles with the next one; the boot has done so already.
    if told["intent"]:
        assert ops.releasectl("reconcile")["ok"]
        told = ops.status()
    assert told["live"]["release"] == serving
    assert told["live"]["settings"] == told["settings_current"]
    assert (told["settings_current"] == old) == (words not in edge.get("/").text)
    assert told["drift"] == []
    again = settings({"GREETING": words})
    assert again.code == 0, again.output
    assert words in edge.get("/").text
    assert ops.status()["settings_waiting"] is None


@pytest.mark.failure("setting-missing")
def test_a_release_that_needs_a_setting_is_refused_until_it_is_delivered(
    app1: Any, ops: Any, edge: Any, settings: Settings, serving: str
) -> None:
    new = packing.variants(["needing-9"], LAB)["needing-9"]
    looked = ops.deploy(new["artifact"], "--check")
    assert looked.code != 0
    assert "it needs: DJANGO_SECRET_KEY, DJANGO_ALLOWED_HOSTS, DATABASE_URL, REDIS_URL, PAYMENT_KEY" in looked.output
    for run in (looked, ops.deploy(new["artifact"])):
        assert run.code != 0
        assert "needs the setting PAYMENT_KEY (.slipway/settings), which is not in force on app1" in run.closing
        assert "playbooks/settings.yml" in run.closing
    assert new["id"] not in app1.check_output("ls /opt/app/releases").split(), "nothing of it was made"
    assert ops.status()["lease"] is None

    # The step before: the release that runs does not look at it.
    assert settings({"PAYMENT_KEY": CANARY}).code == 0
    assert edge.get("/").release == serving
    deployed = ops.deploy(new["artifact"])
    assert deployed.code == 0, deployed.output
    generation = ops.status()["live"]["generation"]
    pid = app1.check_output(f"systemctl show --property=MainPID --value gunicorn@{generation}.service")
    assert f"PAYMENT_KEY={CANARY}".encode() in hexed(app1, f"/proc/{pid}/environ").split(b"\0")

    # While it is live its setting cannot be taken from it; once it is not, it can.
    taken = settings({})
    assert taken.code != 0
    assert f"{new['id']}, which is live, needs PAYMENT_KEY" in taken.closing
    assert ops.rollback(serving).code == 0
    assert settings({}).code == 0
    assert "PAYMENT_KEY" not in ops.status()["settings_names"]
