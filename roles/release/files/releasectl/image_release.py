"""Making a release of an image: pulled by digest, looked at, mounted, its static files collected; nothing is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import app as apps
from . import budget, build, image, sbom, signature, store
from .build import Release
from .config import Config
from .errors import Refusal
from .events import timestamp
from .hooks import Hooks
from .ownership import make_root_owned
from .reference import Reference, require_allowed

Say = Callable[[str], None]


def require(config: Config, reference: Reference) -> None:
    """Refuse what this host does not take, before anybody is asked."""
    if not config.images:
        raise Refusal(
            "This host takes no releases from images: set release_images: true and release_image_registries in"
            " group_vars/<environment>/release.yml and run site.yml."
        )
    require_allowed(reference, config.image_registries)


def resolve(config: Config, reference: Reference) -> Reference:
    """The digest that a tag names by now: asked once, for all hosts."""
    require(config, reference)
    return reference.pinned(store.manifest(config, reference)[0])


def prepare(config: Config, release: str, reference: Reference, actor: str, say: Say, mine: Hooks) -> Release:
    """Pull and prepare one release; on any failure nothing of it is left."""
    require(config, reference)
    directory = config.release_dir(release)

    def forget(error: BaseException) -> None:
        if isinstance(error, (Refusal, OSError)):
            forget_unused(config, say)

    with build.whole_or_nothing(config, release, mine, forget):
        found, key = _pull(config, release, reference, say)
        directory.mkdir(mode=0o755)
        image.keep(directory, found)
        found = _mount(config, release, found, say)
        listed = sbom.check(config, found, directory / image.ROOTFS)
        mine.check()
        wanted = build.require_settings(config, release, apps.code(config, release))
        app = apps.look(config, apps.code(config, release), found)
        app.tell(say)
        apps.check(config, directory, app)
        say("collecting static files")
        known = build.collect_static(config, directory, release, app, say)
        mine.build("after_build", [directory / "static"], network=False)
        size, disk, entries = make_root_owned(directory / "static")
        mine.check()
        build.publish(config, directory, known, say)
        record = Release(
            release, reference.sha256, timestamp(), actor, entries, size + found.bytes,
            reference.revision or found.revision, disk + found.bytes, entries, app.public(),
            image=str(reference), sbom=listed, signed_by=key, settings=wanted,
        )  # fmt: skip
        return build.finish(config, record)


def _pull(config: Config, release: str, reference: Reference, say: Say) -> tuple[image.Image, str | None]:
    """Have it in the store; what it says of itself, and by which key it is signed."""
    say(f"asking {reference.registry} what it would send")
    manifest = store.manifest(config, reference)[1]
    key = signature.check(config, reference, say)
    coming = store.missing(config, manifest)
    if coming > config.image_max_bytes:
        raise Refusal(
            f"{reference} has {budget.mebibytes(coming)} of layers that are not here yet, more than"
            f" release_image_max_bytes ({budget.mebibytes(config.image_max_bytes)})."
        )
    budget.require_disk_for_image(config, release, coming)
    say(f"pulling {budget.mebibytes(coming)} of layers that are not here yet")
    store.pull(config, reference, release)
    said: Any = store.inspect(config, reference.by_digest)
    return image.understand(str(reference), said, config.image_command), key


def _mount(config: Config, release: str, found: image.Image, say: Say) -> image.Image:
    """Mount it, and learn from what is inside."""
    (config.release_dir(release) / "static").mkdir(mode=0o755)
    say("mounting the image")
    store.require_mounted(config, release)
    settled = image.settle(found, config.release_dir(release) / image.ROOTFS, config.processes, config.singles)
    image.keep(config.release_dir(release), settled)
    return settled


def forget_unused(config: Config, say: Say) -> int:
    """Remove the images that no release on this host uses; nothing of it can fail what called for it."""
    if not config.image_store.is_dir():
        return 0
    try:
        wanted = {found.identity for r in build.prepared(config) if (found := image.of(config.release_dir(r)))}
        return store.prune(config, wanted, say)
    except (Refusal, OSError) as error:
        say(f"images that are not used any more were not removed: {error}")
        return 0
