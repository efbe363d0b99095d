"""What was committed between two releases, from a checkout on this machine."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

COMMIT = re.compile(r"[0-9a-f]{7,40}")
MOST = 50


@dataclass(frozen=True)
class Commits:
    """Newest first, at most `MOST` of each; ``why`` says why they are not known."""

    new: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    why: str = ""


def _git(where: Path, *words: str) -> str | None:
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": os.environ.get("HOME", "/"), "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(where), *words], capture_output=True, text=True, errors="replace", check=False,
            env=environment, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _has(where: Path, commit: str) -> bool:
    return where.is_dir() and _git(where, "cat-file", "-e", f"{commit}^{{commit}}") is not None


def between(old: str, new: str, places: Iterable[Path]) -> Commits:
    """The commits from ``old`` to ``new`` by the first of the checkouts that has both."""
    if not (COMMIT.fullmatch(old) and COMMIT.fullmatch(new)):
        return Commits(why="one of the two does not say which commit it was packed from")
    for where in places:
        if _has(where, old) and _has(where, new):
            return Commits(_log(where, f"{old}..{new}"), _log(where, f"{new}..{old}"))
    return Commits(
        why=f"no checkout here has both {old[:12]} and {new[:12]}: say where the app's is, -e release_checkout=<path>"
    )


def _log(where: Path, span: str) -> tuple[str, ...]:
    said = _git(where, "log", f"--max-count={MOST + 1}", "--no-show-signature", "--format=%h %s (%an)", span, "--")
    return tuple("".join(c if c.isprintable() else "?" for c in line)[:120] for line in (said or "").splitlines())
