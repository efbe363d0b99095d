"""Shows that each role's scenario is worth something: with the role's tasks emptied, it must be red.

    bin/prove                every role, of the last commit; some minutes each
    bin/prove nginx redis    these

The work is done on a copy of the last commit and in a lab of its own (named prove).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if (path / "tasks").is_dir())
PATIENCE = 1500  # seconds for one scenario
# Where Molecule was when it failed, and which tests said no.
FAILED_ACTION = re.compile(r"[➜>] (\w+): Executed: Failed")
FAILED_TEST = re.compile(r"FAILED (?:\S*::)?(\w+)")


def empty(copy: Path, role: str) -> None:
    for path in (copy / "roles" / role / "tasks").glob("*.yml"):
        path.write_text("---\n[]\n")


def prove(copy: Path, role: str) -> tuple[bool, str]:
    """Whether the scenario of an emptied role is red, and where."""
    environment = {
        **os.environ,
        "PATH": f"{copy / '.venv' / 'bin'}:{os.environ['PATH']}",
        "SLIPWAY_LAB": "prove",
        "MOLECULE_EPHEMERAL_DIRECTORY": str(copy / ".lab" / "molecule"),
        "NO_COLOR": "1",
        "ANSIBLE_NOCOLOR": "1",
        "COLUMNS": "200",
    }
    try:
        done = subprocess.run(
            ["molecule", "test", "--scenario-name", role, "--destroy", "always"],
            cwd=copy, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE,
            check=False,
        )  # fmt: skip
    finally:
        subprocess.run(["lab/lab.py", "down"], cwd=copy, env=environment, stdout=subprocess.DEVNULL, check=True)
    output = done.stdout + done.stderr
    actions = FAILED_ACTION.findall(output)
    tests = sorted(set(FAILED_TEST.findall(output)))
    where = f"{', '.join(actions) or 'nowhere'}: {', '.join(tests[:6]) or 'no test'}"
    if len(tests) > 6:
        where += f" and {len(tests) - 6} more"
    return done.returncode != 0, where


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("roles", nargs="*", metavar="ROLE", help="only these")
    chosen = parser.parse_args().roles or ROLES
    unknown = sorted(set(chosen) - set(ROLES))
    if unknown:
        parser.error(f"no role {', '.join(unknown)}")
    green = []
    with tempfile.TemporaryDirectory(prefix="slipway-prove-") as scratch:
        for role in chosen:
            copy = Path(scratch) / role
            subprocess.run(["git", "worktree", "add", "--quiet", "--detach", copy, "HEAD"], cwd=ROOT, check=True)
            try:
                (copy / ".venv").symlink_to(ROOT / ".venv")
                empty(copy, role)
                started = time.monotonic()
                red, where = prove(copy, role)
                print(
                    f"{role:12} {'red' if red else 'GREEN'}  {time.monotonic() - started:4.0f} s  {where}", flush=True
                )
                if not red:
                    green.append(role)
            finally:
                shutil.rmtree(copy, ignore_errors=True)
                subprocess.run(["git", "worktree", "prune"], cwd=ROOT, check=True)
    if green:
        print(f"green with no task in the role: {', '.join(green)}")
    return 1 if green else 0


if __name__ == "__main__":
    sys.exit(main())
