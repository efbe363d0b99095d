#!/usr/bin/env python3
"""Runs the lab's command line with the repository's own tool set: see lab/cli.py."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv" / "bin" / "python"

if __name__ == "__main__":
    if not PYTHON.exists():
        sys.exit("the tool set is missing: run `make setup`")
    if Path(sys.prefix) != ROOT / ".venv":
        os.execv(PYTHON, [str(PYTHON), __file__, *sys.argv[1:]])  # noqa: S606
    # This directory holds a package named lab; as a script's own directory it would hide that.
    sys.path[0] = str(ROOT)
    from lab.cli import main

    sys.exit(main())
