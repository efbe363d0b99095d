"""Ask the public edge, from this machine and as a user would, whether the release that should answer does."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

PAUSE = 0.2


@dataclass(frozen=True)
class Question:
    """What to ask, and what the right answer is."""

    domain: str
    path: str
    port: int
    release: str
    status: int = 200


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


def ask(address: str, question: Question, context: ssl.SSLContext, timeout: float) -> str:
    """Ask once over a new connection; return what is wrong with the answer, nothing when it is right."""
    connection = Connection(address, question, context, timeout)
    try:
        connection.request("GET", question.path, headers={"Host": question.domain, "Connection": "close"})
        answer = connection.getresponse()
        answer.read(1 << 20)
        release = answer.getheader("X-Release")
    except ssl.SSLCertVerificationError as error:
        return f"showed a certificate that cannot be trusted ({error.verify_message})"
    except TimeoutError:
        return f"did not answer within {timeout:.0f} s"
    except (OSError, http.client.HTTPException) as error:
        return f"cannot be asked ({error.strerror if isinstance(error, OSError) and error.strerror else error!r})"
    finally:
        connection.close()
    if answer.status != question.status:
        return f"answered {answer.status}, not {question.status}"
    if release is None:
        return "answered without the header X-Release, which the app must send with the value of RELEASE_ID"
    if release != question.release:
        return f"answered from {release}, not from {question.release}"
    return ""


def convince(addresses: list[str], question: Question, context: ssl.SSLContext, successes: int, timeout: float) -> str:
    """Ask every edge until it was right several times in a row; return the sentence of what is wrong, or nothing."""
    deadline = time.monotonic() + timeout
    for address in addresses:
        row = 0
        while row < successes:
            wrong = ask(address, question, context, max(1.0, min(10.0, deadline - time.monotonic())))
            row = 0 if wrong else row + 1
            if wrong and time.monotonic() + PAUSE > deadline:
                where = f"https://{question.domain}{question.path} through {address}"
                return f"{where} {wrong} (asked for {timeout:.0f} s)."
            if wrong:
                time.sleep(PAUSE)
    return ""


def trust(pem: str) -> ssl.SSLContext:
    """Trust the given authorities and no other; those of this machine when none is given."""
    context = ssl.create_default_context(cadata=pem) if pem else ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class ActionModule(ActionBase):
    """`edge_check: {release: …, domain: …, edges: […]}`; see `convince`."""

    _VALID_ARGS = frozenset(
        ("release", "domain", "path", "port", "edges", "addresses", "ca_certificate", "successes", "timeout")
    )
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = self._task.args
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
        )
        addresses = [str(a) for a in arguments.get("addresses") or []]
        if not addresses:
            hosts = (task_vars or {})["hostvars"]
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
        wrong = convince(
            addresses, question, context, int(arguments.get("successes") or 3), float(arguments.get("timeout") or 15)
        )
        if wrong:
            return {"failed": True, "refused": True, "changed": False, "msg": wrong}
        return {"changed": False, "msg": f"{question.release} answers through {', '.join(addresses)}."}
