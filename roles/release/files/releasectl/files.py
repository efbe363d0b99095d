"""Files that are whole or absent after a crash at any instant: write beside, sync, rename."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Make a rename in ``path`` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_name(name: str) -> str:
    """Where ``name`` is written before it is renamed."""
    return f".{name}.new"


def final_name(name: str) -> str:
    """What a file is, or was to become: a kill may have come before the rename."""
    return name[1:-4] if name.startswith(".") and name.endswith(".new") else name


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace ``path`` by ``data``; readers see the old or the new content, never a part."""
    temporary = path.with_name(temporary_name(path.name))
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(stream.fileno(), mode)
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.rename(path)
    sync_directory(path.parent)


def write_json(path: Path, value: object, mode: int = 0o600) -> None:
    """Replace ``path`` by ``value`` as JSON."""
    write_atomically(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode(), mode)


def link_atomically(link: Path, target: str) -> bool:
    """Make ``link`` a symbolic link to ``target`` by one rename; return whether that changed anything."""
    if link.is_symlink() and os.readlink(link) == target:
        return False
    temporary = link.with_name(temporary_name(link.name))
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(link)
    sync_directory(link.parent)
    return True


def link_name(link: Path) -> str | None:
    """The last part of what ``link`` points to, or None when it is not a link."""
    try:
        return os.path.basename(os.readlink(link).rstrip("/"))
    except (FileNotFoundError, OSError):
        return None


def remove_tree(path: Path) -> None:
    """Remove a directory tree; one that is gone already is fine, links in it are not followed."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return
