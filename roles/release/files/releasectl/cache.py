"""The cache of builds stays below a bound: what no kept release was made from goes first."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from . import sandbox
from .config import Config
from .errors import Refusal
from .files import remove_tree
from .systemd import sandboxed

INSTALLED = re.compile(r"(?P<name>.+)-(?P<version>[^-]+)\.dist-info")


def size(directory: Path) -> int:
    """What a tree takes on the disk, in bytes; links are not followed."""
    total = 0
    waiting = [os.fspath(directory)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except FileNotFoundError:
            continue
    return total


def installed(config: Config, releases: Iterable[str]) -> set[tuple[str, str]]:
    """Name and version of every package in the virtual environments of these releases."""
    found = set()
    for release in releases:
        for path in (config.release_dir(release) / "venv").glob("lib/python*/site-packages/*.dist-info"):
            match = INSTALLED.fullmatch(path.name)
            if match:
                found.add((_plain(match["name"]), match["version"]))
    return found


def _plain(name: str) -> str:
    """A package's name as an index writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def bound(config: Config, releases: Iterable[str], say: Callable[[str], None]) -> bool:
    """Bring the cache below its bound; return whether anything was removed. Runs under the flock, when nobody builds.

    uv itself only forgets what nothing refers to any more, and every version that was ever installed is referred to. So
    the references to what no kept release has go, and then uv does its part; when that is not enough, what else is
    there (hooks' own caches), and at last everything, at the price of one build that downloads all it needs.
    """
    most = config.build_cache_max_bytes
    if not most or size(config.build_cache) <= most:
        return False
    say("the build cache is over release_build_cache_max_bytes: removing what no kept release was made from")
    try:
        _forget(config.build_cache / "uv", installed(config, releases))
        sandboxed(
            "releasectl-build-cache",
            [str(config.uv), "cache", "prune", "--quiet"],
            [
                *sandbox.build(config, config.build_cache, [config.build_cache], config.build_cache),
                "PrivateNetwork=yes",
            ],
            {"HOME": str(config.build_cache), "UV_CACHE_DIR": str(config.build_cache / "uv"), "UV_NO_CONFIG": "1"},
            config.build_timeout,
            "Pruning the build cache",
        )
    except (Refusal, OSError) as error:
        say(f"{error}: the whole cache is next")
    for doomed in (lambda path: path.name != "uv", lambda path: path.name == "uv"):
        if size(config.build_cache) <= most:
            break
        for path in config.build_cache.iterdir():
            if doomed(path):
                say(f"removing {path}")
                remove_tree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return True


def _forget(cache: Path, wanted: set[tuple[str, str]]) -> None:
    """Remove uv's references to packages that are not ``wanted``: wheels-*/…/NAME/VERSION-TAGS and
    sdists-*/…/NAME/VERSION.

    A reference that is missing costs a download and nothing else.
    """
    for parent, names, files in os.walk(cache):
        parts = Path(parent).relative_to(cache).parts
        if not parts:
            names[:] = [name for name in names if name.startswith(("wheels-", "sdists-"))]
            continue
        package = _plain(parts[-1])
        for name in files if parts[0].startswith("wheels-") else ():
            if (package, name.split("-", 1)[0]) not in wanted:
                os.unlink(os.path.join(parent, name))
        # In both places links to what was unpacked are seen as directories here.
        for name in list(names):
            path = Path(parent, name)
            if path.is_symlink() and (package, name.split("-", 1)[0]) not in wanted:
                path.unlink()
            elif parts[0].startswith("sdists-") and len(parts) >= 3 and _is_source(path, package, name, wanted):
                names.remove(name)
                remove_tree(path)


def _is_source(path: Path, package: str, version: str, wanted: set[tuple[str, str]]) -> bool:
    """Whether a directory is that of one version of a source package which is not wanted."""
    return not path.is_symlink() and (package, version) not in wanted and (path / "revision.http").exists()
