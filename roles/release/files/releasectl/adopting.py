"""New settings: tried by the live release as a new generation, and in force only once that serves; or taken back.

What a kill in between leaves is settled by `reconcile`: until the link of the settings is renamed they still wait, and
the next run tries them again; from there on the switch is carried to its end (lifecycle.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import build, needs
from .errors import Refusal, UsageError
from .files import link_name
from .lifecycle import Lifecycle
from .settings import differences

Answer = dict[str, Any]


def named(change: Mapping[str, list[str]]) -> str:
    """Which names changed, as a sentence has it; never a value."""
    told = [f"{kind} {', '.join(change[kind])}" for kind in ("changed", "added", "removed") if change[kind]]
    return "; ".join(told) or "no value differs"


def _told(lifecycle: Lifecycle, version: str, before: str | None, change: Mapping[str, list[str]]) -> Answer:
    """For the answer and the record."""
    fingerprint = lifecycle.settings.fingerprint(version)
    return {"settings": {"version": version, "before": before, "fingerprint": fingerprint, **change}}


def discreet(refusal: Refusal) -> Refusal:
    """A refusal without a word of the app's: what it echoes of a setting, and the settings changed a moment ago, would
    get into the record, to the machine that runs the playbook and into notices.
    """
    spoke = "journal" in refusal.details
    message = refusal.discreet or (
        "the app refused them; its journal on the host says why" if spoke else refusal.message
    )
    return Refusal(message, **{name: value for name, value in refusal.details.items() if name != "journal"})


def adopt(lifecycle: Lifecycle, actor: str, untried: bool = False, version: str | None = None) -> Answer | None:
    """Put in force what was delivered, or ``version`` of it; None when nothing waits. With ``untried`` nothing is
    started for it. A version that is delivered meanwhile goes on waiting.
    """
    settings = lifecycle.settings
    version, before = version or settings.waiting(), settings.current()
    if version is None:
        settings.drop_waiting(link_name(settings.next))
        return None
    live = lifecycle.live_release()
    change = differences(settings.values(before), settings.values(version))
    told = _told(lifecycle, version, before, change)
    try:
        if not untried:
            _keep_what_is_needed(lifecycle, live, version)
        answer = _put_in_force(lifecycle, None if untried else live, version, actor)
    except Refusal as refused:
        refusal = discreet(refused)
        settings.drop_waiting(version)
        stays = f"{before} stays in force" + (f", and {live} serves with it" if live else "")
        why = refusal.message.rstrip(".")
        raise Refusal(
            f"{version} was taken back ({named(change)}), since {why}; {stays}.", **refusal.details, **told
        ) from None
    settings.drop_waiting(version)
    if untried and live:
        message = f"{version} is in force, untried: {named(change)}."
        message += (
            f" {live} runs on as it was started, after a reboot too; the next deploy, rollback or restart has it."
        )
        return {**answer, **told, "message": message}
    with_it = f"{live} serves with {version}" if live else f"{version} is in force"
    instead = f" in place of {before}" if before else ""
    until = "" if live else " No release is live yet."
    return {**answer, **told, "message": f"{with_it}{instead}: {named(change)}.{until}"}


def take_back(lifecycle: Lifecycle, version: str, actor: str) -> Answer:
    """The other way: drop a version that waits, or go back from it to the one that was in force before it."""
    settings = lifecycle.settings
    state = lifecycle.store.read()
    if settings.waiting() == version:
        settings.drop_waiting(version)
        message = f"{version} waits no more; {settings.current()} stays in force."
        return {"changed": True, "message": message, "settings": {"version": settings.current(), "before": version}}
    if settings.current() != version:
        message = f"{version} neither waits nor is in force: there is nothing to take back."
        return {"changed": False, "message": message}
    before = (state.adopted or {}).get("before") if (state.adopted or {}).get("version") == version else None
    if before is None or not settings.there(before):
        raise Refusal(
            f"What was in force before {version} is not kept: apply the last good tag"
            " (docs/ops/configuration-rollback.md)."
        )
    live = lifecycle.live_release()
    change = differences(settings.values(version), settings.values(before))
    try:
        answer = _put_in_force(lifecycle, live, before, actor)
    except Refusal as refusal:
        raise discreet(refusal) from None
    message = f"{version} was taken back: {before} is in force again" + (
        f", and {live} serves with it." if live else "."
    )
    return {**answer, **_told(lifecycle, before, version, change), "message": message}


def require(lifecycle: Lifecycle, version: str) -> bool:
    """Whether ``version`` waits to be tried; False when it is in force already. Refuses when it is neither: what was
    delivered was taken back since, or something else was delivered, and an answer about that would be about nothing.
    """
    settings = lifecycle.settings
    if version == settings.waiting():
        return True
    if version == settings.current():
        return False
    waits = settings.waiting()
    instead = f", and {waits} waits" if waits else ""
    raise Refusal(
        f"{version} does not wait to be put in force ({settings.current() or 'nothing'} is in force{instead}): it was"
        " taken back, or others were delivered since. 'sudo releasectl history' on the host says why; then run"
        " settings.yml again."
    )


def version_name(text: str) -> str:
    """The name of a version, as ``env.5``; refuse what could name anything else."""
    base, _dot, number = text.partition(".")
    if not (base.isidentifier() and number.isascii() and number.isdigit() and len(text) <= 64):
        raise UsageError("--version and --take-back take the name of a version of the settings, as 'env.5' is.")
    return text


def _put_in_force(lifecycle: Lifecycle, live: str | None, version: str, actor: str) -> Answer:
    if live is not None:
        lifecycle.require_memory()
        switched = lifecycle.switch("settings", live, version, actor, adopts=True)
        return {"changed": True, "release": live, "generation": str(switched.generation)}
    state = lifecycle.store.read()
    state.adopted = {"version": version, "before": lifecycle.settings.current() or ""}
    lifecycle.settings.put_in_force(version)
    lifecycle.store.write(state)
    return {"changed": True}


def _keep_what_is_needed(lifecycle: Lifecycle, live: str | None, version: str) -> None:
    """Refuse to take from the live release what it says that it needs."""
    found = build.read(lifecycle.config.release_dir(live)) if live else None
    gone = needs.missing(found.settings, lifecycle.settings.names(version)) if found else []
    if gone:
        raise Refusal(f"{live}, which is live, needs {', '.join(gone)} ({needs.FILE})")
