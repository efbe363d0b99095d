"""The cache of builds stays below a bound: what no kept release was made from goes first."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
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
                found.add((plain(match["name"]), match["version"]))
    return found


def plain(name: str) -> str:
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
    for last in (False, True):
        if size(config.build_cache) <= most:
            break
        for path in config.build_cache.iterdir():
            if (path.name == "uv") is last:
                say(f"removing {path}")
                remove_tree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return True


def _forget(cache: Path, wanted: set[tuple[str, str]]) -> None:
    """Remove uv's references to packages that are not ``wanted``, and the sources of those that it built itself.

    What is missing costs a download and nothing else.
    """
    for entry in _versions(cache):
        package = plain(Path(entry.path).parent.name)
        if (package, entry.name.split("-", 1)[0]) not in wanted:
            if entry.is_dir(follow_symlinks=False):
                remove_tree(Path(entry.path))
            else:
                os.unlink(entry.path)


def _versions(cache: Path) -> Iterator[os.DirEntry[str]]:
    """What uv keeps by package and version: wheels-*/pypi/NAME/VERSION-TAGS, wheels-*/index/HASH/NAME/VERSION-TAGS, the
    same with `url`, and sdists-*/…/NAME/VERSION. The build user made these directories: no link is followed.
    """
    if cache.is_symlink():
        return
    for bucket in _directories(cache):
        if not bucket.name.startswith(("wheels-", "sdists-")):
            continue
        for source in _directories(bucket.path):
            packages = list(_directories(source.path)) if source.name == "pypi" else []
            if source.name in ("index", "url"):
                packages = [package for one in _directories(source.path) for package in _directories(one.path)]
            for package in packages:
                with os.scandir(package.path) as entries:
                    yield from list(entries)


def _directories(path: str | Path) -> Iterator[os.DirEntry[str]]:
    """The directories in a directory, which may not be there; links to directories are none."""
    try:
        with os.scandir(path) as entries:
            yield from [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
