"""What is sent, where to and how often. Which request is of which kind follows from its number alone."""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

# Multiples of irrational numbers spread evenly over [0, 1): two of them give shares that are exact over short spans
# and do not move in step with each other, with no random generator to seed.
_GOLDEN = (math.sqrt(5) - 1) / 2
_SILVER = math.sqrt(2) - 1


def _spread(number: int, irrational: float) -> float:
    return (number * irrational) % 1.0


@dataclass(frozen=True)
class Plan:
    """One run. Shares are of all requests, times are seconds."""

    address: str  # where the connection goes
    host: str  # what it asks for: SNI, certificate name and Host
    ca_file: str  # the only authority that is believed
    run_id: str  # is sent in the User-Agent, so that the server's log can be searched for it
    port: int = 443
    rate: float = 120.0
    new_share: float = 0.2  # requests that bring their own TLS connection
    kept: int = 16  # connections that the others share
    slow_share: float = 0.01
    slow_path: str = "/slow?seconds=2"
    pages: tuple[str, ...] = ("/",)
    api: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    follow_static: bool = True  # also fetch the static files that the pages seen so far link to
    timeout: float = 10.0
    idle_race: float = 0.25  # a kept connection that closes, unanswered, within this time after reuse may be retried
    max_seconds: float = 1800.0
    max_requests: int = 500_000
    refused: tuple[str, ...] = field(default_factory=tuple)  # an answer from one of these releases is a loss

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.rate <= 2000:
            problems.append(f"rate is {self.rate:g}: say more than 0 and at most 2000 requests a second")
        if not 0 <= self.new_share <= 1:
            problems.append(f"new_share is {self.new_share:g}: say a share between 0 and 1")
        if not 0 <= self.slow_share <= 1:
            problems.append(f"slow_share is {self.slow_share:g}: say a share between 0 and 1")
        if not 1 <= self.kept <= 1000:
            problems.append(f"kept is {self.kept}: say between 1 and 1000 connections")
        if not 0 < self.max_seconds <= 86400:
            problems.append(f"max_seconds is {self.max_seconds:g}: say at most a day")
        if not 0 < self.max_requests <= 5_000_000:
            problems.append(f"max_requests is {self.max_requests}: say at most 5000000")
        if not self.pages:
            problems.append("pages is empty: name at least one path")
        for path in (*self.pages, *self.api, *self.static, self.slow_path):
            if not path.startswith("/") or not path.isascii() or any(c.isspace() for c in path):
                problems.append(f"{path!r} is not a path: it must begin with / and hold no blanks")
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def user_agent(self) -> str:
        return f"slipway-load/{self.run_id}"

    def is_new(self, number: int) -> bool:
        return _spread(number, _SILVER) < self.new_share

    def kind(self, number: int) -> str:
        """Slow ones first; of the others three tenths are pages, a fifth API calls, half static files."""
        place = _spread(number, _GOLDEN)
        if place < self.slow_share:
            return "slow"
        tenth = (place - self.slow_share) / (1 - self.slow_share) * 10
        if tenth >= 5:
            return "static" if self.static or self.follow_static else "page"
        return "api" if tenth >= 3 and self.api else "page"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Plan":
        known = {item.name for item in fields(cls)}
        if unknown := set(data) - known:
            raise ValueError(f"the plan does not know {', '.join(sorted(unknown))}")
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        return cls(**given)
