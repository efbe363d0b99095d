"""The app's settings, as roles need them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# This repository's own parts, and the program that hosts run.
ROOT = Path(__file__).resolve().parents[2]
for place in (str(ROOT), str(ROOT / "roles/release/files")):
    if place not in sys.path:
        sys.path.append(place)

from plugins.settings import schema
from releasectl import needs


def settings_defaults(given: Any) -> dict[str, str]:
    """What app_settings_schema has for the names that an environment does not set."""
    return schema.defaults(schema.parse(given))


def fingerprint_source(hosts: Iterable[str], hostvars: Mapping[str, Any]) -> str:
    """Of the hosts whose settings were just delivered, the one whose key the others are to have, when they have not all
    the same: one that had it before. Empty where there is nothing to do.
    """
    found = {name: hostvars[name].get("__envdir_installed") or {} for name in hosts}
    keys = {name: told for name, told in found.items() if told.get("key")}
    if len({told["key"] for told in keys.values()}) < 2:
        return ""
    return next((name for name, told in keys.items() if not told.get("key_made")), next(iter(keys)))


def settings_missing(hosts: Iterable[str], hostvars: Mapping[str, Any], release: str, wanted: Iterable[str]) -> str:
    """The sentence about the settings that a release needs and that are not in force on each of the hosts, by what they
    answered to `status`; empty where there is nothing to say. Hosts that run nothing of the app need none.
    """
    where: dict[str, list[str]] = {}
    for name in hosts:
        status = hostvars[name].get("__release_status") or {}
        if status.get("processes") and "settings_names" in status:
            for gone in needs.missing(wanted, status["settings_names"]):
                where.setdefault(gone, []).append(str(name))
    if not where:
        return ""
    on = list(dict.fromkeys(name for names in where.values() for name in names))
    return needs.sentence(release, list(where), f"on {', '.join(on)}")


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "settings_defaults": settings_defaults,
            "fingerprint_source": fingerprint_source,
            "settings_missing": settings_missing,
        }
