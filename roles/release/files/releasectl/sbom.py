"""What an image says that it is made of: CycloneDX or SPDX as JSON, a file inside, so that the digest covers it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .cache import INSTALLED, plain
from .config import Config
from .errors import Refusal
from .image import Image, inside, packages

PLACES = ("/sbom.cdx.json", "/sbom.spdx.json", "/usr/share/sbom/app.cdx.json", "/usr/share/sbom/app.spdx.json")
SIZE_MAX = 32 * 1024 * 1024
SHOWN = 5


def check(config: Config, found: Image, root: Path) -> str | None:
    """Return where it is, None when there is none and none is asked for; refuse one that does not hold."""
    if config.image_sbom == "ignored":
        return None
    place = next((path for path in PLACES if (at := inside(root, path)) is not None and at.is_file()), None)
    if place is None:
        if config.image_sbom == "required":
            raise Refusal(
                f"{found.reference} has no SBOM, and release_image_sbom is 'required': put one into the image at"
                f" {PLACES[0]} (cyclonedx-py environment -o, or syft) or at {', '.join(PLACES[1:])}."
            )
        return None
    listed = _listed(inside(root, place), f"The SBOM {place} of {found.reference}")
    unlisted = sorted(set(_installed(root, found)) - listed)
    if unlisted:
        names = ", ".join(f"{name} {version}" for name, version in unlisted[:SHOWN])
        more = f" and {len(unlisted) - SHOWN} more" if len(unlisted) > SHOWN else ""
        raise Refusal(
            f"The SBOM {place} of {found.reference} does not list what is installed: {names}{more}. Make it after the"
            " last package was installed."
        )
    return place


def _listed(path: Path | None, called: str) -> set[tuple[str, str]]:
    """Name and version of everything that it lists."""
    try:
        if path is None or os.stat(path).st_size > SIZE_MAX:
            raise Refusal(f"{called} has more than {SIZE_MAX // 2**20} MiB.")
        raw: Any = json.loads(path.read_bytes())
        entries = raw["components"] if raw.get("bomFormat") == "CycloneDX" else raw["packages"]
        return {
            (plain(str(entry["name"])), str(entry.get("version", entry.get("versionInfo", "")))) for entry in entries
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refusal(f"{called} is neither CycloneDX nor SPDX, as JSON: make it anew.") from None


def _installed(root: Path, found: Image) -> Iterator[tuple[str, str]]:
    """The Python packages beside the image's gunicorn."""
    for place in packages(found, root):
        for path in place.glob("*.dist-info"):
            match = INSTALLED.fullmatch(path.name)
            if match:
                yield plain(match["name"]), match["version"]
