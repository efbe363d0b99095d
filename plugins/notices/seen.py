"""What the results of a run say of the release, as they go by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plugins.notices.content import Story

EVENTS = ("deploy", "rollback", "settings")


class Seen:
    """Fills a story from results. ``asked``: a host was asked, so there is something to tell. ``changed``: settings are
    others than before; a run that found them in force has no news.
    """

    def __init__(self, event: str) -> None:
        self.story = Story(event)
        self.asked = False
        self.changed = event != "settings"

    def result(self, host: str, action: str, verb: str | None, answer: Mapping[str, Any]) -> None:
        """Note what a task returned, well or badly."""
        if answer.get("skipped"):
            return
        if action == "release_check":
            self._take(answer, release="release", new="revision")
        elif action == "releasectl":
            self.asked = True
            if host not in self.story.hosts:
                self.story.hosts.append(host)
            self._of_host(str(verb), answer)

    def lost(self, host: str, action: str) -> None:
        """Note a host that could not be reached."""
        self.result(host, action, None, {})

    def _of_host(self, verb: str, answer: Mapping[str, Any]) -> None:
        if verb == "status":
            live = (answer.get("live") or {}).get("release")
            found = {one.get("id"): one.get("revision") for one in answer.get("releases") or []}
            self._keep(previous=live, old=found.get(live))
        elif verb == "settings":
            self.changed = self.changed or bool(answer.get("changed"))
        elif verb == "prepare":
            self._take(answer, new="revision")
        elif verb == self._switch():
            self._take(answer, release="release", new="revision")
            self._keep(previous=answer.get("previous"), old=answer.get("previous_revision"))

    def _switch(self) -> str:
        """The verb that makes this run's release live; a deploy's rollback takes it back, which is another story."""
        return "activate" if self.story.event == "deploy" else "rollback"

    def _take(self, answer: Mapping[str, Any], **names: str) -> None:
        """What is told later is known better: the host reads the artifact itself."""
        for name, key in names.items():
            if answer.get(key):
                setattr(self.story, name, str(answer[key]))

    def _keep(self, **values: Any) -> None:
        """Of several hosts the first that said so."""
        for name, value in values.items():
            if value and not getattr(self.story, name):
                setattr(self.story, name, str(value))
