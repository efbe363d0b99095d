"""The second witness: what nginx's access log says about the same run."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

# What nginx writes when the client was the one that went away; the client counts these among its losses.
_CLIENT_GONE = ("499", "408", "400", "000")


def read_log(lines: Iterable[str], user_agent: str) -> Counter[str]:
    """Requests by status among those lines that carry this run's User-Agent."""
    counts: Counter[str] = Counter()
    for line in lines:
        if user_agent not in line:
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the first line may be cut: it was read from a byte offset
        if entry.get("user_agent") == user_agent:
            counts[str(entry.get("status", "000"))] += 1
    return counts


def compare(result: dict[str, Any], log: Counter[str], user_agent: str = "") -> dict[str, Any]:
    """Client and server must tell one story.

    What both saw whole must be equal, status by status. A request that the client lost without an answer may be in
    the log (as an answer that never arrived, or as a client gone) or not at all: so the log may have at most as many
    more as there were such losses. With nothing lost this leaves no play.
    """
    client: Counter[str] = Counter(result["total"]["by_status"])
    answered = sum(client.values())
    unanswered = result["total"]["sent"] - answered
    differences = {}
    surplus = 0
    for status in sorted(set(client) | set(log)):
        more = log[status] - client[status]
        if status in _CLIENT_GONE or more > 0:
            surplus += max(more, 0)
        if more < 0 or (more > 0 and unanswered == 0):
            differences[status] = more
    return {
        "user_agent": user_agent,
        "client": dict(client),
        "client_unanswered": unanswered,
        "nginx": dict(sorted(log.items())),
        "agree": not differences and surplus <= unanswered and sum(log.values()) > 0,
        "differences": differences,
    }
