"""A release on trial: live and watched while the one before it still runs, so that going back is two renames.

What a crash in it leaves for `reconcile`: the intent with its mark ``watching``, which is written before `current` is
renamed. Until the record says that the watch ended well such a switch is taken back, at a boot as well: a release that
nobody saw through its watch does not stay. When the one before it cannot be had any more, it is carried forward.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from . import build
from .errors import Refusal
from .names import Generation
from .state import State
from .systemd import PROCESSES, telling, unit_name
from .watch import Failed, Interrupted, Seen, Watch

if TYPE_CHECKING:
    from .lifecycle import Lifecycle

GUNICORN = PROCESSES[0]


def possible(lifecycle: Lifecycle, state: State) -> bool:
    """Whether there is something to watch here, and something that runs to go back to."""
    if not lifecycle.config.processes or state.live is None:
        return False
    if build.read(lifecycle.config.release_dir(state.live.release)) is None:
        return False
    old = unit_name(GUNICORN, state.live.generation)
    return GUNICORN not in lifecycle.config.processes or lifecycle.systemd.active(old) == "active"


def hold(lifecycle: Lifecycle, state: State, generation: Generation, seconds: int) -> Seen:
    """Switch to ``generation`` and watch it; return what was seen when it may stay, refuse after having gone back."""
    assert state.intent is not None
    watched = [p for p in lifecycle.config.processes if p not in lifecycle.config.singles]
    units = [unit_name(p, generation) for p in watched]
    watch = Watch(lifecycle.config, lifecycle.systemd, generation, units, lifecycle.say)
    state.intent.watching, state.intent.watch = time.time(), seconds
    lifecycle.store.write(state)
    lifecycle.point_at(generation)
    counting = f" by {lifecycle.config.watch_log}" if watch.answers.readable else ""
    lifecycle.say(f"watching {generation} for {seconds} s{counting}")
    try:
        return watch.run(seconds)
    except Interrupted:
        raise Refusal(
            f"The app was stopped while {generation.release} was watched: it is taken back when the app is started,"
            " or by 'releasectl reconcile'.",
            was_live=True,
        ) from None
    except Failed as failed:
        why = str(failed)
    except OSError as error:
        why = f"it could not be watched ({error.strerror or error})"
    raise _after_going_back(lifecycle, state, generation, why, watch.seen(), units)


def _after_going_back(
    lifecycle: Lifecycle, state: State, generation: Generation, why: str, seen: Seen, units: list[str]
) -> Refusal:
    """Go back, and say how that went."""
    assert state.live is not None
    release, old = generation.release, state.live.release
    journal = [line for unit in units for line in lifecycle.systemd.journal(unit)][-20:]
    words = telling(journal)
    if " ended " in why and words:
        why += f": {words}"
    lifecycle.say(f"going back to {old}: {why}")
    details = {
        "journal": journal,
        "was_live": True,
        "seconds_live": round(seen.seconds, 1),
        "requests": seen.requests,
        "errors": seen.errors,
    }
    besides = ""
    try:
        if not go_back(lifecycle, state):
            lifecycle.conclude(state, generation)
            return Refusal(f"{release} should go back, since {why}; but {old} does not start, so it stays.", **details)
    except Refusal as refusal:
        # The requests have gone back by then; it is about the workers.
        besides = f" But {refusal.message}"
    return Refusal(
        f"{release} was live for {seen.seconds:.0f} s and went back, since {why}; {old} serves again.{besides}",
        went_back=old,
        **details,
    )


def interrupted(lifecycle: Lifecycle, state: State, live: str) -> bool:
    """Whether what a verb left behind is a watch that can be taken back: the link names one of the two."""
    return (
        state.intent is not None
        and state.intent.watching is not None
        and state.live is not None
        and live in (state.intent.release, state.live.release)
        and build.read(lifecycle.config.release_dir(state.live.release)) is not None
    )


def go_back(lifecycle: Lifecycle, state: State, boot: bool = False) -> bool:
    """Let the generation serve that served before the switch; return False when it does not start.

    Requests first, by the links; then workers and the scheduler. At ``boot`` nothing runs: what follows brings it up.
    """
    assert state.live is not None
    old = state.live.generation
    if not boot and GUNICORN in lifecycle.config.processes and not lifecycle.systemd.start(unit_name(GUNICORN, old)):
        return False
    lifecycle.point_at(old)
    state.intent = None
    lifecycle.store.write(state)
    if not boot:
        lifecycle.settle(old)
    return True
