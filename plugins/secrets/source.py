"""What every source of secrets can do, and what all of them ask of what is in it."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

# Names stand in templates (secrets.NAME), in envdirs and in the path that sops is given.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@/-]{0,199}")
LEAVES = (str, int, float, bool, type(None))


class Refused(Exception):
    """One sentence: what is wrong with a source, where that is set, what to do. It never holds a value."""


class Source(ABC):
    """A dictionary of secrets that is kept somewhere.

    Its values are text, numbers, booleans, or dictionaries and lists of them. Every method raises ``Refused``.
    """

    kind: ClassVar[str]
    writable: ClassVar[bool] = True

    @property
    @abstractmethod
    def place(self) -> str:
        """Where it is, for people: a file as the repository has it, or the name at the service."""

    @abstractmethod
    def read(self) -> dict[str, Any]:
        """All secrets. Each call asks the source; ``memory.Kept`` asks once a run."""

    @abstractmethod
    def set(self, values: Mapping[str, Any]) -> None:
        """Put ``values`` in, all of them or none: ``{"app": {"TOKEN": "new"}, "redis_app_password": "new"}``.

        Dictionaries are merged, texts, numbers and booleans replaced; other entries, comments and who may read it stay.
        A value is never on a command line, nor in a file in the clear.
        """

    @abstractmethod
    def readers(self) -> list[str]:
        """Who can open it, as far as it can be known: recipients of age, or in words."""

    @abstractmethod
    def editing(self) -> str:
        """What a person does to change a secret: a command, or words."""

    @abstractmethod
    def closing(self) -> str:
        """What shuts somebody out who could open it. What they have read they have read."""

    def describe(self) -> dict[str, Any]:
        """For reports: ``kind``, ``place``, ``writable``, and ``readers`` (which may need the file or the service)."""
        return {"kind": self.kind, "place": self.place, "writable": self.writable, "readers": self.readers()}


def checked(values: Any, place: str) -> dict[str, Any]:
    """What was found in a source, once it is a dictionary of what a source may hold."""
    if not isinstance(values, Mapping):
        raise Refused(f"{place} is to be a dictionary of secrets, NAME: value, and is not.")
    return {name: _checked(value, name, place) for name, value in _named(values, place)}


def _named(values: Mapping[Any, Any], place: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        # The name itself is not said: where somebody put a value in its place, it is one.
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise Refused(
                f"A name in {place} is not made of letters, digits and _ . @ / - (200 at most): correct it there."
            )
        yield name, value


def _checked(value: Any, path: str, place: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _checked(one, f"{path}.{name}", place) for name, one in _named(value, place)}
    if isinstance(value, list):
        return [_checked(one, path, place) for one in value]
    if not isinstance(value, LEAVES):
        raise Refused(f"{path} in {place} is no text, number, true or false ({type(value).__name__}): quote it there.")
    return value


def settable(values: Any) -> None:
    """Refuse what ``Source.set`` does not take: sops cannot set a list, so none of them does."""
    for path, value in leaves(checked(values, "what is to be set")):
        if isinstance(value, list) or value is None:
            raise Refused(
                f"{'.'.join(path)} is to be set to a list or to nothing: a text, a number, true or false can be set."
            )


def merged(old: Mapping[str, Any], new: Mapping[str, Any], place: str, path: str = "") -> dict[str, Any]:
    """``old`` with ``new`` over it. A value in place of a dictionary, or the other way round, is refused."""
    result = dict(old)
    for name, value in new.items():
        where = f"{path}{name}"
        present = result.get(name)
        if isinstance(value, Mapping):
            if present is not None and not isinstance(present, Mapping):
                raise Refused(f"{where} in {place} is a value, and not a dictionary that could be added to.")
            result[name] = merged(present or {}, value, place, f"{where}.")
        elif isinstance(present, Mapping):
            raise Refused(f"{where} in {place} is a dictionary, and not a value that could be replaced.")
        else:
            result[name] = value
    return result


def leaves(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each value with the names that lead to it."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value
