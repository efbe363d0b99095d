"""A release that is watched: what counts against it, how it goes back, and what a watch that died leaves."""

import dataclasses
import threading
import time

import pytest

from releasectl import cli, files, health, status, trial, watch
from releasectl.errors import Refusal
from releasectl.lifecycle import Lifecycle
from releasectl.lock import Locks
from tests.unit.releasectl.test_lifecycle import Killed, crashing, serving
from tests.unit.releasectl.test_watch import line

# A host whose releases are watched


@pytest.fixture
def well(monkeypatch):
    """What the health path answers; a test may change it."""
    answer = {"status": 200, "said": "fine"}
    monkeypatch.setattr(health, "probe", lambda *_args: (answer["status"], answer["said"]))
    return answer


@pytest.fixture
def watched(host, systemd, log, well, monkeypatch):
    """A host on which `a` serves, and which looks often."""
    monkeypatch.setattr(watch, "TICK", 0.02)
    monkeypatch.setattr(watch, "PROBE_EVERY", 0.02)
    config = dataclasses.replace(host.config, watch_log=str(log), watch_min_requests=10)
    said: list[str] = []
    made = Lifecycle(config, systemd, said.append)
    made.said = said
    made.activate("a", "me")
    return made


def during(watched, what, monkeypatch):
    """Have ``what`` done as soon as the watch has begun."""
    original = watched.point_at

    def point_at(generation):
        original(generation)
        if generation.release != "a":
            what()

    monkeypatch.setattr(watched, "point_at", point_at)


def test_a_release_that_does_well_stays_and_says_what_was_seen(watched, systemd, log, monkeypatch):
    seen = {}

    def what():
        seen["units"] = sorted(systemd.states)
        seen["intent"] = watched.store.read().intent
        with log.open("a") as stream:
            stream.write(line() * 30 + line(status=500) + line(release="a", status=500) * 30)

    during(watched, what, monkeypatch)
    began = time.monotonic()
    watched.activate("b", "me", watch=1)
    assert time.monotonic() - began >= 1
    assert serving(watched) == ("b", "b")
    assert (watched.seen.requests, watched.seen.errors) == (31, 1)
    assert str(watched.seen) == "31 requests, 1 of them errors (3.23 %)"
    assert "gunicorn@a.1.service" in seen["units"], "the old one has to run while the new one is watched"
    assert "celery-beat@a.1.service" in seen["units"]
    assert seen["intent"].watching is not None
    assert seen["intent"].watch == 1
    assert watched.store.read().intent is None
    assert systemd.running("gunicorn") == ["gunicorn@b.2.service"]


def refused(watched, seconds=20, release="b"):
    began = time.monotonic()
    with pytest.raises(Refusal) as refusal:
        watched.activate(release, "me", watch=seconds)
    assert time.monotonic() - began < seconds - 5, "it has to go back at once, not at the end of the watch"
    return refusal.value


def assert_all_is_as_before(watched, systemd):
    assert serving(watched) == ("a", "a")
    for process in ("gunicorn", "celery-worker", "celery-beat"):
        assert systemd.running(process) == [f"{process}@a.1.service"]
    state = watched.store.read()
    assert (state.intent, state.live.release, state.previous) == (None, "a", [])
    assert watched.reconcile("me") == []


def test_too_many_errors_go_back_at_once(watched, systemd, log, monkeypatch):
    def what():
        with log.open("a") as stream:
            stream.write(line() * 6 + line(status=500) * 4)

    during(watched, what, monkeypatch)
    refusal = refused(watched)
    assert (
        "b was live for 0 s and went back, since 4 of 10 answers were errors (40 %, more than 5 %)" in refusal.message
    )
    assert refusal.message.endswith("a serves again.")
    assert refusal.details["went_back"] == "a"
    assert (refusal.details["requests"], refusal.details["errors"]) == (10, 4)
    assert len(refusal.details["journal"]) <= 20
    assert_all_is_as_before(watched, systemd)


def test_fewer_answers_than_asked_for_say_nothing(watched, log, monkeypatch):
    def what():
        with log.open("a") as stream:
            stream.write(line(status=500) * 9)

    during(watched, what, monkeypatch)
    watched.activate("b", "me", watch=1)
    assert serving(watched) == ("b", "b")


@pytest.mark.failure("crash-after-switch")
@pytest.mark.parametrize("unit", ["gunicorn@b.2.service", "celery-worker@b.2.service"])
@pytest.mark.parametrize("how", ["restarted", "gone"])
def test_a_process_that_dies_goes_back(watched, systemd, monkeypatch, unit, how):
    def what():
        if how == "restarted":
            systemd.restarted[unit] = 1
        else:
            systemd.states[unit] = "failed"

    during(watched, what, monkeypatch)
    assert f"since {unit} ended" in refused(watched).message
    systemd.states.pop(unit, None)
    assert_all_is_as_before(watched, systemd)


def test_a_health_path_that_fails_in_a_row_goes_back_and_one_bad_answer_does_not(watched, systemd, well, monkeypatch):
    monkeypatch.setattr(watched.config.__class__, "health_failures", 3)
    bad = iter([503, 200, 503, 503])
    monkeypatch.setattr(health, "probe", lambda *_args: (next(bad, 503), "no database"))
    refusal = refused(watched)
    assert "since /readyz was not healthy 5 times in a row: it answered 503 (no database)" in refusal.message
    assert next(bad, None) is None
    assert_all_is_as_before(watched, systemd)


def test_an_app_that_is_stopped_meanwhile_is_left_alone_and_taken_back_when_it_starts(watched, systemd, monkeypatch):
    def what():
        systemd.states = {"app.service": "deactivating"}

    during(watched, what, monkeypatch)
    refusal = refused(watched)
    assert "The app was stopped while b was watched" in refusal.message
    assert refusal.details["was_live"]
    assert systemd.states == {"app.service": "deactivating"}, "what a person stopped was started"
    assert watched.reconcile("app.service", boot=True)[0] == "b, whose watch was interrupted, was taken back"
    assert serving(watched) == ("a", "a")


def test_one_that_cannot_be_watched_goes_back(watched, systemd, monkeypatch):
    monkeypatch.setattr(watch.Watch, "run", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert "since it could not be watched (No space left on device)" in refused(watched).message
    assert_all_is_as_before(watched, systemd)


def test_when_the_one_before_does_not_start_any_more_the_new_one_stays(watched, systemd, monkeypatch):
    def what():
        systemd.restarted["gunicorn@b.2.service"] = 1
        systemd.broken.add("gunicorn@a.")

    during(watched, what, monkeypatch)
    refusal = refused(watched)
    assert "but a does not start, so it stays" in refusal.message
    assert "went_back" not in refusal.details
    assert serving(watched) == ("b", "b")
    assert watched.store.read().intent is None


def test_workers_that_do_not_come_back_are_told_of_beside_the_reason(watched, systemd, monkeypatch):
    def what():
        systemd.restarted["gunicorn@b.2.service"] = 1
        systemd.broken.add("celery-worker@a.")

    during(watched, what, monkeypatch)
    refusal = refused(watched)
    assert "gunicorn@b.2.service ended" in refusal.message
    assert "But The Celery worker of a did not start" in refusal.message
    assert serving(watched) == ("a", "a")


def test_a_first_release_has_nothing_to_go_back_to(host, systemd, well):
    host.activate("a", "me", watch=20)
    assert host.seen is None
    assert serving(host) == ("a", "a")


@pytest.mark.parametrize("verb", ["rollback", "restart"])
def test_a_rollback_and_a_restart_are_not_watched(watched, verb, monkeypatch):
    watched.activate("b", "me")
    monkeypatch.setattr(trial, "hold", lambda *_: pytest.fail("watched"))
    watched.restart("me") if verb == "restart" else watched.switch("rollback", "a", None, "me")
    assert watched.seen is None


def test_a_host_with_workers_alone_watches_them(watched, systemd, monkeypatch):
    config = dataclasses.replace(watched.config, processes=("celery-worker",))
    systemd.states = {"app.service": "active", "celery-worker@a.1.service": "active"}
    host = Lifecycle(config, systemd)
    during(host, lambda: systemd.restarted.update({"celery-worker@b.2.service": 1}), monkeypatch)
    assert "celery-worker@b.2.service ended" in refused(host).message
    assert host.live_release() == "a"
    assert systemd.running("celery-worker") == ["celery-worker@a.1.service"]


def test_an_edge_has_nothing_to_watch(watched, systemd):
    edge = Lifecycle(dataclasses.replace(watched.config, processes=()), systemd)
    edge.activate("b", "me", watch=20)
    assert edge.live_release() == "b"
    assert edge.seen is None


# Wanting it gone


def test_a_rollback_while_it_is_watched_does_not_wait(watched, systemd, monkeypatch):
    locks = Locks(watched.config.private_run, watched.config.state)
    monkeypatch.setattr(cli, "Systemd", lambda: systemd)
    answers = []

    def ask():
        answers.append(cli.run_verb(watched.config, {"verb": "rollback", "id": None, "actor": "ada"}))

    asking = threading.Thread(target=ask)
    with monkeypatch.context() as patch:
        during(watched, asking.start, patch)
        with locks.verb("activate", "me"):
            refusal = refused(watched)
    asking.join(10)
    assert "since ada asked for it" in refusal.message
    assert answers[0]["ok"]
    assert answers[0]["release"] == "a"
    assert answers[0]["message"] == "Rolled back from b to a; migrations are not undone."
    assert_all_is_as_before(watched, systemd)
    # What was asked of this watch is not asked of the next.
    watched.activate("b", "me", watch=1)
    assert serving(watched) == ("b", "b")


def test_a_rollback_after_a_watch_that_died_goes_back_once(watched, systemd, monkeypatch):
    watched.activate("b", "me")
    monkeypatch.setattr(watch.Watch, "run", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        watched.activate("c", "me", watch=20)
    verbs = cli.Verbs(watched.config, {"verb": "rollback", "id": None, "actor": "ada"}, lambda _: None)
    verbs.lifecycle = Lifecycle(watched.config, systemd)
    verbs.door.systemd = systemd
    answer = verbs.run()
    assert (answer["release"], answer["previous"]) == ("b", "c")
    assert serving(watched) == ("b", "b"), "it went two releases back"


# What is told


def test_status_tells_of_a_watch_without_calling_it_drift(watched, systemd, monkeypatch):
    reports = []
    locks = Locks(watched.config.private_run, watched.config.state)
    during(watched, lambda: reports.append(status.report(watched, locks)), monkeypatch)
    watched.activate("b", "me", watch=1)
    (told,) = reports
    assert told["live"]["generation"] == "b.2"
    assert told["watching"]["release"] == "b"
    assert told["watching"]["goes_back_to"] == "a"
    assert told["drift"] == []
    assert "goes back to a when it fails" in status.as_text(told)
    assert status.report(watched, locks)["watching"] is None


def test_status_calls_a_watch_that_is_long_over_unfinished(watched, systemd, monkeypatch):
    monkeypatch.setattr(watch.Watch, "run", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        watched.activate("b", "me", watch=20)
    state = watched.store.read()
    state.intent.watching -= 200
    watched.store.write(state)
    told = status.report(watched, Locks(watched.config.private_run, watched.config.state))
    assert "an unfinished activate of b" in told["drift"]


def activate(watched, systemd, seconds, **more):
    asked = {"verb": "activate", "id": "b", "actor": "me", "watch": seconds, "discard_on_failure": True, **more}
    verbs = cli.Verbs(watched.config, asked, lambda _: None)
    verbs.lifecycle = watched
    verbs.door.systemd = systemd
    return verbs.run()


def test_a_release_that_went_back_is_kept_for_its_last_requests(watched, systemd, config, monkeypatch):
    during(watched, lambda: systemd.restarted.update({"gunicorn@b.2.service": 1}), monkeypatch)
    with pytest.raises(Refusal) as refusal:
        activate(watched, systemd, 20)
    assert "discarded" not in refusal.value.details
    assert config.release_dir("b").is_dir()


def test_the_answer_says_what_was_seen_and_zero_means_no_watch(watched, systemd):
    assert activate(watched, systemd, 1)["message"] == "b is live in place of a. Watched for 1 s: no request came."
    assert activate(watched, systemd, 0, id="c")["message"] == "c is live in place of b."


def test_what_the_host_is_told_holds_where_nothing_is_said(watched, systemd):
    watched.config = dataclasses.replace(watched.config, watch_seconds=1)
    asked = {"verb": "activate", "id": "b", "actor": "me", "watch": None, "discard_on_failure": False}
    verbs = cli.Verbs(watched.config, asked, lambda _: None)
    verbs.lifecycle = watched
    assert "Watched for 1 s" in verbs.do_activate()["message"]


def test_discarding_waits_for_what_still_drains(host, systemd):
    host.activate("a", "me")
    systemd.states["gunicorn@b.7.service"] = "deactivating"
    host.discard("b", "why")
    assert ("stop", "gunicorn@b.7.service") in systemd.calls


# Dying in it


@pytest.mark.failure("host-rebooted")
@pytest.mark.parametrize("ends", ["well", "badly"])
@pytest.mark.parametrize("reboot", [False, True], ids=["goes on", "reboots"])
def test_a_watched_switch_may_die_at_any_change(watched, systemd, log, monkeypatch, ends, reboot):
    """Whatever the instant, one of the two serves, alone; the new one only when its watch was recorded to its end."""
    watched.activate("b", "me")
    instant = 0
    died_on_trial = 0
    while True:
        instant += 1
        before, _ = serving(watched)
        target = "c" if before != "c" else "d"
        number = watched.store.read().counter + 1
        with monkeypatch.context() as patch:
            if ends == "badly":
                patch.setitem(systemd.restarted, f"gunicorn@{target}.{number}.service", 0)
                fails(watched, systemd, target, number, patch)
            crashing(watched, patch, instant)
            try:
                watched.switch("activate", target, None, "me", watch=0.05)
            except Killed:
                died_on_trial += watched.on_trial() is not None
            except Refusal as refusal:
                outcome = refusal.details.get("went_back")
                break
            else:
                outcome = None
                break
        # The moment after: somebody serves, without any help.
        now = watched.socket_generation()
        assert f"gunicorn@{now}.service" in systemd.running("gunicorn")
        recorded = watched.store.read().live.release
        if reboot:
            systemd.states = {"app.service": "activating"}
            watched.config.socket.unlink(missing_ok=True)
        watched.reconcile("me", boot=reboot)
        systemd.states["app.service"] = "active"
        live, answering = serving(watched)
        assert live == answering == watched.store.read().live.release == recorded
        assert watched.store.read().intent is None
        for process in ("gunicorn", "celery-worker", "celery-beat"):
            assert len(systemd.running(process)) == 1
        assert watched.reconcile("me") == []
    assert outcome == (before if ends == "badly" else None)
    assert instant > 20
    assert died_on_trial >= 2


def fails(watched, systemd, target, number, patch):
    """Have the generation die as soon as its watch has begun."""
    original = watch.Watch.run

    def run(self, seconds):
        systemd.restarted[f"gunicorn@{target}.{number}.service"] = 1
        return original(self, seconds)

    patch.setattr(watch.Watch, "run", run)


def test_a_link_by_hand_wins_over_a_watch_that_died(watched, systemd, config, monkeypatch):
    monkeypatch.setattr(watch.Watch, "run", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        watched.activate("b", "me", watch=20)
    files.link_atomically(config.current, str(config.release_dir("d")))
    led_to = {}
    original = systemd.stop

    def stop(units, block=True):
        names = list(units)
        led_to.update(dict.fromkeys(names, str(watched.socket_generation())))
        original(names, block)

    monkeypatch.setattr(systemd, "stop", stop)
    watched.reconcile("me")
    assert led_to["gunicorn@b.2.service"] == "a.1", "what served was stopped before something else did"
    assert serving(watched) == ("d", "d")
    assert systemd.running("gunicorn") == ["gunicorn@d.3.service"]


def test_a_watch_that_died_is_carried_forward_when_the_one_before_is_gone(watched, systemd, config, monkeypatch):
    monkeypatch.setattr(watch.Watch, "run", lambda *_: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        watched.activate("b", "me", watch=20)
    files.remove_tree(config.release_dir("a"))
    assert watched.reconcile("me") == ["an interrupted activate of b was carried to its end"]
    assert serving(watched) == ("b", "b")
