"""`make init`: five questions, and the inventory, variables and a workflow file for somebody's own app and host."""

import sys
from pathlib import Path

# What a host guesses of an artifact is what is guessed here.
HOST_PROGRAM = Path(__file__).resolve().parents[1] / "roles/release/files"
if str(HOST_PROGRAM) not in sys.path:
    sys.path.append(str(HOST_PROGRAM))
