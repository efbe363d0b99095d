"""The switch, the record, and what is left of a switch that died at any point."""

import json
from pathlib import Path

import pytest

from releasectl import files, lifecycle
from releasectl.config import Config
from releasectl.errors import Refusal
from releasectl.lifecycle import Lifecycle
from releasectl.state import State, previous_after


def serving(host: Lifecycle) -> tuple[str | None, str]:
    """What `current` names, and which release answers on the socket that nginx uses."""
    generation = host.socket_generation()
    assert generation is not None
    assert f"gunicorn@{generation}.service" in host.systemd.running("gunicorn")  # type: ignore[attr-defined]
    return host.live_release(), generation.release


def test_the_first_release_goes_live(host):
    live = host.activate("a", "me")
    assert serving(host) == ("a", "a")
    assert host.store.read().live == live
    assert host.store.read().previous == []


def test_a_switch_leaves_one_generation_of_each_process(host, systemd):
    host.activate("a", "me")
    host.activate("b", "me")
    for process in ("gunicorn", "celery-worker", "celery-beat"):
        assert systemd.running(process) == [f"{process}@b.2.service"]


def test_the_old_scheduler_is_told_to_stop_before_the_new_one_starts(host, systemd):
    host.activate("a", "me")
    host.activate("b", "me")
    stop = systemd.calls.index(("stop", "celery-beat@a.1.service"))
    assert stop < systemd.calls.index(("start", "celery-beat@b.2.service"))


def test_new_workers_come_before_old_ones_go(host, systemd):
    host.activate("a", "me")
    host.activate("b", "me")
    start = systemd.calls.index(("start", "celery-worker@b.2.service"))
    assert start < systemd.calls.index(("stop", "celery-worker@a.1.service"))


def test_on_a_rollback_the_web_goes_before_the_workers(host, systemd, monkeypatch):
    host.activate("a", "me")
    host.activate("b", "me")
    seen = []
    original = systemd.start

    def start(unit: str, block: bool = True) -> bool:
        seen.append((unit, host.live_release()))
        return original(unit, block)

    monkeypatch.setattr(systemd, "start", start)
    host.switch("rollback", "a", None, "me")
    assert ("celery-worker@a.3.service", "a") in seen


def test_an_unhealthy_release_never_becomes_live(host, systemd, unhealthy):
    host.activate("a", "me")
    unhealthy.add("b")
    with pytest.raises(Refusal, match="b failed its health gate: it answered 500") as refusal:
        host.activate("b", "me")
    assert len(refusal.value.details["journal"]) <= 20
    assert serving(host) == ("a", "a")
    assert systemd.running("gunicorn") == ["gunicorn@a.1.service"]
    assert systemd.running("celery-worker") == ["celery-worker@a.1.service"]
    assert host.store.read().intent is None


def test_a_release_that_does_not_start_never_becomes_live(host, systemd):
    host.activate("a", "me")
    systemd.broken.add("gunicorn@b.")
    with pytest.raises(Refusal, match="b did not start"):
        host.activate("b", "me")
    assert serving(host) == ("a", "a")


def test_the_live_release_is_not_activated_again(host):
    host.activate("a", "me")
    with pytest.raises(Refusal, match="a is live already"):
        host.activate("a", "me")


def test_rollback_goes_back_in_the_record_each_time(host):
    for release in ("a", "b", "c"):
        host.activate(release, "me")
    assert host.rollback_target(None) == "b"
    host.switch("rollback", "b", None, "me")
    assert host.rollback_target(None) == "a"
    host.switch("rollback", "a", None, "me")
    with pytest.raises(Refusal, match=r"no earlier release than a.*there are: b, c, d"):
        host.rollback_target(None)


@pytest.mark.failure("previous-gone")
def test_rollback_names_what_can_be_had(host, config):
    host.activate("a", "me")
    host.activate("b", "me")
    host.discard("d", "it answered 500")
    with pytest.raises(Refusal, match="x is not known on this host; releases that can be had: a, c"):
        host.rollback_target("x")
    with pytest.raises(Refusal, match=r"d was refused and removed at .*it answered 500.*can be had: a, c"):
        host.rollback_target("d")
    with pytest.raises(Refusal, match="b is live already"):
        host.rollback_target("b")


def test_prune_keeps_the_live_and_the_previous_release(host, config):
    host.activate("a", "me")
    host.activate("b", "me")
    assert host.prune(1) == ["c"]
    assert sorted(path.name for path in config.releases.iterdir()) == ["a", "b", "d"]
    with pytest.raises(Refusal, match="c was pruned"):
        host.rollback_target("c")


def test_what_was_live_is_not_discarded(host):
    host.activate("a", "me")
    host.activate("b", "me")
    for release in ("a", "b"):
        with pytest.raises(Refusal, match="is or was live"):
            host.discard(release, "why")


def test_restart_is_due_when_settings_or_units_changed(host, config, tmp_path):
    host.activate("a", "me")
    assert not host.settings_changed()
    (tmp_path / "env.2").mkdir()
    files.link_atomically(config.env, "env.2")
    assert host.settings_changed()
    live = host.restart("me")
    assert (live.release, live.number, live.settings) == ("a", 2, "env.2")
    assert not host.settings_changed()
    assert host.store.read().previous == []


def test_a_generation_keeps_the_settings_that_it_started_with(host, config, tmp_path):
    live = host.activate("a", "me")
    (tmp_path / "env.2").mkdir()
    files.link_atomically(config.env, "env.2")
    assert host.settings.pinned(live.generation) == "env.1"


def test_a_release_linked_by_hand_is_brought_up_and_recorded(host, config):
    host.activate("a", "me")
    files.link_atomically(config.current, str(config.release_dir("b")))
    assert host.reconcile("me") == ["b, which 'current' was pointed at by hand, was brought up"]
    assert serving(host) == ("b", "b")
    assert host.rollback_target(None) == "a"


def test_rollback_from_a_release_linked_by_hand_that_cannot_start(host, config, unhealthy):
    host.activate("a", "me")
    files.link_atomically(config.current, str(config.release_dir("b")))
    unhealthy.add("b")
    host.reconcile("me", heal=False)
    assert host.rollback_target(None) == "a"
    host.switch("rollback", "a", None, "me")
    assert serving(host) == ("a", "a")


@pytest.mark.failure("current-broken")
@pytest.mark.parametrize("broken", ["dangling", "directory", "elsewhere"])
def test_a_broken_link_is_refused_with_what_to_do(host, config, tmp_path, broken):
    if broken == "directory":
        config.current.mkdir()
    else:
        config.current.symlink_to(config.releases / "gone" if broken == "dangling" else tmp_path)
    with pytest.raises(Refusal, match="releasectl reconcile"):
        host.reconcile("me")


def test_boot_brings_up_what_current_names(host, systemd):
    host.activate("a", "me")
    systemd.states = {"app.service": "activating"}
    host.config.socket.unlink()
    assert host.reconcile("app.service", boot=True) == ["a was brought up"]
    assert serving(host) == ("a", "a")
    assert host.store.read().previous == []


def test_boot_records_a_release_that_was_linked_by_hand(host, systemd, config):
    host.activate("a", "me")
    systemd.states = {"app.service": "activating"}
    files.link_atomically(config.current, str(config.release_dir("b")))
    assert host.reconcile("app.service", boot=True) == ["b was brought up in place of a"]
    assert serving(host) == ("b", "b")
    assert host.rollback_target(None) == "a"


def test_boot_starts_nothing_twice(host, systemd):
    host.activate("a", "me")
    before = dict(systemd.states)
    assert host.reconcile("app.service", boot=True) == []
    assert systemd.states == before


def test_reconcile_mends_what_stopped(host, systemd, config):
    host.activate("a", "me")
    del systemd.states["celery-worker@a.1.service"]
    config.socket.unlink()
    done = host.reconcile("me")
    assert len(done) == 2
    assert serving(host) == ("a", "a")
    assert systemd.running("celery-worker") == ["celery-worker@a.1.service"]


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


STEPS = ["link_atomically", "store.write", "systemd.start", "systemd.stop"]


def crashing(host: Lifecycle, monkeypatch: pytest.MonkeyPatch, instant: int) -> None:
    """Die at the ``instant``-th change, alternately before and after it was made."""
    count = 0

    def wrap(original):
        def wrapped(*args, **options):
            nonlocal count
            count += 1
            if count == instant:
                raise Killed
            result = original(*args, **options)
            count += 1
            if count == instant:
                raise Killed
            return result

        return wrapped

    monkeypatch.setattr(lifecycle, "link_atomically", wrap(lifecycle.link_atomically))
    monkeypatch.setattr(host.store, "write", wrap(host.store.write))
    monkeypatch.setattr(host.systemd, "start", wrap(host.systemd.start))
    monkeypatch.setattr(host.systemd, "stop", wrap(host.systemd.stop))


@pytest.mark.failure("host-rebooted")
@pytest.mark.parametrize("verb", ["activate", "rollback", "restart"])
@pytest.mark.parametrize("reboot", [False, True], ids=["goes on", "reboots"])
def test_a_switch_may_die_at_any_change(host, systemd, verb, reboot, monkeypatch):
    host.activate("a", "me")
    host.activate("b", "me")
    instant = 0
    while True:
        instant += 1
        before, _ = serving(host)
        with monkeypatch.context() as patch:
            crashing(host, patch, instant)
            try:
                target = {"activate": "c" if before != "c" else "d", "rollback": "a" if before != "a" else "b"}.get(
                    verb
                )
                if verb == "restart":
                    host.restart("me")
                else:
                    host.switch(verb, target, None, "me")
            except Killed:
                pass
            else:
                break
        # The moment after: somebody serves, without any help.
        serving_now = host.socket_generation()
        assert f"gunicorn@{serving_now}.service" in systemd.running("gunicorn")
        if reboot:
            systemd.states = {"app.service": "activating"}
            host.config.socket.unlink(missing_ok=True)
        host.reconcile("me", boot=reboot)
        live, answering = serving(host)
        assert live == answering == host.store.read().live.release
        assert live in (before, target)
        assert host.store.read().intent is None
        for process in ("gunicorn", "celery-worker", "celery-beat"):
            assert len(systemd.running(process)) == 1
        assert host.reconcile("me") == []
    assert instant > 20


@pytest.mark.parametrize(
    ("verb", "record", "target", "live", "after"),
    [
        ("activate", [], "b", "a", ["a"]),
        ("activate", ["a"], "c", "b", ["a", "b"]),
        ("activate", ["a", "b"], "a", "c", ["b", "c"]),
        ("rollback", ["a", "b"], "b", "c", ["a"]),
        ("rollback", ["a", "b"], "a", "c", []),
        ("rollback", ["a"], "x", "b", ["a", "b"]),
        ("restart", ["a"], "b", "b", ["a"]),
        ("activate", [], "a", None, []),
    ],
)
def test_the_record_of_previous_releases(verb, record, target, live, after):
    assert previous_after(State(previous=record), verb, target, live) == after


def test_nothing_is_remembered_for_ever():
    state = State()
    for number in range(300):
        state.forget(f"r{number}", "pruned", "old")
    assert len(state.gone) == 100
    assert "r299" in state.gone


def test_the_configuration_refuses_what_it_does_not_know():
    with pytest.raises(Refusal, match="'keeep', which this version does not know"):
        Config.from_mapping({"keeep": 3})
    with pytest.raises(Refusal, match="'keep' to a str, not a int"):
        Config.from_mapping({"keep": "3"})
    assert Config.from_mapping({"run": "/x"}).run == Path("/x")


def test_what_a_newer_program_recorded_is_left_aside(host: Lifecycle) -> None:
    """One goes back to the configuration of yesterday: its releasectl reads the state of today."""
    host.activate("a", "me")
    path = host.config.state / "state.json"
    raw = json.loads(path.read_text())
    raw["live"]["colour"] = "green"
    path.write_text(json.dumps({**raw, "weather": "fine"}))
    assert host.store.read().live.release == "a"
    host.activate("b", "me")
    assert host.live_release() == "b"
