"""Writing files: never over what somebody wrote. An example that git has as it is may be replaced."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from starter.answers import Wrong

EXAMPLE = re.compile(r"^# An example: `make init` writes yours", re.MULTILINE)


def verdict(root: Path, path: Path, text: str) -> str:
    """What would be done: written, replaced, left (it says the same already), or refused (it is somebody's)."""
    if not path.exists() and not path.is_symlink():
        return "written"
    there = path.read_text(errors="replace")
    if there == text:
        return "left"
    if EXAMPLE.search(there) and _committed(root, path):
        return "replaced"
    return "refused"


def place(root: Path, files: dict[Path, tuple[str, str]], force: bool) -> list[tuple[str, Path, str]]:
    """Write all of them or, where one of them is somebody's, none. Gives what was done with each, and why."""
    verdicts = {path: verdict(root, path, text) for path, (_, text) in files.items()}
    refused = [str(shown(root, path)) for path, done in verdicts.items() if done == "refused"]
    if refused and not force:
        raise Wrong(
            f"{', '.join(refused)}: there already, and no untouched example. Nothing was written; --force"
            f" writes over {'it' if len(refused) == 1 else 'them'}"
        )
    done = []
    for path, (why, text) in files.items():
        word = "written over" if verdicts[path] == "refused" else verdicts[path]
        if word != "left":
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            draft.write_text(text)
            draft.replace(path)
        done.append((word, path, why))
    return done


def shown(root: Path, path: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


def _committed(root: Path, path: Path) -> bool:
    """Whether git has this very content, so that `git checkout` brings it back."""
    done = subprocess.run(
        ["git", "-C", str(root), "status", "--porcelain", "--ignored", "--", str(path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode == 0 and not done.stdout.strip()
