"""Looking without changing anything: `status` and how it reads to a person."""

from __future__ import annotations

import os
import time

from . import build, store
from .config import Config
from .door import Door
from .errors import Refusal
from .events import timestamp
from .lifecycle import Lifecycle
from .lock import Locks
from .maintenance import Site
from .state import Live, State
from .systemd import PROCESSES, unit_name

WORKER = PROCESSES[1]
OVERDUE = 60  # seconds after which a watch that is not over was interrupted


def report(lifecycle: Lifecycle, locks: Locks) -> dict[str, object]:
    """All that is known, without reconciling: what disagrees is listed under ``drift``."""
    config = lifecycle.config
    state = lifecycle.store.read()
    drift: list[str] = []
    try:
        live = lifecycle.live_release()
    except Refusal as refusal:
        live = None
        drift.append(refusal.message)
    have = build.prepared(config)
    previous = next((r for r in reversed(state.previous) if r in have), None)
    recorded = state.live
    trial = lifecycle.on_trial() if live is not None else None
    if trial is not None:
        # Live as much as any other, but not for the record yet.
        recorded = Live(trial.release, trial.number, trial.watching or 0, trial.settings, trial.setup)
        drift += _process_drift(lifecycle, trial.generation, lifecycle.config.singles)
    elif live is not None:
        if recorded is None or recorded.release != live:
            drift.append(f"'current' names {live}, the record {recorded.release if recorded else 'nothing'}")
        else:
            drift += _process_drift(lifecycle, recorded.generation)
            if recorded.settings != lifecycle.settings.current():
                drift.append(f"runs with {recorded.settings}, in force is {lifecycle.settings.current()}")
    settings = lifecycle.settings
    waiting = settings.waiting()
    if live is not None and have[live].image is not None and not store.mounted(config, live):
        drift.append(f"the image of {live} is not mounted: 'releasectl reconcile' mounts it")
    if state.intent is not None and (trial is None or time.time() > (trial.watching or 0) + trial.watch + OVERDUE):
        drift.append(f"an unfinished {state.intent.verb} of {state.intent.release}")
    lease = locks.read_lease()
    site = Site(config)
    closed = site.record()
    if site.of_a_deploy() and (lease is None or lease.expires < time.time()):
        drift.append(
            f"the site is closed by a deploy that is gone ({closed and closed.get('because')}): a deploy, a rollback,"
            " 'releasectl reconcile' or 'releasectl maintenance --state=off' opens it"
        )
    door = Door(config, lifecycle.systemd)
    drained = door.drained()
    return {
        "live": {
            "release": live,
            "generation": str(recorded.generation) if recorded and recorded.release == live else None,
            "since": timestamp(recorded.since) if recorded and recorded.release == live else None,
            "settings": recorded.settings if recorded else None,
        }
        if live
        else None,
        "previous": previous,
        "processes": list(config.processes),
        "settings_current": settings.current(),
        "settings_waiting": waiting,
        # What is in force, and the one before it where it can be gone back to, as settings.yml compares hosts.
        "settings_fingerprint": settings.fingerprint(settings.current()),
        "settings_adopted": _adopted(lifecycle, state),
        "settings_names": settings.names(settings.current()),
        # Of those that run, where something does: whether hosts run the same is seen by it.
        "fingerprint": settings.fingerprint(recorded.settings if recorded and live else settings.current()),
        "releases": [
            {
                "id": release.id,
                "state": "live" if release.id == live
                else "previous" if release.id == previous
                else "kept" if release.id in state.previous
                else "prepared",
                "prepared_at": release.prepared_at,
                "prepared_by": release.prepared_by,
                "revision": release.revision,
                "size": release.bytes,
                "image": release.image,
                "sbom": release.sbom,
                "signed_by": release.signed_by,
            }
            for release in have.values()
        ],
        "intent": {"verb": state.intent.verb, "release": state.intent.release} if state.intent else None,
        "watching": _watching(state) if trial else None,
        "lease": lease.public() if lease else None,
        "door": door.state(),
        "drained": drained.public() if drained else None,
        "maintenance": closed,
        "disk": disk(config),
        "tasks": _tasks(lifecycle, recorded) if live is not None else "",
        "drift": drift,
    }  # fmt: skip


def _adopted(lifecycle: Lifecycle, state: State) -> dict[str, str | None] | None:
    """The version in force and the one that it replaced, with the fingerprint of that; None when it is not kept."""
    settings, adopted = lifecycle.settings, state.adopted or {}
    before = adopted.get("before")
    if not before or adopted.get("version") != settings.current() or not settings.there(before):
        return None
    return {"version": adopted["version"], "before": before, "fingerprint": settings.fingerprint(before)}


def _tasks(lifecycle: Lifecycle, live: Live | None) -> str:
    """What the worker says of tasks that it has set aside."""
    if live is None or WORKER not in lifecycle.config.processes:
        return ""
    return lifecycle.systemd.told(unit_name(WORKER, live.generation))


def _watching(state: State) -> dict[str, object]:
    assert state.intent is not None
    assert state.live is not None
    began = state.intent.watching or 0
    return {
        "release": state.intent.release,
        "until": timestamp(began + state.intent.watch),
        "goes_back_to": state.live.release,
    }


def disk(config: Config) -> list[dict[str, object]]:
    """What is free for releases and for static files, in bytes: one entry for each file system of the two."""
    found: dict[int, dict[str, object]] = {}
    for path in (config.releases, config.static):
        try:
            device, seen = path.stat().st_dev, os.statvfs(path)
        except OSError:
            continue
        entry = found.setdefault(
            device, {"paths": [], "free": seen.f_bavail * seen.f_frsize, "total": seen.f_blocks * seen.f_frsize}
        )
        entry["paths"] = [*entry["paths"], str(path)]  # type: ignore[misc]
    return list(found.values())


def _process_drift(lifecycle: Lifecycle, generation: object, later: tuple[str, ...] = ()) -> list[str]:
    running = {unit.name for unit in lifecycle.systemd.units() if unit.running}
    found = [
        f"{unit_name(process, generation)} is not running"
        for process in lifecycle.config.processes
        if process not in later and unit_name(process, generation) not in running
    ]
    if "gunicorn" in lifecycle.config.processes and lifecycle.socket_generation() != generation:
        found.append(f"{lifecycle.config.socket} does not lead to {generation}")
    return found


def as_text(answer: dict[str, object]) -> str:
    """The report as an operator reads it at night."""
    live = answer["live"]
    lines = []
    if isinstance(live, dict):
        lines.append(f"live      {live['release']}  (generation {live['generation']}, since {live['since']})")
    else:
        lines.append("live      nothing yet")
    lines.append(f"previous  {answer['previous'] or 'none'}")
    if answer["settings_current"]:
        lines.append(f"settings  {answer['settings_current']}  {answer['fingerprint'] or ''}".rstrip())
    if answer["settings_waiting"]:
        waits = answer["settings_waiting"]
        lines.append(
            f"settings  {waits} was delivered and is not in force: 'releasectl settings' or settings.yml tries it"
        )
    watching = answer["watching"]
    if isinstance(watching, dict):
        lines.append(
            f"watched   {watching['release']} until {watching['until']}; goes back to {watching['goes_back_to']}"
            " when it fails, or by 'releasectl rollback' at once"
        )
    releases = answer["releases"]
    if isinstance(releases, list):
        for release in releases:
            size = int(release["size"]) // 2**20
            lines.append(f"release   {release['id']:<40} {release['state']:<9} {release['prepared_at']}  {size:>5} MiB")
            if release["image"]:
                lines.append(f"          from {release['image']}")
    lease = answer["lease"]
    if isinstance(lease, dict):
        lines.append(
            f"lease     {lease['holder']}: {lease['purpose']} since {lease['since']}, until {lease['expires']}"
        )
    if answer["door"] != "none":
        lines.append(f"edges     {'are let in' if answer['door'] == 'open' else 'are refused'}")
    drained = answer["drained"]
    if isinstance(drained, dict):
        lines.append(f"drained   {drained['by']}: {drained['because']} since {drained['since']} (releasectl undrain)")
    closed = answer["maintenance"]
    if isinstance(closed, dict):
        lines.append(f"closed    for maintenance by {closed['by']} since {closed['at']}: {closed['because']}")
    filesystems = answer["disk"]
    if isinstance(filesystems, list):
        for one in filesystems:
            free, total = (f"{int(one[key]) / 2**30:.1f}" for key in ("free", "total"))
            lines.append(f"disk      {free} of {total} GiB free for {' and '.join(one['paths'])}")
    if answer["tasks"]:
        lines.append(f"tasks     {answer['tasks']}")
    drift = answer["drift"]
    if isinstance(drift, list):
        lines += [f"drift     {line}" for line in drift]
    return "\n".join(lines)
