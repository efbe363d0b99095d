"""Whose the files of a release are: the build user's while it makes them, root's ever after."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from .config import Config
from .errors import Refusal


def give_to_build_user(config: Config, *paths: Path) -> None:
    """Make directories that the build user may fill."""
    for path in paths:
        path.mkdir(mode=0o755, exist_ok=True)
        shutil.chown(path, config.build_user, config.build_user)


def make_root_owned(directory: Path) -> tuple[int, int, int]:
    """Give a tree to root, readable by all and writable by nobody else; return the bytes in its files, the bytes that
    it takes on the disk, and how many entries it has.

    No process of the build user is left by now, so nothing changes underneath. Links are not followed.
    """
    size = disk = count = 0
    for parent, names, files in os.walk(directory):
        for name in [".", *names, *files]:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            disk += status.st_blocks * 512
            count += 1
            if stat.S_ISLNK(status.st_mode):
                os.lchown(path, 0, 0)
                continue
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                raise Refusal(
                    f"The build made a special file, {path}: a release holds only files, directories and links."
                )
            executable = stat.S_ISDIR(status.st_mode) or status.st_mode & 0o100
            os.chown(path, 0, 0)
            os.chmod(path, 0o755 if executable else 0o644)
            if stat.S_ISREG(status.st_mode):
                if status.st_nlink > 1:
                    raise Refusal(f"The build made a hard link, {path}: whoever holds the other name could change it.")
                size += status.st_size
    return size, disk, count
