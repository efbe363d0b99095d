"""Ask the public edge, from this machine and as a user would, whether the release that should answer does."""

from __future__ import annotations

import http.client
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

HOST_PROGRAM = Path(__file__).resolve().parents[2] / "roles/release/files"
if str(HOST_PROGRAM) not in sys.path:
    sys.path.append(str(HOST_PROGRAM))

from releasectl import smoke
from releasectl.errors import Refusal

PAUSE = 0.2


@dataclass(frozen=True)
class Question:
    """What to ask, and what the right answer is."""

    domain: str
    path: str
    port: int
    release: str
    status: tuple[int, ...] = (200,)
    # Hosts of the app that this deploy leaves alone: where they are up, edges ask them too.
    left_out: tuple[str, ...] = ()

    def other(self, release: str) -> str:
        """Say that another release answered, and who may have it."""
        told = f"answered from {release}, not from {self.release}"
        if self.left_out:
            who = " and ".join(self.left_out)
            told += f"; {who} may be answering, left out by --limit: sudo releasectl drain there keeps the edges away"
        return told


class Connection(http.client.HTTPSConnection):
    """HTTPS to a given address, with the certificate checked against the name that users type."""

    def __init__(self, address: str, question: Question, context: ssl.SSLContext, timeout: float) -> None:
        super().__init__(question.domain, question.port, timeout=timeout, context=context)
        self.address = address
        self.trust = context

    def connect(self) -> None:
        plain = socket.create_connection((self.address, self.port), self.timeout)
        try:
            self.sock = self.trust.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def ask(address: str, question: Question, test: smoke.SmokeTest, context: ssl.SSLContext) -> str:
    """Ask once over a new connection; return what is wrong with the answer, nothing when it is right."""
    connection = Connection(address, question, context, test.within)
    try:
        answer = smoke.fetch(connection, test, {"Host": question.domain})
    except ssl.SSLCertVerificationError as error:
        return f"showed a certificate that cannot be trusted ({error.verify_message})"
    except (OSError, http.client.HTTPException) as error:
        return smoke.trouble(error, test)
    wrong = smoke.judge(test, answer)
    release = answer.headers.get("x-release")
    if wrong:
        return wrong
    if release is None:
        return "answered without the header X-Release, which the app must send with the value of RELEASE_ID"
    if release != question.release:
        return question.other(release)
    return ""


def convince(addresses: list[str], question: Question, context: ssl.SSLContext, successes: int, timeout: float) -> str:
    """Ask every edge until it was right several times in a row; return the sentence of what is wrong, or nothing."""
    deadline = time.monotonic() + timeout
    for address in addresses:

        def once(address: str = address) -> str:
            within = max(1.0, min(10.0, deadline - time.monotonic()))
            test = smoke.SmokeTest(question.path, status=question.status, within=within)
            return ask(address, question, test, context)

        if wrong := insist(once, successes, deadline):
            where = f"https://{question.domain}{question.path} through {address}"
            return f"{where} {wrong} (asked for {timeout:.0f} s)."
    return ""


def prove(
    addresses: list[str],
    question: Question,
    tests: tuple[smoke.SmokeTest, ...],
    context: ssl.SSLContext,
    timeout: float,
) -> str:
    """Ask every edge every smoke test until it holds; return the sentence of what does not, or nothing."""
    deadline = time.monotonic() + timeout
    for address in addresses:
        for test in tests:

            def once(address: str = address, test: smoke.SmokeTest = test) -> str:
                return ask(address, question, test, context)

            if wrong := insist(once, 1, deadline):
                where = f"https://{question.domain}{test.path} through {address}"
                return f"The smoke test {test.name} failed: {where} {wrong}."
    return ""


def insist(once: Callable[[], str], successes: int, deadline: float) -> str:
    """Ask until it was right so many times in a row; return what was wrong last when time is up, or nothing."""
    row = 0
    while row < successes:
        wrong = once()
        row = 0 if wrong else row + 1
        if wrong and time.monotonic() + PAUSE > deadline:
            return wrong
        if wrong:
            time.sleep(PAUSE)
    return ""


def trust(pem: str) -> ssl.SSLContext:
    """Trust the given authorities and no other; those of this machine when none is given."""
    context = ssl.create_default_context(cadata=pem) if pem else ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class ActionModule(ActionBase):
    """`edge_check: {release: …, domain: …, edges: […]}`; see `convince`, and for `smoke_tests` `prove`."""

    _VALID_ARGS = frozenset(
        (
            *("release", "domain", "path", "port", "edges", "addresses", "ca_certificate", "successes", "timeout"),
            "smoke_tests",
        )
    )
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = self._task.args
        variables = task_vars or {}
        if self._task.check_mode:
            return {"skipped": True, "changed": False, "msg": "the edge is not asked in check mode."}
        for name in ("release", "domain"):
            if not arguments.get(name):
                raise AnsibleActionFail(f"edge_check needs '{name}'.")
        question = Question(
            str(arguments["domain"]),
            str(arguments.get("path") or "/"),
            int(arguments.get("port") or 443),
            str(arguments["release"]),
            # No path is known for its health: that it answers, and which release does, is all that can be asked.
            (200,) if arguments.get("path") else tuple(range(200, 500)),
            tuple(
                str(host)
                for host in (variables.get("groups") or {}).get("app") or []
                if host not in variables["ansible_play_hosts_all"]
            ),
        )
        addresses = [str(a) for a in arguments.get("addresses") or []]
        if not addresses:
            hosts = variables["hostvars"]
            addresses = [str(hosts[edge].get("ansible_host", edge)) for edge in arguments.get("edges") or []]
        if not addresses:
            return {
                "failed": True,
                "refused": True,
                "changed": False,
                "msg": "There is no edge to ask: the group 'edge' has no host.",
            }
        try:
            context = trust(str(arguments.get("ca_certificate") or ""))
        except ssl.SSLError as error:
            return {
                "failed": True,
                "changed": False,
                "msg": f"release_verify_ca_certificate is no certificate ({error}).",
            }
        try:
            tests = tuple(t for t in smoke.parse(arguments.get("smoke_tests") or []) if t.at != "socket")
        except Refusal as refusal:
            return {"failed": True, "refused": True, "changed": False, "msg": refusal.message}
        timeout = float(arguments.get("timeout") or 15)
        wrong = convince(addresses, question, context, int(arguments.get("successes") or 3), timeout)
        wrong = wrong or prove(addresses, question, tests, context, timeout)
        if wrong:
            return {"failed": True, "refused": True, "changed": False, "msg": wrong}
        proven = f", and passes {len(tests)} smoke tests" if tests else ""
        return {"changed": False, "msg": f"{question.release} answers through {', '.join(addresses)}{proven}."}
