"""Secrets that were read once, for the rest of a run.

Ansible works each task of each host out in a process of its own, which forgets what it read. The parent opens a memory
(an anonymous file, in no directory, gone with the processes) that all of them inherit and what they execute does not.
Without one every question goes to the source.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from plugins.secrets.source import Source

_opened: list[int] = []


def begin() -> None:
    """Open the memory; called once, in the process that all others come from."""
    if not _opened and hasattr(os, "memfd_create"):
        _opened.append(os.memfd_create("slipway-secrets"))


def end() -> None:
    """Forget all of it."""
    while _opened:
        os.close(_opened.pop())


class Kept(Source):
    """A source that is asked once a run. ``key`` tells it from the other sources of the run."""

    def __init__(self, key: str, source: Source) -> None:
        self.key, self.source = key, source
        self.kind, self.writable = source.kind, source.writable  # type: ignore[misc]

    @property
    def place(self) -> str:
        return self.source.place

    def read(self) -> dict[str, Any]:
        return remembered(self.key, self.source.read)

    def set(self, values: Mapping[str, Any]) -> None:
        self.source.set(values)
        forget(self.key)

    def readers(self) -> list[str]:
        return self.source.readers()

    def editing(self) -> str:
        return self.source.editing()

    def closing(self) -> str:
        return self.source.closing()


def remembered(key: str, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``read`` gave when it was first called for this key, by whichever process of the run."""
    if not _opened:
        return read()
    with _locked() as known:
        if key not in known:
            known[key] = read()
            _write(known)
        found: dict[str, Any] = known[key]
        return found


def forget(key: str) -> None:
    if _opened:
        with _locked() as known:
            known.pop(key, None)
            _write(known)


@contextmanager
def _locked() -> Iterator[dict[str, Any]]:
    """Those who come second wait for the first one's answer instead of asking as well."""
    # A lock of the process and not of the descriptor, which they all share.
    fcntl.lockf(_opened[0], fcntl.LOCK_EX)
    try:
        size = os.fstat(_opened[0]).st_size
        yield json.loads(os.pread(_opened[0], size, 0)) if size else {}
    finally:
        fcntl.lockf(_opened[0], fcntl.LOCK_UN)


def _write(known: Mapping[str, Any]) -> None:
    content = json.dumps(known).encode()
    os.ftruncate(_opened[0], 0)
    written = 0
    while written < len(content):
        written += os.pwrite(_opened[0], content[written:], written)
