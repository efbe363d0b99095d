"""Somebody who asks the edge all the time, while something is done to a host."""

from __future__ import annotations

import threading
from typing import Any


class Watch:
    """Asks the edge all the time; what it was answered, and by whom."""

    def __init__(self, edge: Any) -> None:
        self.edge = edge
        self.failures: list[str | int] = []
        self.releases: set[str | None] = set()
        self.asked = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        """Ask until it is told to stop."""
        while not self.stop.wait(0.02):
            self.asked += 1
            try:
                answer = self.edge.get("/")
            except OSError as error:
                self.failures.append(repr(error))
                continue
            self.releases.add(answer.release)
            if answer.status != 200:
                self.failures.append(answer.status)

    def __enter__(self) -> Watch:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(15)
