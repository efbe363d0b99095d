"""Who must have signed an image: containers-policy.json(5), of which site.yml installs two for `podman pull`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import store
from .config import Config
from .errors import Refusal
from .reference import Reference


def choose(config: Config, reference: Reference, say: Callable[[str], None]) -> Path:
    """The policy under which an image is pulled; a signature that is there has to hold, whether one must be or not."""
    listed, signed = config.image_policies / "listed.json", config.image_policies / "signed.json"
    if config.image_signatures == "ignored":
        return listed
    if _is_signed(config, reference):
        say("its signature has to hold")
        return signed
    if config.image_signatures == "required":
        raise Refusal(
            f"{reference} is not signed, and release_image_signatures is 'required': sign it with"
            f" 'cosign sign --key … {reference.by_digest}', or deploy one that is; nothing was pulled."
        )
    say("it is not signed")
    return listed


def _is_signed(config: Config, reference: Reference) -> bool:
    return store.attached(config, reference, "sig") is not None
