"""Keeps modules as Ansible packs them for hosts, so that a run need not pack again what the one before it packed."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.plugins.callback import CallbackBase
from ansible.release import __version__

DOCUMENTATION = """
name: kept_modules
type: aggregate
short_description: keep packed modules from one run to the next
description:
  - Ansible packs each module with the code that it imports at the module's first use in a run, for a third of a second
    or so, and throws that away at the end. This has it look in, and add to, C(.cache/modules) of the repository.
  - What is kept is used while nothing of it changed. That is Ansible itself, the collections, and this repository's
    modules; a change of any of them begins anew. What nobody used for a week is removed.
  - Where C(.cache) cannot be written, or is not the user's own, Ansible does as ever.
requirements:
  - enabled in configuration, as C(callbacks_enabled = kept_modules)
"""

ROOT = Path(__file__).resolve().parents[2]
UNUSED = 7 * 24 * 3600  # seconds


def sources() -> Iterable[Path]:
    """Whatever goes into a module: ours, file by file, and of each collection what says which version it is."""
    for directory in (ROOT / "plugins/modules", ROOT / "plugins/module_utils"):
        yield from sorted(directory.rglob("*.py"))
    for place in C.COLLECTIONS_PATHS:
        yield from sorted(Path(place).glob("ansible_collections/*/*/MANIFEST.json"))
    # The collections that came with Ansible are beside it.
    package = Path(C.__file__).resolve().parent
    yield from sorted(package.parent.glob("ansible_collections/*/*/MANIFEST.json"))
    yield package / "release.py"


def fingerprint(files: Iterable[Path]) -> str:
    """Of these files, by their names, sizes and times: to read them all would cost what is to be saved."""
    digest = hashlib.sha256(__version__.encode())
    for file in files:
        found = file.stat()
        digest.update(f"{file}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def keep(kept: Path, current: str, place: Path) -> None:
    """Have ``place``, where Ansible looks, be the directory ``current`` of ``kept``, which is this user's alone."""
    directory = kept / current
    # Each by itself: a parent that is made on the way is as open as the umask lets it be.
    for path in (kept, directory):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
        # What lies there is run on hosts, as root.
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            return
    os.utime(directory)
    place.symlink_to(directory)
    for other in kept.iterdir():
        if time.time() - other.stat().st_mtime > UNUSED:
            shutil.rmtree(other)


class CallbackModule(CallbackBase):
    """See DOCUMENTATION."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kept_modules"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, _playbook: Any) -> None:
        try:
            keep(ROOT / ".cache/modules", fingerprint(sources()), Path(C.DEFAULT_LOCAL_TMP) / "ansiballz_cache")
        except OSError as error:
            self._display.vvv(f"modules are packed anew: {error}")
