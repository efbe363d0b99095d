"""The lab's site as the bench and the demo see it: from outside over HTTPS, and over ssh as those who may."""

import contextlib
import http.client
import json
import os
import shlex
import socket
import ssl
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.loadgen import Plan
from benchmarks.loadgen.tally import compare, read_log
from benchmarks.story import ROOT, StepFailed

RELEASECTL = "/usr/local/sbin/releasectl"
ADMIN, DEPLOYER = "ops", "deployer"
EDGE = "app1"
ACCESS_LOG = "/var/log/nginx/access.log"


class Site:
    def __init__(self, facts: dict[str, Any], host: str = EDGE) -> None:
        self.facts = facts
        self.host = host  # of which ssh asks
        self.address: str = facts["edge_address"]
        self.name: str = facts["edge_name"]
        self.ca_file: str = facts["ca"]
        self._control = Path(tempfile.gettempdir()) / f"slipway-bench-{os.getpid()}-%C"

    @classmethod
    def of_lab(cls, lab: str) -> "Site":
        path = ROOT / ".lab" / lab / "facts.json"
        try:
            return cls(json.loads(path.read_text(encoding="utf-8")))
        except OSError:
            raise StepFailed(f"the lab {lab} is not up: start it with `make lab-up LAB={lab}`") from None

    def on(self, host: str) -> "Site":
        """The same site, with another host asked over ssh."""
        return Site(self.facts, host)

    # Over ssh.
    def ssh_command(self, user: str, command: str) -> list[str]:
        return [
            "ssh", "-F", self.facts["ssh_config"], "-o", "BatchMode=yes", "-o", "ControlMaster=auto",
            "-o", f"ControlPath={self._control}", "-o", "ControlPersist=60", f"{user}@{self.host}", command,
        ]  # fmt: skip

    def ssh(
        self, user: str, command: str, check: bool = True, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.ssh_command(user, command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
        )
        if check and done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
            raise StepFailed(f"`{command}` as {user} ended with code {done.returncode}: {last}")
        return done

    def sudo(self, script: str, check: bool = True) -> str:
        """As the admin, with root's rights: what an operator would type on the host."""
        return self.ssh(ADMIN, f"sudo -n bash -euc {shlex.quote(script)}", check).stdout

    def releasectl(self, *arguments: str, check: bool = True) -> dict[str, Any]:
        """As the deployer, by the one right that it has."""
        command = shlex.join(["sudo", "-n", RELEASECTL, *arguments, "--json"])
        done = self.ssh(DEPLOYER, command, check=False)
        try:
            answer: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
            raise StepFailed(f"releasectl {arguments[0]} did not answer (code {done.returncode}): {said}") from None
        if check and not answer.get("ok"):
            raise StepFailed(f"releasectl {' '.join(arguments)}: {answer.get('message', 'no message')}")
        return answer

    def end_what_was_cut_short(self) -> None:
        """A demo or a bench that was interrupted in a deploy left its lease, and this lab is nobody else's."""
        self.ssh(DEPLOYER, f"sudo -n {RELEASECTL} unlock --force", check=False)

    def close(self) -> None:
        for user in (ADMIN, DEPLOYER):
            command = self.ssh_command(user, "true")
            subprocess.run([*command[:-2], "-O", "exit", command[-2]], capture_output=True, stdin=subprocess.DEVNULL)

    # From outside.
    def get(self, path: str = "/", timeout: float = 10) -> tuple[int, dict[str, str], str]:
        """One request on a connection of its own, to the edge's own address, by the site's name."""
        context = ssl.create_default_context(cafile=self.ca_file)
        with socket.create_connection((self.address, 443), timeout) as raw:
            connection = http.client.HTTPSConnection(self.name, timeout=timeout, context=context)
            connection.sock = context.wrap_socket(raw, server_hostname=self.name)
            with contextlib.closing(connection):
                connection.request("GET", path, headers={"Connection": "close", "User-Agent": "slipway-look"})
                answer = connection.getresponse()
                body = answer.read().decode(errors="replace")
                return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body

    def answering(self) -> str:
        """Which release a visitor gets; empty when none."""
        try:
            status, headers, _ = self.get()
        except OSError:
            return ""
        return headers.get("x-release", "") if status == 200 else ""

    def wait_for(self, release: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while (got := self.answering()) != release:
            if time.monotonic() > deadline:
                raise StepFailed(f"the site should be answered by {release}, but it is by {got or 'nobody'}")
            time.sleep(0.25)

    def expect(self, release: str) -> None:
        """Right now, several times over: the release that answers is this one and no other."""
        got = {self.answering() for _ in range(5)}
        if got != {release}:
            names = ", ".join(sorted(name or "nobody" for name in got))
            raise StepFailed(f"the site should be answered by {release} alone, but it is by {names}")

    # The load and its second witness.
    def plan(self, **more: Any) -> Plan:
        given: dict[str, Any] = {
            "address": self.address, "host": self.name, "ca_file": self.ca_file, "run_id": uuid.uuid4().hex[:12],
            "api": ("/api/books/", "/api/books/1/"), "static": ("/static/favicon.svg",),
        }  # fmt: skip
        return Plan(**(given | more))

    @contextlib.contextmanager
    def witness(self, into: dict[str, Any]) -> Iterator[None]:
        """Hold the result that the block puts into `into["result"]` against what nginx logged meanwhile."""
        size = int(self.sudo(f"stat -c %s {ACCESS_LOG}"))
        yield
        agent = into["result"]["user_agent"]
        deadline = time.monotonic() + 15
        while True:
            # nginx may hold lines back for a while.
            text = self.sudo(f"tail -c +{size + 1} {ACCESS_LOG} | grep -F {shlex.quote(agent)} || test $? = 1")
            into["nginx"] = compare(into["result"], read_log(text.splitlines(), agent), agent)
            if into["nginx"]["agree"] or time.monotonic() > deadline:
                return
            time.sleep(1)


def connections(total: dict[str, Any]) -> str:
    """How the requests of a load came, for its summary."""
    return (
        f"{total['by_connection']['new']} on new TLS connections and {total['by_connection']['kept']} on kept ones"
        f" ({total['retried']} sent again on a fresh one, because the server had just closed it idle);"
        f" {total['by_kind'].get('slow', 0)} took 2 s."
    )


def agreement(nginx: dict[str, Any]) -> str:
    """What the two witnesses counted, for a summary."""
    return (
        f"The client counted {nginx['client']} and {nginx['client_unanswered']} without an answer, nginx logged"
        f" {nginx['nginx']}: they {'agree' if nginx['agree'] else 'do NOT agree'}."
    )


def machine(result: dict[str, Any]) -> str:
    """What a load was made with, for its summary."""
    return (
        f"The machine: {os.cpu_count()} cores, load average {load_average()}; the generator used"
        f" {result['cpu_seconds']} CPU-seconds and was at most {result['total']['generator_late_ms']} ms late."
    )


def unproven(total: dict[str, Any], nginx: dict[str, Any]) -> list[str]:
    """Why the count of a load is not to be believed, a sentence each."""
    found = []
    if not total["complete"]:
        found.append(f"{total['scheduled']} requests were due, {total['sent']} were sent")
    if not nginx["agree"]:
        found.append(f"nginx's log tells another story than the client: {nginx['differences']}")
    return found


def load_average() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())
