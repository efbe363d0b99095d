"""The verbs of restore points: `dump`, `dumps` and `restore`."""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import names
from .config import Config
from .errors import Refusal
from .events import timestamp
from .files import write_atomically
from .lifecycle import Lifecycle
from .points import Points, database_name, point_name

IDENTITY_MOST = 64 * 1024  # bytes of a file with a key of age


def arguments(added: argparse.ArgumentParser) -> None:
    """What `restore` may be told."""
    added.add_argument("--point", type=point_name, required=True, help="which one, as 'dumps' lists it")
    added.add_argument("--database", type=database_name, help="another database on the same server, which is empty")
    added.add_argument(
        "--identity",
        type=names.artifact_name,
        help="the key of age, a file inside the incoming directory; it is removed",
    )


def listing(config: Config) -> dict[str, Any]:
    """All that are kept, as a table."""
    found = Points(config).listed()
    rows = [
        f"{point['name']}  {-(-int(point['size']) // 1024):>9} KiB  kept until {timestamp(float(point['until']))}"
        for point in found
    ]
    text = f"{len(found)} restore points at {config.restore_point_target}."
    return {"points": found, "table": rows, "message": "\n".join([*rows, text]) if rows else text}


@contextlib.contextmanager
def _environment(lifecycle: Lifecycle, verb: str) -> Iterator[tuple[str, Path]]:
    """The live release, and the settings in force as systemd hands them over."""
    live = lifecycle.live_release()
    if live is None:
        raise Refusal("No release is live yet: the database is found by the settings of one, deploy one first.")
    path = lifecycle.settings.write_environment(f"{verb}-{live}", lifecycle.settings.current())
    try:
        yield live, path
    finally:
        path.unlink(missing_ok=True)


def dump(lifecycle: Lifecycle) -> dict[str, Any]:
    """Make one now."""
    with _environment(lifecycle, "dump") as (live, path):
        point = Points(lifecycle.config, lifecycle.say).make(live, path)
    return {
        "changed": True, "release": live, "restore_point": point.public(), "message": f"Restore point: {point.told()}."
    }  # fmt: skip


def restore(lifecycle: Lifecycle, asked: dict[str, Any]) -> dict[str, Any]:
    """Put one into an empty database."""
    config = lifecycle.config
    with _identity(config, asked["identity"]) as identity, _environment(lifecycle, "restore") as (live, path):
        Points(config, lifecycle.say).restore(live, asked["point"], asked["database"], identity, path)
    where = asked["database"] or "the database of the settings in force"
    return {
        "changed": True, "release": live, "restored": asked["point"], "message": f"{asked['point']} is in {where} now."
    }  # fmt: skip


@contextlib.contextmanager
def _identity(config: Config, name: str | None) -> Iterator[Path | None]:
    """The uploaded key, for as long as it is needed, in memory; the upload is removed."""
    if name is None:
        yield None
        return
    upload, kept = config.incoming / name, config.private_run / "identity"
    try:
        descriptor = os.open(upload, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Refusal(f"The key {name} cannot be opened ({error.strerror}): upload it as a plain file.") from None
    with os.fdopen(descriptor, "rb") as stream:
        seen = os.fstat(stream.fileno())
        if not stat.S_ISREG(seen.st_mode) or seen.st_size > IDENTITY_MOST:
            raise Refusal(f"The key {name} is no plain file of at most {IDENTITY_MOST} bytes.")
        content = stream.read(IDENTITY_MOST)
    upload.unlink(missing_ok=True)
    write_atomically(kept, content, 0o600)
    try:
        yield kept
    finally:
        kept.unlink(missing_ok=True)
