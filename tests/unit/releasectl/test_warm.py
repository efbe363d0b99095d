"""Warming up: all workers, at the same time, until it makes no difference, and never for long."""

import os
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from releasectl import hostctl, warm
from releasectl.lifecycle import Lifecycle

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
MAIN = 40


@contextmanager
def app(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[Path]:
    """A server whose threads do ``answer`` with each connection."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(4096)
            answer(self.request)

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True
        request_queue_size = 64

    with Server(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield path
        server.shutdown()


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / f"proc/{MAIN}/task/{MAIN}").mkdir(parents=True)
    return tmp_path / "proc"


def workers(proc: Path, *pids: int) -> None:
    (proc / f"{MAIN}/task/{MAIN}/children").write_text(" ".join(map(str, pids)) + " ")


def loaded(run: Path, pid: int) -> None:
    (run / f"ready-{pid}").touch()


def test_it_waits_for_the_last_worker(tmp_path: Path, proc: Path) -> None:
    workers(proc, 41, 42)
    loaded(tmp_path, 41)
    last = threading.Timer(0.6, loaded, (tmp_path, 42))
    began = time.monotonic()
    last.start()
    assert warm.wait(tmp_path, MAIN, began + 10, proc) == (2, 2)
    assert 0.6 <= time.monotonic() - began < 5


def test_a_worker_that_is_started_late_is_waited_for(tmp_path: Path, proc: Path) -> None:
    workers(proc, 41)
    loaded(tmp_path, 41)
    threading.Timer(0.1, workers, (proc, 41, 42)).start()
    threading.Timer(0.5, loaded, (tmp_path, 42)).start()
    assert warm.wait(tmp_path, MAIN, time.monotonic() + 10, proc) == (2, 2)


def test_what_was_loaded_before_the_workers_is_ready_in_all(tmp_path: Path, proc: Path) -> None:
    workers(proc, 41, 42)
    loaded(tmp_path, MAIN)
    assert warm.wait(tmp_path, MAIN, time.monotonic() + 10, proc) == (2, 2)


def test_the_word_of_a_worker_before_is_none_of_these(tmp_path: Path, proc: Path) -> None:
    workers(proc, 41, 42)
    loaded(tmp_path, 41)
    loaded(tmp_path, 39)  # it died, and another has its place
    assert warm.wait(tmp_path, MAIN, time.monotonic() + 0.4, proc) == (2, 1)


def test_nothing_is_waited_for_where_nothing_runs(tmp_path: Path, proc: Path) -> None:
    began = time.monotonic()
    assert warm.wait(tmp_path, 0, began + 10, proc) == (0, 0)
    assert time.monotonic() - began < 1


def test_requests_come_at_the_same_time(tmp_path: Path) -> None:
    together = threading.Barrier(6)

    def answer(connection: socket.socket) -> None:
        together.wait(5)
        connection.sendall(ANSWER)

    with app(tmp_path / "s", answer) as path:
        assert warm.ask(path, "/", "shop.example", 6, time.monotonic() + 8) < 4


def test_a_connection_that_ended_is_closed_at_once(tmp_path: Path) -> None:
    """A thread of gunicorn's does nothing else until it is."""
    one = threading.Lock()

    def answer(connection: socket.socket) -> None:
        with one:
            connection.sendall(ANSWER)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass

    with app(tmp_path / "s", answer) as path:
        assert warm.ask(path, "/", "shop.example", 4, time.monotonic() + 8) < 4


def test_it_asks_until_it_makes_no_difference(tmp_path: Path) -> None:
    came: list[float] = []

    def answer(connection: socket.socket) -> None:
        came.append(time.monotonic())
        time.sleep(0.5 if len(came) <= warm.EACH else 0.05)
        connection.sendall(ANSWER)

    said: list[str] = []
    with app(tmp_path / "s", answer) as path:
        warmth = warm.up(path, 0, "", ["/"], "shop.example", said.append)
    # Cold, warm, and one that is no quicker.
    assert (warmth.rounds, len(came)) == (3, 3 * warm.EACH)
    assert warmth.first > 0.4 > warmth.last
    assert "at first" in said[0]


@pytest.mark.parametrize("listening", [True, False])
def test_an_app_that_never_answers_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listening: bool
) -> None:
    monkeypatch.setattr(warm, "LONGEST", 0.5)
    began = time.monotonic()
    if listening:
        with app(tmp_path / "s", lambda _connection: time.sleep(3)) as path:
            warm.up(path, 0, "", ["/"], "shop.example", lambda _line: None)
    else:
        warm.up(tmp_path / "none", 0, "/readyz", ["/"], "shop.example", lambda _line: None)
    assert time.monotonic() - began < 2


def test_a_priority_is_given_to_what_was_started_as_well() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "sleep 60 & wait"]) as shell:
        try:
            deadline = time.monotonic() + 10
            while not (started := warm.children(shell.pid)) and time.monotonic() < deadline:
                time.sleep(0.02)
            warm.give_priority(shell.pid, 7)
            assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in (shell.pid, *started)] == [7, 7]
            warm.give_priority(0, 9)  # nothing runs: not this process
            assert os.getpriority(os.PRIO_PROCESS, 0) != 9
        finally:
            for pid in (*started, shell.pid):
                os.kill(pid, 9)


def test_what_nobody_waits_for_any_more_ends_at_the_lowest_priority(
    host: Lifecycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the way that systemd takes: all of the environment is dropped but for what it says of a unit that stops."""
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(warm, "give_priority", lambda pid, nice: given.append((pid, nice)))
    monkeypatch.setattr(hostctl.Config, "load", lambda: host.config)
    monkeypatch.setattr(hostctl.drain, "wait", lambda *_arguments: True)
    monkeypatch.setenv("SERVICE_RESULT", "success")
    monkeypatch.setenv("MAINPID", "4711")
    assert hostctl.main(["drain", "a.1"]) == 0
    assert given == [(4711, hostctl.LAST)]


def test_where_a_priority_cannot_be_given_back_none_is_taken(host: Lifecycle, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_arguments: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", denied)
    warm.give_priority(os.getpid(), 0)
    monkeypatch.setattr(hostctl, "_tried", lambda *_arguments: True)
    host.activate("a", "me")
    assert hostctl.write_environment(host.config, "a.1") == 0
    assert "SLIPWAY_NICE" not in (host.config.private_run / "env" / "a.1").read_text()


def test_what_is_started_to_be_tried_loads_at_a_low_priority_and_nothing_else(
    host: Lifecycle, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, written = host.systemd.start, {}

    def environment(generation: str) -> str:
        assert hostctl.write_environment(host.config, generation) == 0
        return (host.config.private_run / "env" / generation).read_text()

    def starting(unit: str, block: bool = True) -> bool:
        written[unit] = environment(unit.partition("@")[2].removesuffix(".service"))
        return start(unit, block)

    monkeypatch.setattr(host.systemd, "start", starting)
    host.activate("a", "me")
    assert f'SLIPWAY_NICE="{warm.NICE}"' in written["gunicorn@a.1.service"]
    # It serves, died, and systemd starts it again: beside nothing.
    assert "SLIPWAY_NICE" not in environment("a.1")
    (host.config.state / "state.json").write_text("{")
    assert "SLIPWAY_NICE" not in environment("a.1")
