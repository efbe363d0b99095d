"""The source of a host's secrets, from inside an Ansible plugin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plugins.secrets import factory, memory
from plugins.secrets.source import Source

ROOT = Path(__file__).resolve().parents[2]


def is_set(variables: Mapping[str, Any]) -> bool:
    """Whether this environment has a source at all."""
    return bool(variables.get("secrets_source"))


def source(variables: Mapping[str, Any], templar: Any, loader: Any) -> memory.Kept:
    """What ``secrets_source`` of these variables describes, asked once a run. Raises ``Refused``.

    The template of the kind ``lookup`` is not worked out before its values are wanted, and for each host by itself: it
    may name the host. ``loader`` has the passwords of vaults that Ansible was given.
    """
    raw = variables.get("secrets_source")
    if not isinstance(raw, Mapping):
        raw = templar.template(raw)
    lazy = isinstance(raw, Mapping) and "value" in raw
    given = (
        {key: raw[key] if key == "value" else templar.template(raw[key]) for key in raw}
        if lazy
        else templar.template(raw)
    )
    made: Source = factory.source(
        given,
        ROOT,
        value=lambda: templar.template(given["value"]),
        passwords=lambda: [(str(name), secret) for name, secret in loader._vault.secrets or []],
    )
    words = [given, variables.get("inventory_hostname") if lazy else ""]
    return memory.Kept(hashlib.sha256(json.dumps(words, default=str, sort_keys=True).encode()).hexdigest(), made)
