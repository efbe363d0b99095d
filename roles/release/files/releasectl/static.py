"""A release's static files: collected where they belong, whatever the app's settings say, and published."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import time
from pathlib import Path

from .config import Config
from .errors import Refusal
from .files import temporary_name
from .migrate import MARK
from .names import shorten

# What Django's ManifestStaticFilesStorage writes: name.<12 hexadecimal digits>.suffix
HASHED = re.compile(r"\.[0-9a-f]{12}(\.|$)")
MANIFEST = "staticfiles.json"
# What is worth compressing once, so that the edge need not do it at each request.
TEXTS = (".css", ".js", ".mjs", ".json", ".map", ".svg", ".txt", ".xml", ".wasm", ".ttf")
COMPRESSED_FROM = 1000  # bytes; below, nothing is gained


def said_root(lines: list[str]) -> tuple[bool, str | None]:
    """Whether anything was collected, and the STATIC_ROOT of the app's own settings; None where no Django said it."""
    for line in lines:
        try:
            event = json.loads(line[len(MARK) :])
            if event["event"] == "static":
                return bool(event["collected"]), str(event["root"] or "")
        except (ValueError, TypeError, KeyError):
            continue
    return True, None


def lead(directory: Path, root: str | None) -> None:
    """Let an app that has a STATIC_ROOT of its own find its manifest there: by a link inside its code."""
    if root is None:
        return
    static = directory / "static"
    own = Path(os.path.normpath(root)) if root else None
    if own == static:
        return
    source = (directory / "src").resolve()
    if own is not None and own.is_absolute() and own.parent.is_dir():
        parent = own.parent.resolve()
        if parent.is_relative_to(source) and not os.path.lexists(own):
            (parent / own.name).symlink_to(static)
            return
    if (static / MANIFEST).is_file():
        raise Refusal(
            f"The app reads the manifest of its static files in its own STATIC_ROOT, {shorten(root)}, and not in the"
            " release's: take STATIC_ROOT from the environment there, or set it so in app_settings_overlay."
        )


def hashed_files(directory: Path) -> set[str]:
    """The release's static files whose name carries a hash of their content, relative to its static directory."""
    root = directory / "static"
    found = set()
    for parent, _names, files in os.walk(root):
        for name in files:
            path = os.path.join(parent, name)
            if HASHED.search(name) and not os.path.islink(path):
                found.add(os.path.relpath(path, root))
    return found


def publish_static(config: Config, directory: Path) -> None:
    """Copy hashed files beside those of other releases, additively: what is published is never overwritten."""
    for relative in sorted(hashed_files(directory)):
        target = config.static / relative
        if target.exists():
            continue
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary = target.with_name(temporary_name(target.name))
        shutil.copyfile(directory / "static" / relative, temporary, follow_symlinks=False)
        temporary.chmod(0o644)
        # First, so that a crash between the two leaves no file that is for ever without; of the copy, which is root's.
        if target.suffix in TEXTS and not temporary.is_symlink() and temporary.stat().st_size >= COMPRESSED_FROM:
            packed = target.with_name(f"{target.name}.gz")
            half = packed.with_name(temporary_name(packed.name))
            half.write_bytes(gzip.compress(temporary.read_bytes(), 9, mtime=0))
            half.chmod(0o644)
            half.rename(packed)
        temporary.rename(target)


def prune_static(config: Config, keep: list[str], older_than: float) -> int:
    """Remove published files that no kept release has and that are older than ``older_than`` seconds."""
    wanted: set[str] = set()
    for release in keep:
        wanted |= hashed_files(config.release_dir(release))
    removed = 0
    for parent, _names, files in os.walk(config.static):
        for name in files:
            path = os.path.join(parent, name)
            if (
                os.path.relpath(path, config.static).removesuffix(".gz") in wanted
                or time.time() - os.lstat(path).st_mtime < older_than
            ):
                continue
            os.unlink(path)
            removed += 1
    return removed
