"""Replace a file of secrets in one step, with nobody's work lost."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plugins.secrets.source import Refused


@contextmanager
def replacing(file: Path, place: str) -> Iterator[Path]:
    """A copy of ``file``, beside it and for its owner alone, that takes its place when the block ends well.

    Two of these wait for each other. What anybody else wrote into the file meanwhile (an editor) is not written over:
    then the block's work is dropped, with a sentence.
    """
    file = file.resolve()
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    copy = file.with_name(f".{secrets.token_hex(8)}.{file.name}")
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        before, mode = file.read_bytes(), file.stat().st_mode & 0o777
        written(copy, before)
        yield copy
        if file.read_bytes() != before:
            raise Refused(f"{place} was changed by somebody else meanwhile, and is left as it is now: start again.")
        copy.chmod(mode)
        with copy.open("rb") as whole:
            os.fsync(whole.fileno())
        copy.replace(file)
        os.fsync(directory)
    finally:
        copy.unlink(missing_ok=True)
        os.close(directory)


def written(path: Path, content: bytes) -> None:
    """A new file that only its owner reads, from its first moment."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
