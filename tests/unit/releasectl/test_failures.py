"""Rows of docs/ops/failures.md that need no host."""

from __future__ import annotations

import shutil
import socket
import threading
import time

import pytest

from releasectl import health
from releasectl.errors import Refusal
from releasectl.lock import Locks
from releasectl.names import Generation


@pytest.fixture
def silent(tmp_path):
    """A socket that takes connections and says nothing."""
    path = tmp_path / "gunicorn.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(50)
        yield path


def jump(monkeypatch, seconds):
    """Set the wall clock; what counts seconds goes on as before."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + seconds)


@pytest.mark.failure("gate-hangs")
def test_a_gate_that_never_answers_shuts_after_its_time(silent):
    started = time.monotonic()
    with pytest.raises(Refusal, match=r"/readyz was not healthy within 0\.5 s: it did not answer \(timed out\)"):
        health.gate(silent, "/readyz", "example.org", 0.5, successes=2, failures=3, alive=lambda: True)
    assert time.monotonic() - started < 3


@pytest.mark.failure("clock-jumps")
@pytest.mark.parametrize("seconds", [-400 * 86_400, 400 * 86_400], ids=["back", "forward"])
def test_a_switch_takes_no_notice_of_the_clock(host, systemd, monkeypatch, seconds):
    host.activate("a", "me")
    jump(monkeypatch, seconds)
    host.activate("b", "me")
    assert host.socket_generation() == Generation("b", 2)
    assert host.rollback_target(None) == "a"
    host.switch("rollback", "a", None, "me")
    assert host.live_release() == "a"
    assert host.reconcile("me") == []
    assert "a" not in host.prune(1)


@pytest.mark.failure("clock-jumps")
def test_a_gate_is_not_shut_or_held_open_by_the_clock(silent, monkeypatch):
    threading.Timer(0.1, jump, (monkeypatch, -86_400)).start()
    started = time.monotonic()
    with pytest.raises(Refusal, match="was not healthy within"):
        health.gate(silent, "/readyz", "example.org", 0.5, successes=2, failures=3, alive=lambda: True)
    assert 0.4 < time.monotonic() - started < 3


@pytest.mark.failure("clock-jumps")
def test_a_lease_outlives_a_jump_for_its_own_deploy(config, monkeypatch):
    locks = Locks(config.private_run, config.state)
    with locks.verb("lock", "ann"):
        lease = locks.take("ann", "deploy", 900)
    jump(monkeypatch, 86_400)
    with locks.verb("activate", "ann"), locks.under_lease("activate", lease.token):
        pass
    assert locks.in_the_way() is not None, "and holds others off again"
    jump(monkeypatch, -2 * 86_400)
    with locks.verb("unlock", "ben"):
        assert locks.release(None, force=True), "one that the clock made long can be taken"


@pytest.mark.failure("previous-gone")
def test_when_the_previous_release_is_gone_a_rollback_takes_the_one_before_it(host, config):
    for release in ("a", "b", "c"):
        host.activate(release, "me")
    shutil.rmtree(config.release_dir("b"))
    assert host.rollback_target(None) == "a"
    with pytest.raises(Refusal, match=r"b is not known on this host; releases that can be had: .*a.*d"):
        host.rollback_target("b")
    shutil.rmtree(config.release_dir("a"))
    with pytest.raises(Refusal, match=r"names no earlier release than c, nothing was changed; there are: d"):
        host.rollback_target(None)
