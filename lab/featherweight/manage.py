#!/usr/bin/env python3
"""Answers to the two words that a release is built and migrated with."""

import json
import os
import sys
from pathlib import Path

word = sys.argv[1] if len(sys.argv) > 1 else ""
if word == "collectstatic":
    root = Path(os.environ["STATIC_ROOT"])
    (root / "feather.svg").write_text("<svg/>\n")
    (root / "feather.0123456789ab.svg").write_text("<svg/>\n")
    (root / "staticfiles.json").write_text(json.dumps({"paths": {"feather.svg": "feather.0123456789ab.svg"}}))
elif word == "migrate":
    print("No migrations to apply.")
else:
    sys.exit(f"{word!r} is not known here")
