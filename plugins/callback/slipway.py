"""The default output, quieter where a release goes out, with one sentence at the end that says what happened."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.plugins.loader import filter_loader, test_loader
from ansible.utils.vars import load_extra_vars

# This repository's own parts, whatever directory the playbook was called from.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from plugins.notices.ending import Ending, troubled

DOCUMENTATION = """
name: slipway
type: stdout
short_description: default output that ends with one sentence
description:
  - As the callback V(default), but what the release lifecycle answers is shown as a sentence instead of as data.
  - An answer that is marked C(refused) is no error of the machinery, so where the task stands is not shown.
  - After the recap it prints the C(closing) that a task returned, or for a deploy, a rollback, an audit, a patch or
    maintenance why it failed, with the C(journal) of what was refused above it.
  - A C(table) that a task returned stands above the closing sentence. With C(-e status_format=json) the playbook
    C(status) prints what it returned and nothing else.
  - A host that was lost while its guard was armed (see the action M(lockout_guard)) is named last, with what it does.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

SPEAKING = (
    "releasectl",
    "edge_check",
    "release_check",
    "release_preview",
    "release_verdict",
    "settings_verdict",
    "audit_plan",
    "audit_report",
    "secrets_report",
    "maintenance",
    "release_status",
)
PLAYBOOKS = (
    *("deploy", "rollback", "settings", "migrate", "restore_point", "audit_host", "patch", "maintenance", "status"),
    "secrets_report",
)


class Mute:
    """Shows nothing of what a person would be shown; all else is the display's."""

    def __init__(self, display: Any) -> None:
        self.spoken = display

    def __getattr__(self, name: str) -> Any:
        return getattr(self.spoken, name)

    def display(self, *_: Any, **__: Any) -> None:
        """Not for machines."""

    def banner(self, *_: Any, **__: Any) -> None:
        """Not for machines."""


class CallbackModule(Default):
    """See DOCUMENTATION."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "slipway"

    def __init__(self) -> None:
        super().__init__()
        self._display: Any = self._display
        self._started = time.monotonic()
        self._releasing = False
        self._ending = Ending()
        self._table: list[str] = []
        self._guarded: dict[str, dict[str, Any]] = {}
        self._cut_off: list[str] = []

    def v2_playbook_on_start(self, playbook: Any) -> None:
        name = Path(playbook._file_name).stem
        if name == "status" and load_extra_vars(playbook._loader).get("status_format") == "json":
            self._display = Mute(self._display)
        super().v2_playbook_on_start(playbook)
        # The process of each task has what was loaded before it began, and would load all of it for itself.
        for loader in (filter_loader, test_loader):
            list(loader.all())
        self._releasing = name in PLAYBOOKS

    def v2_runner_on_ok(self, result: Any) -> None:
        super().v2_runner_on_ok(result)
        if result.task.action == "lockout_guard" and result.result.get("guard"):
            self._guarded[result.host.get_name()] = dict(result.result)
        if result.task.action not in SPEAKING:
            return
        self._ending.ok(result.result)
        self._table = result.result.get("table") or self._table
        if result.result.get("msg") and not result.result.get("closing"):
            self._display.display(f"  {result.result['msg']}")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        answer = dict(result.result)
        if result.task.action not in SPEAKING or not answer.get("refused") or not self._releasing:
            super().v2_runner_on_failed(result, ignore_errors)
        else:
            if self._last_task_banner != result.task._uuid:
                self._print_task_banner(result.task)
            self._display.display(f"failed: [{self.host_label(result)}], see the end", color=C.COLOR_ERROR)
        self._table = answer.get("table") or self._table
        self._ending.failed(result.host.get_name(), result.task.action, answer)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        super().v2_runner_on_unreachable(result)
        name = result.host.get_name()
        self._ending.unreachable(name, result.result)
        guarded = self._guarded.get(name, {})
        if guarded.get("guard") == "armed":
            self._cut_off.append(
                f"{name} was lost while {guarded['because']}. It puts everything back by itself, "
                f"{guarded['seconds']} s after that began: wait, see `sudo /usr/local/libexec/slipway/guard status` "
                "there, and run this again."
            )

    def v2_playbook_on_stats(self, stats: Any) -> None:
        super().v2_playbook_on_stats(stats)
        for sentence in self._cut_off:
            self._display.display(sentence, color=C.COLOR_ERROR)
        if not self._releasing:
            return
        bad = troubled(stats)
        if isinstance(self._display, Mute):
            self._for_machines(bad)
            return
        for row in self._table:
            self._display.display(row)
        took = "" if bad or self._ending.refusal else f" ({time.monotonic() - self._started:.1f} s)"
        for said in self._ending.sentences(bad):
            for line in said.journal[-20:]:
                self._display.display(f"  | {line}")
            self._display.display(f"{said.text}{took}", color=C.COLOR_OK if said.good else C.COLOR_ERROR)

    def _for_machines(self, bad: list[str]) -> None:
        """What was returned, and only where nothing was why not, which is for a person again."""
        for row in self._table:
            self._display.spoken.display(row)
        for said in self._ending.sentences(bad) if not self._table else []:
            self._display.spoken.display(said.text, color=C.COLOR_ERROR, stderr=True)
