"""Whatever Ansible looks up: a template that gives a dictionary. It is read here and changed where it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from plugins.secrets.source import Refused, Source, checked


class Given(Source):
    """``value`` works the template out; ``shown`` says for people where its values are."""

    kind = "lookup"
    writable = False

    def __init__(self, value: Callable[[], Any], shown: str = "") -> None:
        self.value, self.shown = value, shown

    @property
    def place(self) -> str:
        return self.shown or "secrets_source.value"

    def read(self) -> dict[str, Any]:
        return checked(self.value(), self.place)

    def set(self, values: Mapping[str, Any]) -> None:  # noqa: ARG002
        raise Refused(
            f"{self.place} can only be read from here: put the new value in where it is kept, and run this again."
        )

    def readers(self) -> list[str]:
        return [f"whoever {self.place} lets in"]

    def editing(self) -> str:
        return f"put a new value into {self.place}"

    def closing(self) -> str:
        return f"take their access to {self.place} away"
