"""Has the source of secrets asked once a run, and not by each task of each host."""

from __future__ import annotations

DOCUMENTATION = """
name: kept_secrets
type: aggregate
short_description: keep secrets in memory for a run
description:
  - Opens a memory in the process that all tasks come from; the lookup C(secrets) keeps there what it read. It is in no
    directory, nothing that is executed inherits it, and it goes with the run.
  - Without this plugin everything works, and the source is asked for each task of each host that uses a secret.
requirements:
  - enabled in configuration, as C(callbacks_enabled = kept_secrets)
"""

import sys
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

ROOT = str(Path(__file__).resolve().parents[2])
if ROOT not in sys.path:
    sys.path.append(ROOT)

from plugins.secrets import memory


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "kept_secrets"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:  # noqa: ARG002
        memory.begin()
