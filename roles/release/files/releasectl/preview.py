"""What a deploy or a rollback would meet on this host, by reading alone: no lock, no job, nothing of the app is run."""

from __future__ import annotations

import re
from typing import Any

from . import app as apps
from . import budget, build, crossing, image_release, making, migrations, signature, status, store
from .cache import plain
from .config import Config
from .errors import Refusal, UsageError
from .lifecycle import Lifecycle
from .lock import Locks
from .migrations import Schema
from .reference import Reference
from .settings import differences

PINNED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(\[[^]]*\])?\s*==\s*(?P<version>[^\s;\\]+)")
LOCKED_BY_UV = re.compile(r'^name = "(?P<name>[^"]+)"\nversion = "(?P<version>[^"]+)"', re.MULTILINE)
LOCK_MOST = 4 << 20  # bytes of a lock file that are read


def versions(text: str) -> dict[str, str]:
    """The versions in a lock file, uv's or of `name==version` lines, by name as PyPI spells it."""
    lines = [pinned for line in text.splitlines() if (pinned := PINNED.match(line))]
    found = [*lines, *LOCKED_BY_UV.finditer(text)]
    return {plain(pinned["name"]): pinned["version"] for pinned in found}


def _live_versions(config: Config, live: str | None) -> dict[str, str] | None:
    if live is None:
        return None
    try:
        with open(apps.code(config, live) / apps.of(config, live).requirements, errors="replace") as lock:
            return versions(lock.read(LOCK_MOST))
    except OSError:
        return None


def settings(lifecycle: Lifecycle) -> dict[str, Any]:
    """By name, never by value: what a release that starts now would find that the live one did not start with, and all
    names that it would find.
    """
    known, live = lifecycle.settings, lifecycle.store.read().live
    now = known.values(known.current())
    before = known.values(known.pinned(live.generation)) if live else now
    return {**differences(before, now), "names": sorted(now), "waiting": known.waiting()}


def applied(config: Config, live: str | None) -> list[str] | None:
    """The migrations that the database has, by the records of this host; None when it has none."""
    of_live = migrations.of_release(config.release_dir(live)) if live else {}
    known = Schema(config.state).read()
    return None if of_live is None and not known else [*{**(of_live or {}), **known}]


def _disks(config: Config, asked: dict[str, Any], image: Reference | None, there: bool) -> list[budget.Disk]:
    """What it would write: of an artifact by its sizes, of an image by what its registry says is not here yet."""
    if image is not None:
        image_release.require(config, image)
        return budget.disks_for_image(config, 0 if there else store.missing(config, store.manifest(config, image)[1]))
    packed, unpacked, entries = (int(asked[name]) for name in ("packed", "unpacked", "entries"))
    expected, files = build.expectation(config)
    size = 0 if there else max(unpacked, expected)
    return budget.disks(config, 0 if there else packed, size, max(files, entries))


def deploy(lifecycle: Lifecycle, locks: Locks, asked: dict[str, Any]) -> dict[str, Any]:
    """What is here for a release of that size, and what would be refused."""
    config, release = lifecycle.config, str(asked["id"])
    seen = status.report(lifecycle, locks)
    live = lifecycle.live_release()
    refused: list[str] = []
    image = making.pinned(asked)
    if image is None and None in (asked["sha256"], asked["packed"], asked["unpacked"], asked["entries"]):
        raise UsageError("Say what of: --sha256, --packed, --unpacked and --entries of an artifact, or --image.")
    existing = build.read(config.release_dir(release))
    if release == live:
        refused.append(f"{release} is live already.")
    elif existing is not None and existing.sha256 != (image.sha256 if image else asked["sha256"]):
        refused.append(f"{release} exists already with other content: give the new one another id.")
    other = locks.in_the_way()
    if other:
        refused.append(other)
    recorded = lifecycle.store.read().live
    generation = recorded.generation if recorded else None
    memory, wanted = None, []
    try:
        # Who is at work may be asking the registry the same.
        wanted = [] if image and other else _disks(config, asked, image, existing is not None)
        if existing is None:
            budget.require(config, release, wanted)
    except Refusal as refusal:
        refused.append(refusal.message)
    try:
        if image and existing is None and not other:
            signature.check(config, image, lambda _line: None)
    except Refusal as refusal:
        refused.append(refusal.message)
    try:
        budget.require_memory(config, lifecycle.systemd, generation)
        memory = budget.memory(config, lifecycle.systemd, generation)
    except Refusal as refusal:
        refused.append(refusal.message)
    return {
        "live": live,
        "revision": (found.revision if (found := build.read(config.release_dir(live))) else None) if live else None,
        "prepared": existing is not None,
        "applied": applied(config, live),
        "requirements": _live_versions(config, live),
        "settings": settings(lifecycle),
        "processes": list(config.processes),
        "disks": [
            {"paths": [str(path) for path in disk.paths], "needed": disk.bytes, "free": disk.free} for disk in wanted
        ],
        "memory": {"needed": memory.needed, "available": memory.available} if memory else None,
        "restore_points": bool(config.restore_point_target),
        "closed": seen["maintenance"],
        "drift": seen["drift"],
        "refused": refused,
        "message": f"{live or 'Nothing'} is live.",
    }


def rollback(lifecycle: Lifecycle, release: str | None, accept: bool) -> dict[str, Any]:
    """Where a rollback would go, and what lies between; refused as the rollback itself would be."""
    live = lifecycle.live_release()
    recorded = lifecycle.store.read().live
    if lifecycle.on_trial() is not None and recorded is not None and release in (None, recorded.release):
        text = f"It would end the watch of {live} and go back to {recorded.release} at once."
        return {"release": recorded.release, "previous": live, "breaking": [], "message": text}
    target = lifecycle.rollback_target(release)
    said, breaking = crossing.check(lifecycle.config, str(live), target, accept)
    changed = settings(lifecycle)
    names = sorted({name for kind in ("added", "removed", "changed") for name in changed[kind]})
    text = f"It would roll back from {live} to {target}; {said}"
    if names:
        text += f" {target} would start with settings that {live} did not: {', '.join(names)}."
    return {"release": target, "previous": live, "breaking": breaking, "message": text}
