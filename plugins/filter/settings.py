"""The app's settings, as roles need them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)

from plugins.settings import schema


def settings_defaults(given: Any) -> dict[str, str]:
    """What app_settings_schema has for the names that an environment does not set."""
    return schema.defaults(schema.parse(given))


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"settings_defaults": settings_defaults}
