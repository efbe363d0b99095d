"""What is told of a deploy or a rollback: one line for people, one JSON document for programs."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from plugins.module_utils import webhooks

VERSION = 1  # of the JSON document: raised when a field changes its meaning or goes
COMMIT = re.compile(r"[0-9a-f]{7,64}")
SHORT = 12  # of a commit
SENTENCE = 600  # characters of it in the line for people


@dataclass
class Story:
    """What a run did, as far as its results said so."""

    event: str  # deploy or rollback
    app: str = ""
    environment: str = ""
    actor: str = ""
    release: str | None = None
    previous: str | None = None
    old: str | None = None  # the commit that was live
    new: str | None = None  # the commit that was to be
    hosts: list[str] = field(default_factory=list)
    good: bool = False
    message: str = ""
    started: float = 0
    seconds: float = 0
    links: list[webhooks.Link] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        return "success" if self.good else "failure"


def commits(story: Story) -> str:
    """The range, as git writes it; empty where one does not know it."""
    old, new = (commit[:SHORT] if commit else "" for commit in (story.old, story.new))
    return f"{old}..{new}" if old and new and old != new else new or ""


def compare_link(repository: str, story: Story) -> str:
    """Where the commits can be seen; empty where there is no address for it, or no commit."""
    old, new = story.old or "", story.new or ""
    # What is undone by going back is seen from the older one on.
    first, last = (new, old) if story.event == "rollback" else (old, new)
    if not repository or not all(COMMIT.fullmatch(one) for one in (first, last)) or first == last:
        return ""
    if "{old}" in repository and "{new}" in repository:
        return repository.replace("{old}", first).replace("{new}", last)
    return f"{repository.removesuffix('/').removesuffix('.git')}/compare/{first}...{last}"


def run_link(environment: Mapping[str, str]) -> str:
    """The page of the run, in GitHub Actions."""
    names = ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    server, repository, run = (environment.get(name, "") for name in names)
    return f"{server}/{repository}/actions/runs/{run}" if server and repository and run else ""


def span(seconds: float) -> str:
    """How long, as a person says it."""
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60} s"


def line(story: Story) -> str:
    """Who, what, which commits, how long, how it ended."""
    what = story.event + (f" of {story.release}" if story.event == "deploy" else "")
    went = "done in" if story.good else "FAILED after"
    found = commits(story)
    told = f"[{story.app} {story.environment}] {what} by {story.actor} {went} {span(story.seconds)}"
    message = story.message if len(story.message) <= SENTENCE else story.message[: SENTENCE - 1] + "…"
    return f"{told}{f' ({found})' if found else ''}: {message}"


def document(story: Story) -> dict[str, Any]:
    """The JSON of the generic webhook: docs/ops/notices.md describes each field."""
    return {
        "version": VERSION,
        "event": story.event,
        "outcome": story.outcome,
        "app": story.app,
        "environment": story.environment,
        "release": story.release,
        "previous": story.previous,
        "commits": {"old": story.old, "new": story.new},
        "actor": story.actor,
        "hosts": story.hosts,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(story.started)),
        "seconds": round(story.seconds, 1),
        "message": story.message,
        "links": dict(story.links),
        "text": line(story),
    }


def body(kind: str, story: Story) -> dict[str, Any]:
    """What a webhook of this kind is sent."""
    if kind == "slack":
        return webhooks.slack([webhooks.escaped(line(story))], story.links)
    if kind == "teams":
        return webhooks.teams([line(story)], story.links)
    return document(story)


def subject(story: Story) -> str:
    """Of a mail: all of it on a telephone's screen."""
    what = f"{story.event} of {story.release}" if story.release else story.event
    return f"[{story.app} {story.environment}] {what}: {'done' if story.good else 'FAILED'}"


def text(story: Story) -> str:
    """A mail's text."""
    rows = [
        ("who", story.actor), ("release", story.release), ("before", story.previous), ("commits", commits(story)),
        ("hosts", ", ".join(story.hosts)), ("took", span(story.seconds)), *story.links,
    ]  # fmt: skip
    table = "\n".join(f"{name + ':':<9} {value}" for name, value in rows if value)
    return f"{story.message}\n\n{table}\n"
