"""What no kept release uses any more: releases, virtual environments, images, published files and the build cache."""

from __future__ import annotations

from typing import Any

from . import build, cache, image_release, static, venvs
from .lifecycle import Lifecycle

PUBLISHED = 30 * 86_400  # seconds that a browser may still ask for a file of a release that is gone


def images(lifecycle: Lifecycle) -> int:
    """Remove images; return how many that were."""
    return image_release.forget_unused(lifecycle.config, lifecycle.say)


def prune(lifecycle: Lifecycle, keep: int) -> dict[str, Any]:
    """Remove all but the newest ``keep`` releases, and what none of those is made of."""
    config = lifecycle.config
    removed = lifecycle.prune(keep)
    venvs.prune(config)
    kept = list(build.prepared(config))
    files = static.prune_static(config, kept, older_than=PUBLISHED)
    cached = cache.bound(config, kept, lifecycle.say)
    gone = images(lifecycle)
    text = f"Removed {', '.join(removed)}." if removed else "Nothing to prune."
    text += " The build cache was over its bound and is smaller now." if cached else ""
    text += f" Removed {gone} images that no release uses." if gone else ""
    return {"changed": bool(removed or files or cached or gone), "removed": removed, "message": text}
