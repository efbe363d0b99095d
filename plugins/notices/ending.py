"""How a run ended, in the sentences that its tasks left: what is printed last, and what is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# What judges a run over many hosts: what it says is the reason, whatever its tasks said before.
VERDICTS = ("release_verdict", "settings_verdict")


@dataclass(frozen=True)
class Sentence:
    """The text, whether it is good news, and the journal of what was refused."""

    text: str
    good: bool
    journal: tuple[str, ...] = ()


@dataclass
class Ending:
    """Collects closings, refusals and failures while a run goes on."""

    closings: dict[str, None] = field(default_factory=dict)
    refusal: Mapping[str, Any] | None = None
    failures: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def ok(self, answer: Mapping[str, Any]) -> None:
        """A task that speaks went well."""
        if answer.get("closing"):
            self.closings[str(answer["closing"])] = None

    def failed(self, host: str, action: str, answer: Mapping[str, Any]) -> None:
        """Any task failed."""
        self.failures[host] = dict(answer)
        if answer.get("closing") and action in VERDICTS:
            self.refusal = dict(answer)

    def unreachable(self, host: str, answer: Mapping[str, Any]) -> None:
        """A host was lost."""
        cause = " ".join(str(answer.get("msg", "")).removeprefix("Task failed: ").split())
        self.failures[host] = {"msg": f"{host} could not be reached: {cause}"}

    def sentences(self, bad: Iterable[str]) -> list[Sentence]:
        """What to say in the end; ``bad`` are the hosts that failed by the recap."""
        failed = list(bad)
        # An audit closes host by host: what is well on the others is told as well.
        good = [Sentence(closing, True) for closing in self.closings]
        if not failed and self.refusal is None:
            return good
        answers = [self.refusal] if self.refusal else [self.failures[host] for host in failed if host in self.failures]
        said: dict[str, tuple[str, ...]] = {}
        for answer in answers:
            text = " ".join(str(answer.get("msg", "A task failed, see above.")).split())
            said.setdefault(text, tuple(str(line) for line in answer.get("journal") or []))
        return good + [Sentence(text, False, journal) for text, journal in said.items()]


def troubled(stats: Any) -> list[str]:
    """The hosts that failed or were lost, by Ansible's recap."""
    found = ((str(host), stats.summarize(host)) for host in stats.processed)
    return [host for host, summary in found if summary["failures"] or summary["unreachable"]]
