"""No task is lost by a switch, there or back, nor by a worker that is killed; and beat ticks on, once."""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from lab import cargo as packing
from molecule.conftest import LAB

pytestmark = pytest.mark.full  # about five minutes

COUNT = 2000
NEWER = "bookshop.tasks.newer"  # which `counting-1` does not know
PERIOD = 10.0  # seconds between two ticks, by lab/cargo.py


@dataclass(frozen=True)
class Note:
    """What a task of the variant `counting` wrote down (see lab/cargo.py)."""

    at: float
    generation: str
    what: str
    number: int


def until(seconds: float, condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"after {seconds} s not {what}"
        time.sleep(1)


class Queue:
    """The tasks of the live release: sent as its own code sends them."""

    def __init__(self, app1: Any) -> None:
        self.app1 = app1

    def inside(self, code: str) -> str:
        """What Python prints that runs as the app, in the live release."""
        code = f"import json; from bookshop import tasks; from config.celery import app\n{code}"
        found: str = self.app1.check_output(f"app-manage shell -v 0 -c {shlex.quote(code)}")
        return found

    def send(self, task: str, *arguments: tuple[object, ...], **options: object) -> None:
        self.inside(f"[tasks.{task}.apply_async(args, **{options!r}) for args in {list(arguments)!r}]")

    def notes(self) -> list[Note]:
        kept = "app.connection_for_write().default_channel.client.lrange('notes', 0, -1)"
        lines = json.loads(self.inside(f"print(json.dumps([line.decode() for line in {kept}]))").splitlines()[-1])
        return [
            Note(float(at), generation, what, int(number))
            for at, generation, what, number in (line.split() for line in lines)
        ]

    def forget(self) -> None:
        self.inside("app.connection_for_write().default_channel.client.delete('notes')")

    def ended(self) -> set[int]:
        return {note.number for note in self.notes() if note.what == "end"}

    def wait(self, seconds: float, enough: Callable[[list[Note]], bool], what: str) -> list[Note]:
        until(seconds, lambda: enough(self.notes()), what)
        return self.notes()

    def wait_for(self, numbers: set[int], seconds: float = 300) -> None:
        until(seconds, lambda: self.ended() >= numbers, "all done")


def numbered(first: int, last: int) -> list[tuple[object, ...]]:
    return [(number,) for number in range(first, last)]


@pytest.fixture(scope="module")
def counting() -> dict[str, dict[str, Any]]:
    return packing.variants(["counting-1", "counting-2", "hasty-2"], LAB)


@pytest.fixture(scope="module")
def switch(
    ops: Any, edge: Any, app1: Any, cargo: dict[str, Any], counting: dict[str, Any]
) -> Iterator[Callable[[str], str]]:
    """Have a variant live, and return its release. In the end nothing is left of their tasks."""
    ops.have_live(edge, cargo["good-1"])

    def to(name: str) -> str:
        release = str(counting[name]["id"])
        if any(one["id"] == release for one in ops.status()["releases"]):
            if ops.live() != release:
                verb(app1, "activate", f"--id={release}")
        else:
            run = ops.deploy(counting[name]["artifact"])
            assert run.code == 0, run.output
        return release

    yield to
    app1.check_output("systemctl stop 'celery-worker@*' 'celery-beat@*'")
    Queue(app1).inside("app.connection().default_channel.client.flushdb()")
    # What was live before may have been pruned meanwhile.
    run = ops.deploy(cargo["good-1"]["artifact"])
    assert run.code == 0, run.output


@pytest.fixture
def queue(app1: Any) -> Queue:
    return Queue(app1)


def verb(app1: Any, *words: str) -> None:
    done = app1.run(f"releasectl {' '.join(words)}")
    assert done.rc == 0, done.stdout + done.stderr


def generation(ops: Any) -> str:
    return str(ops.status()["live"]["generation"])


def said(app1: Any, words: str) -> int:
    """How many lines of the workers have these words."""
    app1.check_output("journalctl --sync")
    return int(
        app1.check_output(f"journalctl -o cat --no-pager -t celery-worker | grep -F {shlex.quote(words)} | wc -l")
    )


@pytest.mark.failure("unknown-task")
def test_each_task_is_done_over_five_switches_and_a_rollback(
    switch: Callable[[str], str], queue: Queue, app1: Any, ops: Any
) -> None:
    """Every second task from the first deploy of `counting-2` to the rollback has a name that `counting-1` lacks."""
    step = COUNT // 5
    old = switch("counting-1")
    queue.forget()
    dropped, aside = said(app1, "Received unregistered task"), said(app1, "Set aside")

    queue.send("counted", *numbered(0, step))
    new = switch("counting-2")  # 1
    queue.send("newer", *numbered(step, 2 * step))
    verb(app1, "restart")  # 2
    queue.send("counted", *numbered(2 * step, 3 * step))
    verb(app1, "restart")  # 3
    # Each takes long enough that most are in the queue when the rollback is over. The last ones are due much later.
    queue.send("newer", *[(number, 0.1 + 20 / step) for number in range(3 * step, 4 * step - 5)])
    queue.send("newer", *numbered(4 * step - 5, 4 * step), countdown=20, priority=3, headers={"x-shelf": "7"})
    verb(app1, "rollback")
    assert ops.live() == old
    queue.send("counted", *numbered(4 * step, 5 * step))
    queue.wait_for(set(range(3 * step)) | set(range(4 * step, 5 * step)))
    verb(app1, "restart")  # 4

    # What only the newer release knows waits, and an operator sees that.
    assert said(app1, f"Set aside: no task of this release is called {NEWER}") > aside
    until(60, lambda: "tasks of names that this release does not know are set aside" in ops.status()["tasks"], "told")
    assert not set(range(4 * step - 5, 4 * step)) & queue.ended()
    assert ops.status()["drift"] == []

    assert switch("counting-2") == new  # 5
    queue.wait_for(set(range(COUNT)))
    assert said(app1, "Received unregistered task") == dropped
    until(60, lambda: ops.status()["tasks"] == "", "forgotten")
    left = queue.inside("print(app.connection().default_channel._size('slipway.aside'))")
    assert left.splitlines()[-1] == "0"


# As Redis has them: those that wait, and those that a worker holds until they are due.
WAITING = "[raw for queue in ('celery', 'celery\\x06\\x163') for raw in redis.lrange(queue, 0, -1)]"
HELD = "[json.dumps(json.loads(raw)[0]) for raw in redis.hvals('unacked')]"


def test_what_is_set_aside_comes_back_as_it_was(switch: Callable[[str], str], queue: Queue, app1: Any) -> None:
    def raw(where: str) -> list[dict[str, Any]]:
        """The tasks that only `counting-2` knows, but for the tag that each delivery has of its own."""
        code = f"redis = app.connection().default_channel.client; print(json.dumps([json.loads(x) for x in {where}]))"
        found = [one for one in json.loads(queue.inside(code).splitlines()[-1]) if one["headers"]["task"] == NEWER]
        for one in found:
            del one["properties"]["delivery_tag"]
        return sorted(found, key=lambda one: str(one["headers"]["id"]))

    def there_are(count: int, where: str) -> list[dict[str, Any]]:
        until(90, lambda: len(raw(where)) == count, f"{count} of {where}")
        return raw(where)

    switch("counting-2")
    # Nobody takes it before it was looked at.
    app1.check_output("systemctl stop 'celery-worker@*'")
    options = {"countdown": 600, "expires": 900, "headers": {"x-shelf": "7"}, "reply_to": "me"}
    queue.send("newer", (7001,), priority=3, **options)
    queue.send("newer", (7002,), compression="gzip", **options)
    sent = there_are(2, WAITING)
    switch("counting-1")
    there_are(0, WAITING)
    switch("counting-2")
    assert there_are(2, HELD) == sent


@pytest.mark.failure("long-tasks")
def test_a_task_that_takes_longer_than_a_worker_may_goes_to_the_next_one(
    switch: Callable[[str], str], queue: Queue, app1: Any, ops: Any
) -> None:
    """With acks_late. One that was acknowledged when it began ends with its worker: docs/ops/workers.md."""
    switch("counting-2")
    queue.forget()
    first = generation(ops)
    queue.send("counted", (1, 40))
    queue.send("early", (2, 40))
    queue.wait(60, lambda notes: {n.number for n in notes if n.what == "begin"} == {1, 2}, "begun")
    verb(app1, "restart")
    second = generation(ops)
    notes = queue.wait(240, lambda notes: any(n.what == "end" and n.number == 1 for n in notes), "done")
    told = [(n.generation, n.what) for n in notes if n.number == 1]
    assert told == [(first, "begin"), (second, "begin"), (second, "end")]
    assert [n.what for n in notes if n.number == 2] == ["begin"]
    assert app1.run(f"systemctl is-active celery-worker@{first}").rc != 0


@pytest.mark.failure("worker-killed")
def test_nothing_in_hand_is_lost_when_a_worker_is_killed(
    switch: Callable[[str], str], queue: Queue, app1: Any, ops: Any
) -> None:
    switch("hasty-2")
    queue.forget()
    unit = f"celery-worker@{generation(ops)}.service"
    queue.send("counted", *[(number, 1) for number in range(120)])
    for who in ("main", "all", "control"):
        begun = {n.number for n in queue.notes() if n.what == "begin"}
        queue.wait(60, lambda notes, b=begun: {n.number for n in notes if n.what == "begin"} > b, "at work")
        if who == "control":  # the children alone
            main = app1.check_output(f"systemctl show --property=MainPID --value {unit}").strip()
            app1.check_output(f"pkill -KILL -P {main}")
        else:
            app1.check_output(f"systemctl kill --kill-who={who} --signal=KILL {unit}")
    queue.wait_for(set(range(120)), 300)
    assert queue.ended() == set(range(120))


def test_beat_never_runs_twice_and_skips_no_tick(
    switch: Callable[[str], str], queue: Queue, app1: Any, ops: Any, lab: dict[str, Any]
) -> None:
    """Each switch comes when a tick is due next, so that it falls where no scheduler runs."""
    switch("counting-2")
    app1.check_output(f"systemctl is-active celery-beat@{generation(ops)}")
    queue.forget()
    look = "pgrep -fc '^[^ ]*python[^ ]* .*/celery --app config beat'"
    watch = f"touch /run/watching; while [ -e /run/watching ]; do {look}; sleep 0.1; done"
    watching = subprocess.Popen(
        ["docker", "exec", lab["hosts"]["app1"]["container"], "sh", "-c", watch],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    counts: list[int] = []
    reader = threading.Thread(target=lambda: counts.extend(int(line) for line in watching.stdout or ()))
    reader.start()

    def ticks() -> list[Note]:
        return [note for note in queue.notes() if note.what == "tick"]

    def wait_for_another(before: int) -> None:
        queue.wait(60, lambda notes: len([n for n in notes if n.what == "tick"]) > before, "ticking")

    try:
        for _ in range(3):
            wait_for_another(len(ticks()))
            last = ticks()[-1].at
            now = float(app1.check_output("date +%s.%N"))
            # The verb takes some seconds until it comes to the scheduler.
            time.sleep(max(0.0, last + PERIOD - 4 - now))
            verb(app1, "restart")
        wait_for_another(len(ticks()))
        app1.check_output(f"systemctl kill --kill-who=all --signal=KILL celery-beat@{generation(ops)}")
        wait_for_another(len(ticks()) + 1)
    finally:
        app1.check_output("rm /run/watching")
        watching.wait(30)
        reader.join()
    found = ticks()
    assert max(counts) == 1
    assert 0 in counts  # it was looked at closely enough to see one go before the next came
    apart = [after.at - before.at for before, after in pairwise(found)]
    assert max(apart) < 2 * PERIOD, found
    # A generation that has given way never ticks again.
    order = [note.generation for note in found]
    assert [g for i, g in enumerate(order) if i == 0 or order[i - 1] != g] == list(dict.fromkeys(order))
    assert len(set(order)) >= 3
