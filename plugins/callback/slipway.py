"""The default output, quieter where a release goes out, with one sentence at the end that says what happened."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.plugins.loader import filter_loader, test_loader

DOCUMENTATION = """
name: slipway
type: stdout
short_description: default output that ends with one sentence
description:
  - As the callback V(default), but what the release lifecycle answers is shown as a sentence instead of as data.
  - An answer that is marked C(refused) is no error of the machinery, so where the task stands is not shown.
  - After the recap it prints the C(closing) that a task returned, or for a deploy, a rollback, an audit, a patch or
    maintenance why it failed, with the C(journal) of what was refused above it.
  - A host that was lost while its guard was armed (see the action M(lockout_guard)) is named last, with what it does.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

SPEAKING = ("releasectl", "edge_check", "release_check", "release_verdict", "audit_plan", "audit_report", "maintenance")
PLAYBOOKS = ("deploy", "rollback", "migrate", "audit_host", "patch", "maintenance")


class CallbackModule(Default):
    """See DOCUMENTATION."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "slipway"

    def __init__(self) -> None:
        super().__init__()
        self._started = time.monotonic()
        self._releasing = False
        self._closings: dict[str, None] = {}
        self._refusal: dict[str, Any] | None = None
        self._failures: dict[str, dict[str, Any]] = {}
        self._guarded: dict[str, dict[str, Any]] = {}
        self._cut_off: list[str] = []

    def v2_playbook_on_start(self, playbook: Any) -> None:
        super().v2_playbook_on_start(playbook)
        # The process of each task has what was loaded before it began, and would load all of it for itself.
        for loader in (filter_loader, test_loader):
            list(loader.all())
        self._releasing = Path(playbook._file_name).stem in PLAYBOOKS

    def v2_runner_on_ok(self, result: Any) -> None:
        super().v2_runner_on_ok(result)
        if result.task.action == "lockout_guard" and result.result.get("guard"):
            self._guarded[result.host.get_name()] = dict(result.result)
        if result.task.action not in SPEAKING:
            return
        if result.result.get("closing"):
            self._closings[str(result.result["closing"])] = None
        elif result.result.get("msg"):
            self._display.display(f"  {result.result['msg']}")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        answer = dict(result.result)
        if result.task.action not in SPEAKING or not answer.get("refused"):
            super().v2_runner_on_failed(result, ignore_errors)
        else:
            if self._last_task_banner != result.task._uuid:
                self._print_task_banner(result.task)
            self._display.display(f"failed: [{self.host_label(result)}], see the end", color=C.COLOR_ERROR)
        self._failures[result.host.get_name()] = answer
        if answer.get("closing") and result.task.action == "release_verdict":
            self._refusal = answer

    def v2_runner_on_unreachable(self, result: Any) -> None:
        super().v2_runner_on_unreachable(result)
        cause = " ".join(str(result.result.get("msg", "")).removeprefix("Task failed: ").split())
        name = result.host.get_name()
        self._failures[name] = {"msg": f"{name} could not be reached: {cause}"}
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
        bad = [h for h in stats.processed if stats.summarize(h)["failures"] or stats.summarize(h)["unreachable"]]
        if not bad and self._refusal is None:
            for closing in self._closings:
                self._display.display(f"{closing} ({time.monotonic() - self._started:.1f} s)", color=C.COLOR_OK)
            return
        # An audit closes host by host: what is well on the others is told as well.
        for closing in self._closings:
            self._display.display(closing, color=C.COLOR_OK)
        answers = [self._refusal] if self._refusal else [self._failures[h] for h in bad if h in self._failures]
        said: dict[str, list[str]] = {}
        for answer in answers:
            said.setdefault(" ".join(str(answer.get("msg", "A task failed, see above.")).split()), [
                str(line) for line in answer.get("journal") or []
            ])  # fmt: skip
        for sentence, journal in said.items():
            for line in journal[-20:]:
                self._display.display(f"  | {line}")
            self._display.display(sentence, color=C.COLOR_ERROR)
