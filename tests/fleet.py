"""A fleet under load: requests that may be done twice, and orders that may not, and what was lost of each."""

from __future__ import annotations

import http.client
import itertools
import json
import socket
import subprocess
import threading
import time
from collections import Counter
from typing import Any

from benchmarks.loadgen import Load, Plan
from tests.outside import access_log, context, https

APPS = ("app1", "app2")
EMAIL = "reader@fleet.example"
# Of a shop that sold out an order is answered too, by the app.
ANSWERED = (201, 409)
# How long a client waits before it gives up, in seconds: processes that start on a busy machine take theirs.
PATIENCE = 30.0


class Orders:
    """Posts orders one after the other, each over a connection of its own; what became of them."""

    def __init__(self, lab: dict[str, Any], run: str) -> None:
        self.lab, self.run = lab, run
        self.trust = context(lab["ca"])
        self.sent = 0
        self.lost: Counter[str] = Counter()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)

    def one(self, book: int = 1) -> tuple[int, str | None]:
        name = self.lab["edge_name"]
        connection = http.client.HTTPSConnection(name, timeout=PATIENCE, context=self.trust)
        plain = socket.create_connection((self.lab["edge_address"], 443), PATIENCE)
        connection.sock = self.trust.wrap_socket(plain, server_hostname=name)
        try:
            body = json.dumps({"book": book, "quantity": 1, "email": EMAIL})
            headers = {"Content-Type": "application/json", "User-Agent": self.run}
            connection.request("POST", "/api/orders/", body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status, answer.getheader("X-Release")
        finally:
            connection.close()

    def _work(self) -> None:
        while not self.stop.wait(0.05):
            self.sent += 1
            try:
                status, release = self.one()
            except (OSError, http.client.HTTPException) as error:
                self.lost[type(error).__name__] += 1
            else:
                if status not in ANSWERED or not release:
                    self.lost[str(status)] += 1


class Traffic:
    """`with traffic("what is done") as seen: …`; afterwards `seen` says what was sent and lost."""

    numbers = itertools.count(1)

    def __init__(self, lab: dict[str, Any], edge1: Any, title: str) -> None:
        self.edge1, self.lab, self.title = edge1, lab, title
        self.run = f"fleet-{next(self.numbers)}-{int(time.time())}"
        plan = Plan(
            address=lab["edge_address"], host=lab["edge_name"], ca_file=lab["ca"], run_id=self.run, rate=20.0,
            kept=8, pages=("/",), api=("/api/books/",), slow_share=0.02, slow_path="/slow?seconds=1", timeout=PATIENCE,
        )  # fmt: skip
        self.load = Load(plan)
        self.user_agent = plan.user_agent
        self.orders = Orders(lab, plan.user_agent)
        self.gets: dict[str, Any] = {}

    def __enter__(self) -> Traffic:
        self.load.__enter__()
        self.orders.thread.start()
        time.sleep(1)
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            if error[0] is None:
                time.sleep(1)
            self.orders.stop.set()
            self.orders.thread.join(PATIENCE)
            self.gets = self.load.stop()["total"]
        finally:
            self.load.__exit__(*error)

    def backends(self, since: int = 0) -> Counter[str]:
        """Which hosts answered requests of this run, by the edge's log from a line on."""
        names = {f"{self.lab['hosts'][name]['ipv4']}:8443": name for name in APPS}
        found: Counter[str] = Counter()
        for line in access_log(self.edge1, f"tail -n +{since + 1}").splitlines():
            entry = json.loads(line)
            if entry["user_agent"] == self.user_agent and entry["backend"]:
                found[names[entry["backend"].split(", ")[-1]]] += 1
        return found

    def lines(self) -> int:
        return int(access_log(self.edge1, "wc -l").split()[0])

    def wait_for(self, name: str, seconds: float, answers: int = 1) -> None:
        """Until so many requests of this run were answered by a host."""
        begun, since = time.monotonic(), self.lines()
        while (found := self.backends(since)[name]) < answers:
            assert time.monotonic() - begun < seconds, f"{name} answered {found} requests in {seconds} s"

    def told(self) -> str:
        gets, orders = self.gets, self.orders
        return (
            f"{self.title}: GET {gets['sent']} sent, {gets['lost']} lost; "
            f"POST {orders.sent} sent, {sum(orders.lost.values())} lost"
        )

    def assert_nothing_lost(self, posts: bool = True) -> None:
        assert self.gets["complete"]
        assert self.gets["lost"] == 0, (self.gets["lost_by_reason"], self.gets["examples"])
        assert self.gets["sent"] > 30
        assert self.orders.sent > 10
        if posts:
            assert not self.orders.lost, self.orders.lost


def wait_for_ssh(ops: Any, name: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while ops.as_deployer("true", host=name).returncode != 0:
        assert time.monotonic() < end, f"{name} lets nobody in"
        time.sleep(0.5)


def engine(*words: str) -> None:
    subprocess.run(["docker", *words], check=True, stdout=subprocess.DEVNULL, timeout=120)


def wait_until_all_answer(lab: dict[str, Any], edge1: Any, seconds: float = 30) -> None:
    """A host that refused a moment ago is not asked again for some seconds."""
    agent, end = f"all/{time.time()}", time.monotonic() + seconds
    places = {f"{lab['hosts'][name]['ipv4']}:8443" for name in APPS}
    seen: set[str] = set()
    while seen != places:
        assert time.monotonic() < end, f"only {seen or 'nobody'} answered for {seconds} s"
        for _ in range(4):
            https(lab, headers={"User-Agent": agent})
        lines = map(json.loads, access_log(edge1, "tail -n 200").splitlines())
        seen = {line["backend"] for line in lines if line["user_agent"] == agent and "," not in line["backend"]}
