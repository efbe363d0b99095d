"""New settings: tried by the live release, in force once it serves with them, and otherwise taken back."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest

from releasectl import adopting, cli, health, smoke, status
from releasectl import settings as settings_module
from releasectl.config import Config
from releasectl.errors import Refusal, UsageError
from releasectl.events import Events
from releasectl.lifecycle import Lifecycle
from releasectl.lock import Locks
from releasectl.settings import fingerprint
from tests.unit.releasectl.conftest import FakeSystemd, request_of
from tests.unit.releasectl.test_lifecycle import Killed, crashing, serving

CANARY = "canary-77c1"
GATE = health.gate


def deliver(config: Config, version: str, waits: bool = True, **values: str) -> None:
    """A version as the module envdir leaves it."""
    directory = config.env.parent / version
    directory.mkdir(exist_ok=True)
    for name, value in values.items():
        (directory / name).write_text(f"{value}\n")
    link = config.env.with_name("env.next") if waits else config.env
    link.unlink(missing_ok=True)
    link.symlink_to(version)


def needing(config: Config, release: str, *names: str) -> None:
    """Have a prepared release say what it needs."""
    path = config.release_dir(release) / "release.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "settings": list(names)}))


@pytest.fixture
def live(host: Lifecycle, config: Config) -> Lifecycle:
    """`a` serves with env.1, and the host has a key."""
    deliver(config, "env.1", waits=False, KEY=f"{CANARY}-1", OLD="x")
    (config.env.parent / settings_module.KEY).write_text(secrets.token_hex(32) + "\n")
    host.activate("a", "me")
    return host


@pytest.fixture
def run(live: Lifecycle, config: Config, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """A verb as a job runs it."""
    monkeypatch.setattr(cli, "Systemd", lambda: systemd)

    def verb(*words: str) -> dict[str, object]:
        return cli.execute(config, request_of(*words, actor="ops (ada)"), lambda _line: None)

    return verb


def test_what_waits_is_in_force_once_the_live_release_serves_with_it(run, live, config):  # type: ignore[no-untyped-def]
    deliver(config, "env.2", KEY=f"{CANARY}-2", NEW="y")
    answer = run("settings")
    assert answer["ok"], answer
    assert answer["message"] == "a serves with env.2 in place of env.1: changed KEY; added NEW; removed OLD."
    assert (live.settings.current(), live.settings.waiting()) == ("env.2", None)
    assert not config.env.with_name("env.next").is_symlink()
    now = live.store.read().live
    assert (now.release, now.number, now.settings) == ("a", 2, "env.2")
    assert serving(live) == ("a", "a")
    again = run("settings")
    assert (again["changed"], live.store.read().live.number) == (False, 2), "only when something changed"


@pytest.mark.failure("bad-setting")
@pytest.mark.parametrize("words", [("settings",), ("restart", "--if-settings-changed")])
def test_a_bad_value_is_taken_back_and_named_and_the_old_ones_stay_in_force(run, live, config, unhealthy, words):  # type: ignore[no-untyped-def]
    deliver(config, "env.2", KEY=f"{CANARY}-2")
    unhealthy.add("a")
    answer = run(*words)
    assert answer["message"] == (
        "env.2 was taken back (changed KEY; removed OLD), since a failed its health gate: it answered 500"
        " ('sudo journalctl -u gunicorn@a.2.service' on the host shows more); env.1 stays in force, and a serves"
        " with it."
    )
    assert (live.settings.current(), live.settings.waiting()) == ("env.1", None)
    assert live.store.read().live.number == 1
    assert serving(live) == ("a", "a")
    unhealthy.clear()
    assert run(*words)["changed"] is False, "it is not tried again by itself"
    live.activate("b", "me")
    assert live.store.read().live.settings == "env.1"


def test_a_refusal_that_nobody_heard_is_no_success_when_it_is_asked_again(run, live, config, unhealthy):  # type: ignore[no-untyped-def]
    """The connection is cut while the host tries them, and they are refused before it is back."""
    deliver(config, "env.2", KEY=f"{CANARY}-2")
    unhealthy.add("a")
    assert not run("settings", "--version=env.2")["ok"]
    for words in (("settings", "--version=env.2"), ("settings", "--version=env.2", "--untried")):
        again = run(*words)
        assert not again["ok"], again
        assert again["message"].startswith(
            "env.2 does not wait to be put in force (env.1 is in force): it was taken back"
        )
        assert live.store.read().live.number == 1
    assert run("settings")["ok"], "who asks for whatever waits is told that nothing does"


@pytest.mark.parametrize("words", [("settings",), ("settings", "--version=env.2"), ("settings", "--take-back=env.2")])
@pytest.mark.parametrize("bad", [True, False], ids=["refused", "adopted"])
def test_what_another_run_delivers_meanwhile_goes_on_waiting(run, live, config, unhealthy, monkeypatch, words, bad):  # type: ignore[no-untyped-def]
    deliver(config, "env.2", KEY=f"{CANARY}-2")
    if words[-1] == "--take-back=env.2":
        run("settings")
    if bad:
        unhealthy.add("a")
    gate = health.gate

    def delivered_meanwhile(*given: object, **options: object) -> None:
        deliver(config, "env.3", KEY=f"{CANARY}-3")
        gate(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(health, "gate", delivered_meanwhile)
    assert run(*words)["ok"] is not bad
    assert live.settings.waiting() == "env.3"
    monkeypatch.setattr(health, "gate", gate)
    unhealthy.clear()
    if words == ("settings", "--version=env.2") and bad:
        assert "and env.3 waits): it was taken back, or others were delivered" in run(*words)["message"]
    assert run("settings")["settings"]["version"] == "env.3"


def test_a_success_that_nobody_heard_is_one_when_it_is_asked_again(run, live, config):  # type: ignore[no-untyped-def]
    deliver(config, "env.2", KEY=f"{CANARY}-2")
    assert run("settings", "--version=env.2")["changed"]
    deliver(config, "env.3", KEY=f"{CANARY}-3")
    again = run("settings", "--version=env.2")
    assert (again["ok"], again["changed"], live.store.read().live.number) == (True, False, 2)
    assert live.settings.waiting() == "env.3", "what another run delivered since is not tried for it"


def _does_not_start(_config: Config, systemd: FakeSystemd, _patch: pytest.MonkeyPatch) -> str:
    systemd.broken.add("gunicorn@a.2")
    return "a did not start (ValueError; 'sudo journalctl -u gunicorn@a.2.service' on the host shows more)"


def _worker_does_not_start(_config: Config, systemd: FakeSystemd, _patch: pytest.MonkeyPatch) -> str:
    systemd.broken.add("celery-worker@a.2")
    return "The Celery worker of a did not start (ValueError; 'sudo journalctl -u celery-worker@a.2.service'"


def _is_ill(_config: Config, _systemd: FakeSystemd, patch: pytest.MonkeyPatch) -> str:
    patch.setattr(health, "gate", GATE)
    patch.setattr(health, "probe", lambda *_words: (500, f"no database at {CANARY}"))
    return "a failed its health gate: /readyz is not healthy: it answered 500 (ValueError; 'sudo journalctl"


def _fails_a_smoke_test(config: Config, _systemd: FakeSystemd, patch: pytest.MonkeyPatch) -> str:
    object.__setattr__(config, "smoke_tests", [{"path": "/cart"}])
    patch.setattr(smoke, "fetch", lambda *_words: smoke.Answer(500, {}, f"bad {CANARY}".encode()))
    return "a failed its smoke test GET /cart (ValueError; 'sudo journalctl"


def _fails_its_command(config: Config, _systemd: FakeSystemd, patch: pytest.MonkeyPatch) -> str:
    object.__setattr__(config, "smoke_command", ("manage", "check"))

    def refuse(*_words: object) -> None:
        raise Refusal(f"It failed: KeyError: {CANARY}", journal=[CANARY])

    patch.setattr("releasectl.verification.sandboxed", refuse)
    patch.setattr("releasectl.sandbox.app", lambda *_words: [])
    patch.setattr("releasectl.sandbox.command", lambda *_words: [])
    return "The command manage check of a failed (ValueError; 'sudo journalctl"


@pytest.mark.parametrize(
    "break_it", [_does_not_start, _worker_does_not_start, _is_ill, _fails_a_smoke_test, _fails_its_command]
)
@pytest.mark.parametrize("way", ["new", "back", "owed"])
def test_no_word_of_the_app_gets_into_the_answer_or_the_record(run, live, config, systemd, monkeypatch, break_it, way):  # type: ignore[no-untyped-def]
    """It may echo a part of a setting: which exception it was is told, and where on the host the rest is."""
    deliver(config, "env.2", waits=way != "owed", KEY=f"{CANARY}-2")
    words = ["settings"]
    if way == "back":
        run("settings", "--untried")
        words = ["settings", "--take-back=env.2"]
    if way == "owed" and break_it in (_fails_a_smoke_test, _fails_its_command):
        pytest.skip("a restart with what is in force is not verified")
    said = [f"ValueError: Port could not be cast to integer value as '{CANARY}'"]
    monkeypatch.setattr(systemd, "journal", lambda _unit, _lines=20: said)
    sentence = break_it(config, systemd, monkeypatch)
    answer = run(*words)
    assert not answer["ok"]
    assert sentence in answer["message"]
    told = json.dumps([answer, Events(config.events).recent(5)])
    assert sentence in told
    assert CANARY not in told


def test_smoke_tests_are_asked_as_well(run, live, config, monkeypatch):  # type: ignore[no-untyped-def]
    def refuse(*_words: object) -> None:
        raise Refusal("a failed its smoke test /cart: it answered 500; it said X", "a failed its smoke test /cart")

    monkeypatch.setattr(adopting, "_keep_what_is_needed", lambda *_words: None)
    monkeypatch.setattr("releasectl.verification.verify", refuse)
    deliver(config, "env.2", KEY="new")
    message = run("settings")["message"]
    assert "since a failed its smoke test /cart ('sudo journalctl -u gunicorn@a.2.service' on" in message
    assert live.settings.current() == "env.1"


def test_neither_a_deploy_nor_a_rollback_nor_a_restart_picks_up_what_waits(run, live, config):  # type: ignore[no-untyped-def]
    deliver(config, "env.2", KEY="new")
    live.activate("b", "me")
    assert live.store.read().live.settings == "env.1"
    assert run("restart")["ok"]
    assert run("rollback")["ok"]
    assert live.store.read().live.settings == "env.1"
    shown = status.report(live, Locks(config.private_run, config.state))
    assert shown["settings_waiting"] == "env.2"
    assert shown["drift"] == [], "that it waits is nothing that reconcile would mend"
    assert "env.2 was delivered and is not in force: 'releasectl settings'" in status.as_text(shown)


def test_without_a_live_release_they_are_in_force_at_once(host, config):  # type: ignore[no-untyped-def]
    deliver(config, "env.1", waits=False)
    deliver(config, "env.2", KEY="new")
    answer = adopting.adopt(host, "me")
    assert answer is not None
    assert (answer["message"], host.settings.current()) == (
        "env.2 is in force in place of env.1: added KEY. No release is live yet.",
        "env.2",
    )


def test_what_the_live_release_says_it_needs_is_not_taken_from_it(run, live, config, systemd):  # type: ignore[no-untyped-def]
    needing(config, "a", "OLD", "KEY")
    deliver(config, "env.2", KEY="new")
    begun = len(systemd.calls)
    message = run("settings")["message"]
    assert "env.2 was taken back (changed KEY; removed OLD), since a, which is live, needs OLD" in message
    assert systemd.calls[begun:] == [], "nothing was started"
    assert live.settings.current() == "env.1"


def test_a_release_that_needs_what_is_not_in_force_is_refused_and_one_can_go_back_to_it(run, live, config):  # type: ignore[no-untyped-def]
    needing(config, "b", "KEY", "PAYMENT_KEY")
    with pytest.raises(Refusal, match=r"b needs the setting PAYMENT_KEY \(.slipway/settings\).*playbooks/settings.yml"):
        live.activate("b", "me")
    assert live.store.read().live.release == "a"
    deliver(config, "env.2", waits=False, KEY="x", PAYMENT_KEY="y")
    live.activate("b", "me")
    live.activate("c", "me")
    deliver(config, "env.3", waits=False, KEY="x")
    answer = run("rollback")
    assert answer["release"] == "b", "the way back is never held up"
    assert "needs PAYMENT_KEY, which is not in force" in answer["message"]


def test_going_back_puts_the_version_before_in_force(run, live, config):  # type: ignore[no-untyped-def]
    deliver(config, "env.2", KEY="new", OLD="x")
    run("settings")
    answer = run("settings", "--take-back=env.2")
    assert answer["message"] == "env.2 was taken back: env.1 is in force again, and a serves with it."
    now = live.store.read().live
    assert (now.number, now.settings, live.settings.current()) == (3, "env.1", "env.1")
    answer = run("settings", "--take-back=env.2")
    assert (answer["changed"], live.store.read().live.number) == (False, 3)


def test_one_that_waits_is_dropped_and_another_than_what_was_adopted_is_refused(run, live, config):  # type: ignore[no-untyped-def]
    deliver(config, "env.2", KEY="new")
    assert run("settings", "--take-back=env.2")["changed"]
    assert (live.settings.waiting(), live.settings.current()) == (None, "env.1")
    answer = run("settings", "--take-back=env.1")
    assert "before env.1 is not kept" in answer["message"]
    with pytest.raises(UsageError, match="name of a version"):
        adopting.version_name("../env.1")


@pytest.mark.failure("settings-interrupted")
@pytest.mark.parametrize("reboot", [False, True], ids=["goes on", "reboots"])
@pytest.mark.parametrize("web", [True, False], ids=["web", "worker alone"])
def test_a_change_of_settings_may_die_at_any_change(live, config, systemd, reboot, web, monkeypatch):  # type: ignore[no-untyped-def]
    if not web:
        object.__setattr__(config, "processes", ("celery-worker", "celery-beat"))
        systemd.stop(["gunicorn@a.1.service"])
        config.socket.unlink()
    instant, number, seen = 0, 1, set()
    while True:
        instant += 1
        before = live.settings.current()
        if live.settings.waiting() is None:
            number += 1
            deliver(config, f"env.{number}", KEY=str(number))
        new = f"env.{number}"
        with monkeypatch.context() as patch:
            crashing(live, patch, instant)
            link = settings_module.link_atomically
            patch.setattr(settings_module, "link_atomically", _dying(link, live.systemd.start))
            try:
                adopting.adopt(live, "me")
            except Killed:
                pass
            else:
                break
        if reboot:
            systemd.states = {"app.service": "activating"}
            config.socket.unlink(missing_ok=True)
        live.reconcile("me", boot=reboot)
        state = live.store.read()
        assert state.intent is None
        in_force = live.settings.current()
        assert in_force in (before, new)
        assert state.live.settings == in_force, "what serves and what is in force are the same"
        assert live.settings.pinned(state.live.generation) == in_force
        # Either it is done, or the next run finishes it.
        assert (live.settings.waiting() is None) == (in_force == new)
        for process in config.processes:
            assert systemd.running(process) == [f"{process}@{state.live.generation}.service"]
        if web:
            assert serving(live) == ("a", "a")
        assert live.reconcile("me") == []
        seen.add(in_force == new)
    assert seen == {True, False}, "some were taken back, some carried to their end"
    assert instant > 10


def _dying(link, counted):  # type: ignore[no-untyped-def]
    """Renaming the link of the settings counts as a change as well: `counted` dies at its turn, before or after."""

    def renamed(*words: object) -> bool:
        counted("tick@a.0.service")
        result: bool = link(*words)
        counted("tick@a.0.service")
        return result

    return renamed


def test_untried_they_are_in_force_for_the_next_switch_and_not_for_a_reboot(run, live, config, systemd, unhealthy):  # type: ignore[no-untyped-def]
    needing(config, "a", "OLD")
    deliver(config, "env.2", KEY="restored")
    unhealthy.add("a")
    answer = run("settings", "--untried")
    assert answer["message"] == (
        "env.2 is in force, untried: changed KEY; removed OLD. a runs on as it was started, after a reboot too;"
        " the next deploy, rollback or restart has it."
    )
    assert (live.settings.current(), live.settings.waiting(), live.store.read().live.number) == ("env.2", None, 1)
    systemd.states = {"app.service": "activating"}
    live.reconcile("me", boot=True)
    assert (live.store.read().live.settings, serving(live)) == ("env.1", ("a", "a")), "as the sentence says"
    live.switch("rollback", "b", None, "me")
    assert live.store.read().live.settings == "env.2"
    assert run("settings", "--untried")["changed"] is False


def test_status_tells_what_can_be_gone_back_to_by_fingerprint(run, live, config):  # type: ignore[no-untyped-def]
    def shown() -> dict[str, object]:
        return status.report(live, Locks(config.private_run, config.state))

    assert shown()["settings_adopted"] is None
    before = live.settings.fingerprint("env.1")
    assert shown()["settings_fingerprint"] == before
    deliver(config, "env.2", KEY="new")
    run("settings")
    assert shown()["settings_adopted"] == {"version": "env.2", "before": "env.1", "fingerprint": before}
    assert shown()["settings_fingerprint"] == live.settings.fingerprint("env.2") != before
    deliver(config, "env.3", waits=False, KEY="by hand")
    assert shown()["settings_adopted"] is None, "that was not adopted"


# What is recorded


def test_each_generation_records_its_keyed_fingerprint_and_history_tells_who_changed_what(run, live, config):  # type: ignore[no-untyped-def]
    def recorded() -> tuple[str, str]:
        pin = json.loads((config.state / "generations" / str(live.store.read().live.generation)).read_text())
        assert set(pin) == {"settings", "fingerprint"}
        return pin["settings"], pin["fingerprint"]

    first = recorded()
    assert first == ("env.1", live.settings.fingerprint("env.1"))
    deliver(config, "env.2", KEY=f"{CANARY}-2", OLD="x")
    run("settings")
    second = recorded()
    assert second[0] == "env.2"
    assert second[1] not in (None, first[1])
    event = Events(config.events).recent(1)[0]
    assert (event["verb"], event["actor"], event["outcome"]) == ("settings", "ops (ada)", "ok")
    told = event["settings"]
    assert told["version"] == "env.2"
    assert told["fingerprint"] == second[1]
    assert (told["changed"], told["added"], told["removed"]) == (["KEY"], [], [])
    assert CANARY not in json.dumps(event)
    text = cli.record.as_text([event])
    assert "ops (ada)" in text
    assert "a serves with env.2 in place of env.1: changed KEY." in text
    run("settings", "--take-back=env.2")
    assert recorded() == first, "the same settings, the same fingerprint"


def test_a_fingerprint_is_of_names_and_values_and_of_the_key():
    key, other = secrets.token_hex(32), secrets.token_hex(32)
    one = fingerprint(key, {"A": "1", "B": "2"})
    assert one == fingerprint(key, {"B": "2", "A": "1"})
    different = [{"A": "1", "B": "3"}, {"A": "12", "B": ""}, {"A": "1"}, {"A": "1", "C": "2"}, {"A": '1", "B": "2'}]
    assert len({one, *(fingerprint(key, values) for values in different)}) == 6
    name, _dash, told = one.partition("-")
    assert fingerprint(other, {"A": "1", "B": "2"}).partition("-")[2] != told
    assert fingerprint(key, {}).startswith(f"{name}-"), "which key it was is seen"


def test_status_tells_names_and_fingerprint_and_no_value(live, config):  # type: ignore[no-untyped-def]
    shown = status.report(live, Locks(config.private_run, config.state))
    assert shown["settings_names"] == ["KEY", "OLD"]
    assert shown["fingerprint"] == live.settings.fingerprint("env.1")
    assert CANARY not in json.dumps(shown)
    (Path(config.env) / "KEY").write_bytes(b"\xff\n")
    assert status.report(live, Locks(config.private_run, config.state))["fingerprint"] is None
