"""Tells people of a deploy, a rollback or new settings, once it is over and its closing sentence is printed."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible import context
from ansible.plugins.callback import CallbackBase
from ansible.template import Templar

# This repository's own parts, whatever directory the playbook was called from.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from plugins.notices.ending import Ending, troubled
from plugins.notices.seen import EVENTS, Seen

DOCUMENTATION = """
name: release_notices
type: notification
short_description: tell people of a deploy, a rollback or new settings
description:
  - Sends what C(release_notices) lists, one notice a run, at the end of the playbooks C(deploy), C(rollback) and
    C(settings), also when it went badly. A run that was refused before it asked a host, one in check mode, and one that
    found the settings in force already, tell nobody.
  - A notice that cannot be sent is one line of warning. It neither fails the run nor holds it up for longer than
    C(release_notices_timeout).
requirements:
  - enabled in configuration, as C(callbacks_enabled = release_notices)
"""

ENVIRONMENTS = ("production", "staging", "lab")
PATIENCE = 5.0  # seconds, where the role's default is not at hand


class CallbackModule(CallbackBase):
    """See DOCUMENTATION."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "release_notices"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._began, self._started = time.time(), time.monotonic()
        self._seen: Seen | None = None
        self._ending = Ending()
        self._play: Any = None
        self._host: Any = None

    def v2_playbook_on_start(self, playbook: Any) -> None:
        name = Path(playbook._file_name).stem
        if name in EVENTS and not context.CLIARGS.get("check"):
            self._seen = Seen(name)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._play = play

    def v2_runner_on_ok(self, result: Any) -> None:
        self._note(result)
        self._ending.ok(result.result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ARG002
        self._note(result)
        self._ending.failed(result.host.get_name(), result.task.action, result.result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._host = result.host
        self._ending.unreachable(result.host.get_name(), result.result)
        if self._seen:
            self._seen.lost(result.host.get_name(), result.task.action)

    def _note(self, result: Any) -> None:
        self._host = result.host
        if self._seen:
            verb = (result.task.args or {}).get("verb")
            self._seen.result(result.host.get_name(), result.task.action, verb, result.result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if not self._seen or not self._seen.asked or not (self._seen.changed or troubled(stats)):
            return
        try:
            for sentence in self._tell(stats):
                self._display.display(sentence, color=C.COLOR_WARN)
        except KeyboardInterrupt:
            self._display.display("Who was to be told may not have been: that was cut short.", color=C.COLOR_WARN)
        except Exception as error:
            # Neither its text, which may hold a secret, nor the error itself: the run has ended, and well or not.
            self._display.display(f"No notice was sent: {type(error).__name__}.", color=C.COLOR_WARN)

    def _tell(self, stats: Any) -> list[str]:
        variables = self._play.get_variable_manager().get_vars(play=self._play, host=self._host)
        templar = Templar(loader=self._play.get_loader(), variables=variables)

        def value(name: str, default: Any) -> Any:
            return templar.template(variables[name]) if name in variables else default

        given = value("release_notices", [])
        if not given:
            return []
        # Only who is to be told needs what is loaded here.
        from plugins.action.releasectl import actor
        from plugins.notices import channels, content, send

        places, problems = channels.parse(given)
        assert self._seen
        story = self._seen.story
        bad = troubled(stats)
        story.good = not bad
        story.message = " ".join(one.text for one in self._ending.sentences(bad))
        story.app, story.actor = str(value("app_name", "app")), actor()
        groups = [str(group) for group in variables.get("group_names") or []]
        story.environment = next((name for name in ENVIRONMENTS if name in groups), "other")
        story.started, story.seconds = self._began, time.monotonic() - self._started
        changes = content.compare_link(str(value("release_repository_url", "") or ""), story)
        run = content.run_link(os.environ)
        story.links = [(title, url) for title, url in (("changes", changes), ("run", run)) if url]
        return problems + send.tell(places, story, float(value("release_notices_timeout", PATIENCE)))
