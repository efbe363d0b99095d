"""The schema of the app's settings (`app_settings_schema`): what each is, and what is wrong with those that are given.

No sentence that is made here holds a value.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from plugins.modules.envdir import Refused, encode

ENVIRONMENTS = ("production", "staging", "lab")
ROTATION = {"by", "how", "days"}
KEYS = {"description", "secret", "required", "pattern", "means", "default", "example", "rotation"}
WHERE = "in app_settings_schema"


@dataclass(frozen=True)
class Setting:
    """One entry. ``rotation`` says who makes a new value, how, and after how many days; it is for secrets."""

    name: str
    description: str
    secret: bool = False
    required: tuple[str, ...] = ENVIRONMENTS
    pattern: str = ""
    means: str = ""
    default: str | None = None
    example: str = ""
    rotation: Mapping[str, Any] = field(default_factory=dict)


class Misread(Exception):
    """The schema itself is wrong; each of ``problems`` is a sentence."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(" ".join(problems))
        self.problems = problems


def parse(given: Any) -> list[Setting]:
    """Read the variable, or tell all that is wrong with it."""
    if not isinstance(given, Mapping):
        raise Misread(["app_settings_schema is to be a dictionary, NAME: {description: …}."])
    settings, problems = [], []
    for name, entry in given.items():
        found = list(_entry_problems(str(name), entry))
        problems += found
        if not found:
            settings.append(_made(str(name), entry))
    if problems:
        raise Misread(problems)
    return settings


def _entry_problems(name: str, entry: Any) -> Iterable[str]:
    place = f"{name} {WHERE}"
    try:
        encode(name, "")
    except Refused as refused:
        yield f"{place}: {refused}"
        return
    if not isinstance(entry, Mapping) or not str(entry.get("description") or "").strip():
        yield f"{place} says nothing of what it is: give it a description."
        return
    for key in sorted(set(map(str, entry)) - KEYS):
        close = difflib.get_close_matches(key, sorted(KEYS), n=1)
        yield f"{place} has the key {key}, which there is not" + (f"; did you mean {close[0]}?" if close else ".")
    for key in ("description", "pattern", "means", "default", "example"):
        if key in entry and not isinstance(entry[key], str):
            yield f"{place}: {key} is to be text: quote it."
    if not isinstance(entry.get("secret", False), bool):
        yield f"{place}: secret is to be true or false."
    yield from _required_problems(place, entry.get("required", True))
    yield from _pattern_problems(place, entry)
    if entry.get("secret") and (entry.get("default") or entry.get("example")):
        yield f"{place} is secret, and its default or example would be read by everybody: take it out."
    yield from _rotation_problems(place, entry)


def _required_problems(place: str, required: Any) -> Iterable[str]:
    if isinstance(required, bool):
        return
    unknown = [one for one in required if one not in ENVIRONMENTS] if isinstance(required, list) else [required]
    if unknown:
        yield f"{place}: required is true, false, or a list of {', '.join(ENVIRONMENTS)}."


def _pattern_problems(place: str, entry: Mapping[str, Any]) -> Iterable[str]:
    pattern = entry.get("pattern", "")
    if not isinstance(pattern, str) or not pattern:
        return
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        yield f"{place}: its pattern is no regular expression of Python's ({error})."
        return
    if not entry.get("means"):
        yield f"{place} has a pattern and no means: say in words what it has to be, 'a URL of PostgreSQL'."
    for key in ("default", "example"):
        if isinstance(entry.get(key), str) and not compiled.fullmatch(entry[key]):
            yield f"{place}: its own {key} does not match its pattern."


def _rotation_problems(place: str, entry: Mapping[str, Any]) -> Iterable[str]:
    rotation = entry.get("rotation")
    if rotation is None:
        return
    days = rotation.get("days", 90) if isinstance(rotation, Mapping) else 0
    if (
        not isinstance(rotation, Mapping)
        or set(rotation) - ROTATION
        or not all(isinstance(rotation.get(key), str) and rotation[key] for key in ("by", "how"))
        or isinstance(days, bool)
        or not isinstance(days, int)
        or not 1 <= days <= 3650
    ):
        yield f"{place}: rotation is {{by: who, how: how, days: 1 to 3650 (90 when it is not said)}}."
    elif not entry.get("secret"):
        yield f"{place} has a rotation and is not secret: say secret: true, or take it out."


def _made(name: str, entry: Mapping[str, Any]) -> Setting:
    required = entry.get("required", True)
    if isinstance(required, bool):
        required = ENVIRONMENTS if required else ()
    return Setting(
        name,
        " ".join(entry["description"].split()),
        entry.get("secret", False),
        tuple(required),
        entry.get("pattern", ""),
        entry.get("means", ""),
        entry.get("default"),
        entry.get("example", ""),
        dict(entry.get("rotation") or {}),
    )


def findings(
    schema: Collection[Setting],
    values: Mapping[str, Any],
    environment: str,
    clear: Mapping[str, str],
    reserved: Iterable[str],
) -> list[str]:
    """All that is wrong with the ``values`` of an environment, a sentence each.

    ``clear`` has the place of each value that is written where everybody can read it; ``reserved`` are names that
    somebody else sets.
    """
    known, taken = {setting.name: setting for setting in schema}, set(reserved)
    found = []
    for name in sorted(map(str, values)):
        if name in taken:
            found.append(f"{name} is set by the release itself and cannot be a setting: take it out.")
            continue
        try:
            encode(name, values[name])
        except Refused as refused:
            found.append(str(refused))
            continue
        if known:
            found += _against(known, name, values[name], clear)
    for setting in known.values():
        if environment in setting.required and setting.default is None and str(values.get(setting.name, "")) == "":
            found.append(
                f"{setting.name} is not set, and {environment} needs it ({setting.description.rstrip('.')}): "
                + (
                    "put it below app where secrets_source says (docs/ops/secrets.md)."
                    if setting.secret
                    else f"set it in app_settings, group_vars/{environment}/."
                )
            )
    return found


def _against(known: Mapping[str, Setting], name: str, value: Any, clear: Mapping[str, str]) -> Iterable[str]:
    setting = known.get(name)
    if setting is None:
        close = difflib.get_close_matches(name, sorted(known), n=1)
        meant = f"did you mean {close[0]}?" if close else "describe it there, or take it out."
        yield f"{name} is in app_settings, or a secret of the app, and not {WHERE}: {meant}"
        return
    if setting.pattern and str(value) and not re.fullmatch(setting.pattern, str(value)):
        yield f"{name} is not {setting.means}, as app_settings_schema has it."
    if setting.secret and str(value) and name in clear:
        yield (
            f"{name} is secret, and {clear[name]} has it for everybody to read: keep it below app where secrets_source"
            " says (docs/ops/secrets.md), and make a new one, for git keeps what was in the clear."
        )


def in_both(settings: Iterable[str], secrets: Iterable[str]) -> list[str]:
    """A sentence for each name that is a setting and a secret: which of them was meant cannot be known."""
    return [
        f"{name} is in app_settings and in app_secrets: take it out of one of them."
        for name in sorted(set(settings) & set(secrets))
    ]


def defaults(schema: Iterable[Setting]) -> dict[str, str]:
    """What is delivered where an environment says nothing else."""
    return {setting.name: setting.default for setting in schema if setting.default is not None}
