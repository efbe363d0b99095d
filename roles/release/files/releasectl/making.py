"""The verbs that make a release: `resolve`, by which a tag becomes a digest, and `prepare`, of an artifact or image."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from . import build, image_release, names, reference
from .config import Config
from .errors import Refusal, UsageError
from .hooks import Hooks
from .lifecycle import Lifecycle

Answer = dict[str, Any]


def _image(parse: Callable[[str], reference.Reference]) -> Callable[[str], str]:
    return lambda value: str(parse(value))


def resolve_arguments(added: argparse.ArgumentParser) -> None:
    """What `resolve` has to be told."""
    added.add_argument("--image", type=_image(reference.parse), required=True, help="registry/app:<git-sha>")


def prepare_arguments(added: argparse.ArgumentParser) -> None:
    """What `prepare` may be told, besides the release's id."""
    added.add_argument("--artifact", type=names.artifact_name, help="file name inside the incoming directory")
    added.add_argument("--sha256", type=names.sha256, help="digest of the artifact")
    added.add_argument("--image", type=_image(reference.pinned), help="instead: registry/app@sha256:<digest>")


def preview_arguments(added: argparse.ArgumentParser) -> None:
    """What `preview` may be told, besides the release's id: what an artifact is, or which image."""
    added.add_argument("--sha256", type=names.sha256, help="digest of the artifact")
    for name, text in (("packed", "bytes of the artifact"), ("unpacked", "bytes in it"), ("entries", "files in it")):
        added.add_argument(f"--{name}", type=names.number(0, 10**15), help=text)
    added.add_argument("--image", type=_image(reference.pinned), help="instead: registry/app@sha256:<digest>")


def pinned(asked: Answer) -> reference.Reference | None:
    """The image that was asked for, None for an artifact."""
    return reference.pinned(asked["image"]) if asked.get("image") else None


def resolve(config: Config, asked: Answer) -> Answer:
    """Which image a tag names by now."""
    found = image_release.resolve(config, reference.parse(asked["image"]))
    return {
        "changed": False,
        "image": str(found),
        "release": found.release_id(),
        "revision": found.revision or "",
        "message": f"{asked['image']} is {found.digest}.",
    }


def prepare(lifecycle: Lifecycle, asked: Answer, actor: str, hooks: Callable[[], Hooks]) -> Answer:
    """Make a release, unless it is there already."""
    config, say = lifecycle.config, lifecycle.say
    release, sha256, image = asked["id"], asked["sha256"], pinned(asked)
    if (image is None) is (asked["artifact"] is None or sha256 is None) or (image and sha256):
        raise UsageError("Say what to prepare: --artifact with --sha256, or --image, and not both.")
    if image is not None:
        image_release.require(config, image)
        sha256 = image.sha256
    existing = build.read(config.release_dir(release))
    if existing is not None:
        if existing.sha256 != sha256:
            raise Refusal(
                f"{release} exists already with other content (SHA-256 {existing.sha256[:12]}…, not"
                f" {sha256[:12]}…): a release never changes, give the new one another id."
            )
        message = f"{release} is prepared already."
        return {"changed": False, "release": release, "message": message, **build.told(existing)}
    lifecycle.require_memory()
    if image is not None:
        made = image_release.prepare(config, release, image, actor, say, hooks())
    else:
        made = build.prepare(config, release, asked["artifact"], sha256, actor, say, hooks())
    state = lifecycle.store.read()
    if state.gone.pop(release, None):
        lifecycle.store.write(state)
    return {"changed": True, "release": release, "message": build.sentence(made), **build.told(made)}
