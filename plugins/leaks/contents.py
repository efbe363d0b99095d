"""What git has: the files that are staged, all that are tracked, or what some commits brought."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

REGULAR = ("100644", "100755")


class Refused(Exception):
    """One sentence: what git was not able to do."""


def git(root: Path, *words: str, given: bytes = b"") -> bytes:
    done = subprocess.run(["git", "-C", str(root), *words], input=given, capture_output=True, check=False)
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Refused(f"git {words[0]} failed in {root}: {why[0]}")
    return done.stdout


def root_of(place: Path) -> Path:
    return Path(git(place, "rev-parse", "--show-toplevel").decode().strip())


def tracked(root: Path) -> Iterator[tuple[str, str]]:
    """(path, text) of each tracked file, as it is in the working tree now."""
    for line in _split(git(root, "ls-files", "--stage", "-z")):
        words, _, path = line.partition("\t")
        file = root / path
        if words.split()[0] in REGULAR and file.is_file() and not file.is_symlink():
            yield path, file.read_bytes().decode(errors="replace")


def staged(root: Path) -> Iterator[tuple[str, str]]:
    """(path, text) of each file that the next commit adds or changes, as it is staged."""
    names = _split(git(root, "diff", "--cached", "--name-only", "--no-renames", "--diff-filter=d", "-z"))
    blobs = _split(git(root, "--literal-pathspecs", "ls-files", "--stage", "-z", "--", *names)) if names else []
    pairs = [line.partition("\t")[::2] for line in blobs]
    yield from texts(root, [(words.split()[1], path) for words, path in pairs if words.split()[0] in REGULAR])


def brought(root: Path, commits: str) -> Iterator[tuple[str, str]]:
    """(path, text) of every version of a file that a range of commits brought, those that it took away again too."""
    listed = git(root, "rev-list", "--objects", commits, "--").decode(errors="surrogateescape").splitlines()
    named = [(sha, path) for sha, _, path in (line.partition(" ") for line in listed) if path]
    yield from texts(root, named)


def _split(output: bytes) -> list[str]:
    return [part for part in output.decode(errors="surrogateescape").split("\0") if part]


def texts(root: Path, named: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Asks one git for all of them; what is no file (a directory) is passed over."""
    wanted = list(named)
    answer = git(root, "cat-file", "--batch", given="".join(f"{sha}\n" for sha, _ in wanted).encode())
    at = 0
    for _, path in wanted:
        end = answer.index(b"\n", at)
        _, kind, size = answer[at:end].split()
        start, at = end + 1, end + 1 + int(size) + 1
        if kind == b"blob":
            yield path, answer[start : at - 1].decode(errors="replace")
