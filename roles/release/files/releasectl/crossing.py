"""A rollback across migrations: which lie between, from records alone, so that it is as quick as one without."""

from __future__ import annotations

from . import migrations
from .config import Config
from .errors import Refusal
from .migrations import HARMFUL, Record, Schema, listed

RUNBOOK = "docs/ops/restore.md"


def record(config: Config, release: str, applied: list[str] | None = None) -> None:
    """Remember that the database has what a release has; or of that, what is named."""
    known = migrations.of_release(config.release_dir(release)) or {}
    Schema(config.state).add(item for item in known.values() if applied is None or item.name in applied)


def between(config: Config, live: str, target: str) -> list[Record] | None:
    """The applied migrations that ``target`` does not have; None when that is not known."""
    have, wanted = (migrations.of_release(config.release_dir(release)) for release in (live, target))
    if have is None or wanted is None:
        return None
    return migrations.between({**have, **Schema(config.state).read()}, wanted)


def check(config: Config, live: str, target: str, accept: bool) -> tuple[str, list[str]]:
    """What to say of a rollback, and those migrations that ``target`` cannot live with, when that was accepted."""
    crossed = between(config, live, target)
    if crossed is None:
        return "which migrations lie between is not recorded; none is undone.", []
    if not crossed:
        return "no migration lies between.", []
    breaking = [item for item in crossed if item.level in HARMFUL]
    if breaking and not accept:
        raise Refusal(
            f"Not rolled back: {target} does not work with what was migrated since: "
            f"{listed(item.told() for item in breaking)}. Nothing was changed. {RUNBOOK} says how to bring the database"
            f" back; to have {target} on it all the same: -e rollback_accept_schema=true, on the host --accept-schema.",
            between=[item.name for item in crossed],
        )
    text = f"{len(crossed)} migrations lie between and stay applied: {listed(item.told() for item in crossed)}."
    if breaking:
        text += f" {target} may not work with them ({RUNBOOK})."
    return text, [item.name for item in breaking]
