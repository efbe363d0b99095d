"""What Celery's worker loads beside the app, in a worker of the bookshop's own Celery, with a broker in its memory.

With Redis and over switches: molecule/services/tests/test_tasks.py.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# A release that knows the task `old` works, and then one that knows `new` as well.
PROGRAM = """
import json, sys, time
import slipway_worker
from celery import Celery
from celery.contrib.testing.worker import start_worker

done = []

def shop(*names):
    app = Celery("shop", broker="memory://")
    for name in names:
        def task(self, number, name=name):
            done.append([name, number, self.request.shelf])
        app.task(task, name=name, bind=True, shared=False)
    return app

def work(app):
    with start_worker(app, pool="solo", perform_ping_check=False):
        time.sleep(1.5)
    with app.connection() as connection:
        size = connection.default_channel.queue_declare(slipway_worker.QUEUE).message_count
    return {"done": sorted(done), "aside": size}

older, newer = shop("old"), shop("old", "new")
for number in (1, 2, 3):
    older.send_task("new", (number,), headers={"shelf": 7}, compression="gzip" if number == 3 else None)
older.send_task("old", (4,), headers={"shelf": 8})
print(json.dumps([work(older), work(newer)]))
"""


def seen(python: str, most: int) -> list[dict[str, object]]:
    """What each of the two did, with room for so many tasks aside."""
    run = subprocess.run(
        [python, "-c", PROGRAM],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "roles/services/files"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SLIPWAY_STOP_TIMEOUT": "5",
            "SLIPWAY_ASIDE_MAX": str(most),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    told: list[dict[str, object]] = json.loads(run.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize("most", [2, 0])
def test_a_task_that_is_not_known_waits_for_a_release_that_knows_it(django: str, most: int) -> None:
    """As many as there is room for; more are dropped, as Celery drops all."""
    old, new = seen(django, most)
    waits = min(most, 3)
    assert old == {"done": [["old", 4, 8]], "aside": waits}
    assert new == {"done": [["new", number, 7] for number in range(1, waits + 1)] + [["old", 4, 8]], "aside": 0}
