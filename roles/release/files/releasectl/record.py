"""What is written into the record of a verb, and how the record reads to a person: `history`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import build
from .config import Config
from .errors import Refusal
from .events import Events, timestamp
from .lifecycle import Lifecycle
from .settings import Settings
from .state import Live, State

BY_HAND = "by hand"
# How wide a column may become: what is longer is cut, `--json` has all of it.
WIDTHS = {"at": 20, "verb": 10, "release": 64, "who": 36, "outcome": 10, "took": 12, "what": 90}
COMMIT = 12
DIGEST = 12  # of an image's, as much as tells it from others

# What some verbs tell besides.
RECORDED = (
    "hooks",
    "hook_warnings",
    "plan",
    "findings",
    "applied",
    "breaking",
    "restore_point",
    "restored",
    "settings",
)

Event = Mapping[str, Any]


def revision_of(config: Config, release: object) -> str | None:
    """The commit that a release says it was packed from; None when it is not there or does not say."""
    found = build.read(config.release_dir(release)) if isinstance(release, str) else None
    return found.revision if found else None


def image_of(config: Config, release: object) -> str | None:
    """The image that a release was made of, with its digest; None when it is not there or was made of an artifact."""
    found = build.read(config.release_dir(release)) if isinstance(release, str) else None
    return found.image if found else None


def revisions(config: Config, answer: Mapping[str, object]) -> dict[str, object]:
    """The commits of what an answer names as live now and as live before."""
    named = {"revision": answer.get("release"), "previous_revision": answer.get("previous")}
    return {key: revision_of(config, release) for key, release in named.items() if release}


def _append(config: Config, say: Callable[[str], None], **event: object) -> str:
    """A record that takes nothing, on a full disk for example, is no reason to undo or to refuse what was done.

    Says so, and returns why; nothing when it is recorded.
    """
    try:
        Events(config.events).append(**event)
    except OSError as error:
        why = f"{error.strerror or error} ({config.events})"
        say(f"this is not in the record: {why}")
        return why
    return ""


def write(
    config: Config,
    say: Callable[[str], None],
    asked: Mapping[str, object],
    answer: Mapping[str, Any],
    revision: str | None,
    started: float,
) -> str:
    """One event for a verb that changed something or failed; ``started`` is of the monotonic clock.

    Returns why it could not be recorded, if so.
    """
    return _append(
        config,
        say,
        verb=answer["verb"],
        release=answer.get("release") or asked.get("id"),
        revision=answer.get("revision") or revision,
        generation=answer.get("generation"),
        **_image(image_of(config, answer.get("release") or asked.get("id")) or asked.get("image")),
        actor=asked["actor"],
        outcome="ok" if answer["ok"] else "failed",
        message=answer["message"],
        seconds=round(time.monotonic() - started, 2),
        **({} if answer.get("settings") else _settings(config, answer.get("generation"))),
        **{key: answer[key] for key in RECORDED if answer.get(key)},
    )


def _settings(config: Config, generation: object) -> dict[str, object]:
    """With which settings a generation was started, by version and fingerprint."""
    try:
        pin = json.loads((Settings.of(config).pins / str(generation)).read_text())
        return {"settings": {"version": pin["settings"], "fingerprint": pin["fingerprint"]}}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _image(name: object) -> dict[str, object]:
    return {"image": name} if name else {}


def write_settled(lifecycle: Lifecycle, done: Sequence[str], actor: str) -> None:
    """What a verb found undone and settled before it began: a switch that died wrote no event of its own."""
    config = lifecycle.config
    state = recorded(lifecycle)
    live = state.live if state else None
    _append(
        config,
        lifecycle.say,
        verb="reconcile",
        **_of(config, live),
        actor=actor,
        outcome="ok",
        message="; ".join(done),
    )


def _of(config: Config, live: Live | None) -> dict[str, object]:
    """What is live, as an event names it."""
    if live is None:
        return {"release": None, "revision": None, "generation": None}
    return {
        "release": live.release,
        "revision": revision_of(config, live.release),
        "generation": str(live.generation),
        **_image(image_of(config, live.release)),
    }


def recorded(lifecycle: Lifecycle) -> State | None:
    """The state as recorded; None where it cannot be read, which others say."""
    try:
        return lifecycle.store.read()
    except Refusal:
        return None


def write_start(lifecycle: Lifecycle, before: State | None, outcome: str, message: str, started: float) -> None:
    """What app.service brought up. A release that no verb made live was linked by hand, and nobody knows by whose."""
    config = lifecycle.config
    after = recorded(lifecycle)
    live = after.live if after else None
    actor = "app.service"
    if live and before is not None and (before.live is None or before.live.release != live.release):
        if before.intent and before.intent.release == live.release:
            actor = before.intent.actor
        else:
            actor = BY_HAND
            message = f"{message}; 'current' was pointed at it at {_linked(config)}"
    _append(
        config,
        lifecycle.say,
        verb="start",
        **_of(config, live),
        actor=actor,
        outcome=outcome,
        message=message,
        seconds=round(time.monotonic() - started, 2),
    )


def _linked(config: Config) -> str:
    try:
        return timestamp(config.current.lstat().st_mtime)
    except OSError:
        return "a time that is not known"


# How it reads


def as_text(events: Sequence[Event]) -> str:
    """The events in columns, oldest first; nothing in them can break a line."""
    if not events:
        return "Nothing has happened yet."
    rows = [_row(event) for event in events]
    # Most releases are called by their commit: a column for it only where one is not.
    if all(not row["commit"] or row["commit"] in row["release"] for row in rows):
        for row in rows:
            del row["commit"]
    if all(row["image"] == "-" for row in rows):
        for row in rows:
            del row["image"]
    titles: dict[str, str] = {
        name: {"at": "when (UTC)", "outcome": "went"}.get(name, name)
        for name in ("at", "verb", "release", "commit", "image", "who", "outcome", "took", "what")
        if name in rows[0]
    }
    widths = {name: max(len(row[name]) for row in [titles, *rows]) for name in titles}
    lines = ("  ".join(row[name].ljust(widths[name]) for name in titles) for row in [titles, *rows])
    return "\n".join(line.rstrip() for line in lines)


def _row(event: Event) -> dict[str, str]:
    outcome = str(event.get("outcome") or "?")
    values = {
        "at": event.get("at"),
        "verb": event.get("verb"),
        "release": event.get("release"),
        "who": event.get("actor"),
        # What went wrong is seen without reading.
        "outcome": outcome if outcome == "ok" else outcome.upper(),
        "took": _span(event.get("seconds")),
        "what": event.get("message"),
    }
    row: dict[str, str] = {name: cut(value, WIDTHS[name]) for name, value in values.items()}
    row["image"] = cut(str(event.get("image") or "").rpartition("@sha256:")[2][:DIGEST], DIGEST)
    row["commit"] = cut(event.get("revision"), 64)[:COMMIT].removesuffix("-")
    return row


def _span(seconds: object) -> str:
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return ""
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds) // 60} min {int(seconds) % 60} s"


def cut(value: object, width: int) -> str:
    """One line of at most so many printable characters; nothing reads as a dash."""
    text = "".join(c if c.isprintable() else " " for c in str(value if value not in (None, "") else "-"))
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"
