"""Virtual environments: one for each lock file, which the releases that have the same lock share.

Most releases change the app and not what it requires. A release's ``venv`` is a link to /opt/app/venvs/<name>, which is
root's and never changed once it is whole; it goes when no release leads to it any more.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from . import requirements, sandbox
from .config import Config
from .events import timestamp
from .files import remove_tree, sync_directory, write_json
from .ownership import give_to_build_user, make_root_owned
from .systemd import run, sandboxed

RECORD = "venv.json"
NAME_LENGTH = 16  # hexadecimal digits
# An option of a lock file that is no hash: it may read other files, whose content the lock does not say.
OPTION = re.compile(r"^\s*-(?!-hash=)", re.MULTILINE)


@dataclass(frozen=True)
class Venv:
    """The record that makes a directory a virtual environment; written last. Sizes in bytes."""

    key: str
    made_at: str
    # For which release, first.
    release: str
    bytes: int
    disk: int
    files: int


def real(directory: Path) -> Path | None:
    """What a release's ``venv`` leads to; None where it is a directory of its own, as it was once, or not there."""
    path = directory / "venv"
    return Path(os.readlink(path)) if path.is_symlink() else None


def read(directory: Path) -> Venv | None:
    """The record of one that is whole, None when it is not."""
    try:
        return Venv(**json.loads((directory / RECORD).read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def size(directory: Path) -> tuple[int, int]:
    """Bytes on the disk and entries of what a release's ``venv`` leads to; nothing where that is no link."""
    place = real(directory)
    found = read(place) if place else None
    return (found.disk, found.files) if found else (0, 0)


def key(config: Config, directory: Path, release: str, name: str, given: str) -> str:
    """Of all that decides what is installed: the lock with its hashes, and what it is installed with and on.

    What is not pinned by hashes is another day's choice: it belongs to one release.
    """
    path = directory / "src" / name
    content = [path.read_bytes()]
    if given == "uv":
        # Says which of the lock's packages are wanted.
        content.append((path.parent / "pyproject.toml").read_bytes())
    pinned = given == "uv" or (given == "hashed" and not OPTION.search(content[0].decode(errors="replace")))
    decides = {
        "requirements": [hashlib.sha256(part).hexdigest() for part in content],
        "extra": list(config.requirements_extra),
        "optional": list(config.requirements_optional),
        "alone": "" if pinned else release,
        "python": config.python_version,
        "compiled": bool(config.processes),
        "environment": config.build_environment,
        "machine": platform.machine(),
        "system": _system(),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _system() -> str:
    """The distribution and its version, as os-release(5) names them: what was compiled for another may not run here."""
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except FileNotFoundError:
        return ""
    return " ".join(sorted(line for line in lines if line.startswith(("ID=", "VERSION_ID="))))


class Provided(NamedTuple):
    """The kind of the requirements (requirements.kind), and whether what has them was there already."""

    kind: str
    there: bool


def provide(config: Config, directory: Path, release: str, name: str) -> Provided:
    """Lead a release to the virtual environment of its requirements (``name``, in its code)."""
    given = requirements.check(config, directory / "src", name)
    wanted = key(config, directory, release, name, given)
    place = config.venvs / wanted[:NAME_LENGTH]
    found = read(place)
    there = found is not None and found.key == wanted
    if not there:
        remove_tree(place)
        command = requirements.command(config, directory, name, given, place)
        _make(config, directory, place, release, command, wanted, f"Installing {name}")
    (directory / "venv").symlink_to(place)
    return Provided(given, there)


def _make(
    config: Config, directory: Path, place: Path, release: str, command: list[str], wanted: str, what: str
) -> None:
    environment = {
        "HOME": str(config.build_cache),
        "UV_CACHE_DIR": str(config.build_cache / "uv"),
        "UV_LINK_MODE": "copy",
        # An edge has a release for its static files: what never runs there need not be compiled.
        "UV_COMPILE_BYTECODE": "1" if config.processes else "0",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_CONFIG": "1",
        "UV_NO_PROGRESS": "1",
        # The authorities that the host's owner chose, not those that uv brings along.
        "UV_SYSTEM_CERTS": "1",
        **config.build_environment,
    }
    try:
        give_to_build_user(config, place)
        sandboxed(
            f"releasectl-build-{release}",
            command,
            sandbox.build(config, directory, [place, config.build_cache]),
            environment,
            config.build_timeout,
            what,
        )
        measured = make_root_owned(place)
        # Later releases will rely on it, also after a power cut: it is on the disk before it counts as whole.
        run(["sync", "--file-system", str(place)])
        write_json(place / RECORD, asdict(Venv(wanted, timestamp(), release, *measured)), 0o644)
        sync_directory(config.venvs)
    except BaseException:
        remove_tree(place)
        raise


def sweep(config: Config) -> list[str]:
    """Remove what a killed verb left half made; whatever filled it has been stopped by now."""
    return _remove([entry for entry in _entries(config) if read(entry) is None])


def prune(config: Config) -> list[str]:
    """Remove those that no release leads to."""
    wanted = {real(Path(entry.path)) for entry in os.scandir(config.releases) if entry.is_dir(follow_symlinks=False)}
    return _remove([entry for entry in _entries(config) if entry not in wanted])


def _entries(config: Config) -> Iterator[Path]:
    if config.venvs.is_dir():
        for entry in os.scandir(config.venvs):
            if entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)


def _remove(doomed: list[Path]) -> list[str]:
    for place in doomed:
        # Its record first: a crash leaves litter, and never half of one that is taken for whole.
        (place / RECORD).unlink(missing_ok=True)
        remove_tree(place)
    return [place.name for place in doomed]
