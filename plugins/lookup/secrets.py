"""The secrets of the environment, from wherever secrets_source says."""

from __future__ import annotations

DOCUMENTATION = r"""
name: secrets
short_description: The secrets that secrets_source leads to
description:
  - Gives the dictionary that C(secrets_source) describes, or an empty one where it is not set. It is what the variable
    C(secrets) is made of (C(group_vars/all/main.yml)); roles and settings use that.
  - The source is asked when a value is wanted and not before, and once a run. A play that uses no secret needs no key.
"""
EXAMPLES = r"""
- vars:
    app_secrets: "{{ lookup('secrets').app }}"
"""
RETURN = r"""
_raw:
  description: One dictionary of names and values.
  type: list
  elements: dict
"""

import sys
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)

from plugins.secrets import asked
from plugins.secrets.source import Refused


class LookupModule(LookupBase):
    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **words: Any) -> list[dict[str, Any]]:
        if terms or words:
            raise AnsibleError("lookup('secrets') takes nothing: what it reads is said by secrets_source.")
        known = variables or {}
        if not asked.is_set(known):
            return [{}]
        try:
            return [asked.source(known, self._templar, self._loader).read()]
        except Refused as refused:
            raise AnsibleError(str(refused)) from None
