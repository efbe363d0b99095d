"""Intent and record: state.json, replaced atomically; `current` itself stays the one truth of what is live."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .errors import Refusal
from .files import write_json
from .names import Generation

REMEMBERED = 100  # how many failed or pruned releases are remembered by name


@dataclass
class Live:
    """Which generation serves, since when, with which settings and which set of unit files (their fingerprint)."""

    release: str
    number: int
    since: float
    settings: str | None = None
    setup: str | None = None

    @property
    def generation(self) -> Generation:
        return Generation(self.release, self.number)


@dataclass
class Intent:
    """A switch that has begun: read by `reconcile` when the verb died before its end."""

    verb: str
    release: str
    number: int
    settings: str | None
    started: float
    actor: str
    previous: list[str]
    setup: str | None = None
    # Set before the switch when the release is to be watched after it: since when, and for how many seconds. Until the
    # watch has ended well such a switch is taken back, not carried forward.
    watching: float | None = None
    watch: int = 0
    # The version of the settings in force that its own replace, by the rename that is its point of no return; None for
    # a switch that leaves the settings as they are.
    replaces: str | None = None

    @property
    def generation(self) -> Generation:
        return Generation(self.release, self.number)


@dataclass
class State:
    """All that this program remembers; no secret is in it."""

    counter: int = 0
    live: Live | None = None
    intent: Intent | None = None
    # Releases that were live before, oldest first: rollback takes the last one.
    previous: list[str] = field(default_factory=list)
    # Releases that cannot be had any more, and why: {id: {"how": "failed"|"pruned", "at": …, "why": …}}
    gone: dict[str, dict[str, object]] = field(default_factory=dict)
    # The version of the settings that was put in force last, and the one before it: {"version": …, "before": …}
    adopted: dict[str, str] | None = None

    def forget(self, release: str, how: str, why: str) -> None:
        """Remember that a release failed or was pruned, so that a rollback to it can be refused by reason."""
        self.gone.pop(release, None)
        self.gone[release] = {"how": how, "at": time.time(), "why": why}
        for old in list(self.gone)[:-REMEMBERED]:
            del self.gone[old]

    def went_live(self, live: Live, previous: list[str]) -> None:
        """Record a finished switch."""
        self.live = live
        self.previous = previous[-REMEMBERED:]
        self.intent = None


def previous_after(state: State, verb: str, target: str, live: str | None) -> list[str]:
    """The releases that `rollback` can go back to once ``target`` is live.

    A rollback goes back in the record, so that a second one goes further back instead of returning to the
    release that was just left; every other switch puts the release that was live on top.
    """
    record = state.previous
    if verb == "rollback" and target in record:
        return record[: record.index(target)]
    if target == live:
        return list(record)
    kept = [release for release in record if release not in (target, live)]
    return kept + ([live] if live else [])


def _known(kind: type, raw: dict[str, object] | None) -> dict[str, Any] | None:
    """What a record has, without what a newer version of this program put into it; None when there is none."""
    names = {one.name for one in fields(kind)}
    return {name: value for name, value in raw.items() if name in names} if raw else None


class Store:
    """Reads and replaces the state file."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "state.json"

    def read(self) -> State:
        """The state as recorded; a missing file is an empty state, a broken one is refused by name."""
        try:
            raw = json.loads(self.path.read_text())
        except FileNotFoundError:
            return State()
        except ValueError as error:
            raise Refusal(
                f"{self.path} cannot be read ({error}): move it away and run 'releasectl reconcile';"
                " what is live is taken from the link 'current', only the record of previous releases is lost."
            ) from None
        try:
            live, intent = _known(Live, raw["live"]), _known(Intent, raw["intent"])
            return State(
                raw["counter"],
                Live(**live) if live else None,
                Intent(**intent) if intent else None,
                raw["previous"],
                raw["gone"],
                raw.get("adopted"),
            )
        except (KeyError, TypeError) as error:
            raise Refusal(
                f"{self.path} does not hold what it should ({error}): move it away and run 'releasectl reconcile'."
            ) from None

    def write(self, state: State) -> None:
        """Replace the file."""
        write_json(self.path, asdict(state))
