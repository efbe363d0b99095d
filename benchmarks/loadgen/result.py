"""From outcomes to a tally: what was sent, what was lost and why, who answered, how long it took."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

# A loss with one of these reasons was never answered with a status that the server could have logged as such.
UNANSWERED = ("refused", "reset", "closed", "truncated", "timeout", "tls", "protocol", "unreachable")


@dataclass(slots=True)
class Outcome:
    at: float  # when it was due, seconds from the start of the run
    kind: str
    new: bool
    late: float = 0.0  # how long after that the generator itself got round to it
    latency: float = 0.0  # from when it was due to the last byte
    status: int = 0
    release: str = ""
    lost: str = ""
    detail: str = ""
    retried: bool = False

    def is_lost(self, refused: Iterable[str] = ()) -> bool:
        return bool(self.lost) or (bool(self.release) and self.release in refused)


# Of a window's answers, beside each kind of them.
BUT_SLOW = "all but slow"


@dataclass(slots=True)
class Window:
    """A stretch of the run, in seconds from its start; what was due in it is counted with others of its name."""

    name: str
    begin: float
    end: float | None = None  # None while it is open

    @property
    def names(self) -> tuple[str, ...]:
        """Its own, and before it those that it is a part of: of "switch/deploy" that is "switch"."""
        parts = self.name.split("/")
        return tuple("/".join(parts[: place + 1]) for place in range(len(parts)))


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that this share of all is not above."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _latencies(outcomes: list[Outcome]) -> dict[str, float]:
    ordered = sorted(outcome.latency * 1000 for outcome in outcomes)
    shares = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: round(percentile(ordered, share), 1) for name, share in shares.items()}


def _tally(outcomes: list[Outcome], refused: set[str]) -> dict[str, Any]:
    lost = [outcome for outcome in outcomes if outcome.is_lost(refused)]
    answered = [outcome for outcome in outcomes if not outcome.is_lost(refused)]
    reasons = Counter(outcome.lost or "refused_release" for outcome in lost)
    return {
        "sent": len(outcomes),
        "answered": len(answered),
        "lost": len(lost),
        "lost_by_reason": dict(reasons.most_common()),
        "by_kind": dict(Counter(outcome.kind for outcome in outcomes).most_common()),
        "by_connection": {
            "new": sum(outcome.new for outcome in outcomes),
            "kept": sum(not outcome.new for outcome in outcomes),
        },
        "by_status": dict(sorted(Counter(str(outcome.status) for outcome in outcomes if outcome.status).items())),
        "by_release": dict(Counter(outcome.release for outcome in outcomes if outcome.release).most_common()),
        "retried": sum(outcome.retried for outcome in outcomes),
        "latency_ms": _latencies([outcome for outcome in answered if outcome.kind != "slow"]),
        "slow_latency_ms": _latencies([outcome for outcome in answered if outcome.kind == "slow"]),
        "generator_late_ms": round(max((outcome.late for outcome in outcomes), default=0.0) * 1000, 1),
        "first_loss_at": round(min((outcome.at for outcome in lost), default=0.0), 3),
        "last_loss_at": round(max((outcome.at for outcome in lost), default=0.0), 3),
        "examples": [
            {"at": round(item.at, 3), "kind": item.kind, "reason": item.lost or "refused_release",
             "status": item.status, "release": item.release, "detail": item.detail}
            for item in sorted(lost, key=lambda outcome: outcome.at)[:5]
        ],
    }  # fmt: skip


def _windows(outcomes: list[Outcome], windows: Sequence[Window], refused: set[str]) -> dict[str, Any]:
    """By name: how many there were, how long they took together, what was lost and how long the answers took."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.at)
    times = [outcome.at for outcome in ordered]
    inside: dict[str, list[Outcome]] = {}
    counts: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    for window in windows:
        end = float("inf") if window.end is None else window.end
        found = ordered[bisect_left(times, window.begin) : bisect_left(times, end)]
        length = (window.end if window.end is not None else max(times, default=window.begin)) - window.begin
        for name in window.names:
            inside.setdefault(name, []).extend(found)
            counts[name] += 1
            seconds[name] = seconds.get(name, 0.0) + length
    return {
        name: {
            "windows": counts[name],
            "seconds": round(seconds[name], 3),
            "sent": len(found),
            "lost": sum(outcome.is_lost(refused) for outcome in found),
            "latency_ms": {
                kind: {"answered": len(answers), **_latencies(answers)} for kind, answers in _by_kind(found, refused)
            },
        }
        for name, found in inside.items()
    }


def _by_kind(outcomes: list[Outcome], refused: set[str]) -> Iterator[tuple[str, list[Outcome]]]:
    """The answered ones of each kind, and all of them but the slow."""
    answered = [outcome for outcome in outcomes if not outcome.is_lost(refused)]
    yield BUT_SLOW, [outcome for outcome in answered if outcome.kind != "slow"]
    for kind in sorted({outcome.kind for outcome in answered}):
        yield kind, [outcome for outcome in answered if outcome.kind == kind]


def summarize(
    outcomes: list[Outcome],
    marks: list[tuple[str, float]],
    scheduled: int,
    refused: Iterable[str] = (),
    windows: Sequence[Window] = (),
) -> dict[str, Any]:
    """The whole run, each phase between two marks, and the windows by their names. A request belongs to the phase, and
    to the window, in which it was due."""
    refused = set(refused)
    phases = []
    for place, (name, begin) in enumerate(marks):
        if name == "stop":
            break
        end = marks[place + 1][1] if place + 1 < len(marks) else float("inf")
        inside = [outcome for outcome in outcomes if begin <= outcome.at < end]
        if place == 0:
            inside = [outcome for outcome in outcomes if outcome.at < end]
        until = end if end != float("inf") else max((outcome.at for outcome in outcomes), default=begin)
        phases.append({"name": name, "from": round(begin, 3), "to": round(until, 3), **_tally(inside, refused)})
    whole = _tally(outcomes, refused)
    # Nothing may fall between the phases, and each request that was due must have an outcome.
    whole["scheduled"] = scheduled
    whole["complete"] = scheduled == whole["sent"]
    return {
        "total": whole,
        "phases": phases,
        "windows": _windows(outcomes, windows, refused),
        "refused_releases": sorted(refused),
    }
