"""Since when each secret of a source is what it is, and who could open it since: by what can be seen without a key."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from plugins.leaks.contents import Refused as NoGit
from plugins.leaks.contents import git, texts
from plugins.secrets.aws import Aws
from plugins.secrets.memory import Kept
from plugins.secrets.sops import SAYS, Sops
from plugins.secrets.source import Source
from plugins.secrets.vault import HEADER, Vault

UTC = datetime.UTC


@dataclass(frozen=True)
class Since:
    """``when`` a value was put there (UTC; None: unknown). Unless it is ``exact``, the value may be older."""

    when: datetime.datetime | None = None
    exact: bool = False
    whence: str = ""
    readers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dates:
    """By the names of a source with dots between (``app.TOKEN``); ``rest`` is what holds of names that are not seen."""

    names: Mapping[str, Since]
    rest: Since


@dataclass
class Version:
    """A file of secrets at one time: its values, encrypted; what opens it; what the data key is wrapped into."""

    when: datetime.datetime
    values: dict[str, str] = field(default_factory=dict)
    readers: list[str] = field(default_factory=list)
    wrapped: list[str] = field(default_factory=list)


def of(source: Source) -> Dates:
    """The dates of a source. Raises the source's ``Refused`` where it has to be asked and does not answer."""
    if isinstance(source, Kept):
        return of(source.source)
    if isinstance(source, (Sops, Vault)):
        readers = tuple(source.readers())  # refuses what is not encrypted
        return _of_file(source.file, isinstance(source, Sops), readers)
    if isinstance(source, Aws):
        return Dates({}, Since(source.changed(), False, "AWS", tuple(source.readers())))
    return Dates({}, Since(None, False, "not told by its place", tuple(source.readers())))


def _of_file(file: Path, is_sops: bool, readers: tuple[str, ...]) -> Dates:
    versions, whole = _versions(file)
    text = file.read_text()
    now = _read(datetime.datetime.now(UTC), text)
    if is_sops:
        now.when = _moment(yaml.safe_load(text)["sops"].get("lastmodified"), now.when)
    if text.startswith(HEADER):
        # Encrypted as a whole: each edit changes all of it.
        last = versions[-1].when if versions else None
        return Dates({}, Since(last, False, "git, of the whole file" if last else "the file is not in git", readers))
    if not versions:
        whence = "sops, of the whole file" if is_sops else "the file is not in git"
        rest = Since(now.when if is_sops else None, False, whence, readers)
        return Dates(dict.fromkeys(now.values, rest), rest)
    found: dict[str, Since] = {}
    before: Version | None = None
    for version in [*versions, now]:
        again = before is not None and _encrypted_again(before, version)
        for name, value in version.values.items():
            known = found.get(name)
            if before is None:
                found[name] = Since(version.when, whole, "git" if whole else "git, whose clone is shallow")
            elif known is None or (before.values.get(name) != value and not again):
                found[name] = Since(version.when, True, "git" if version is not now else "not committed")
            readers_since = dict.fromkeys([*found[name].readers, *(version.readers or readers)])
            found[name] = Since(found[name].when, found[name].exact, found[name].whence, tuple(readers_since))
        for gone in set(found) - set(version.values):
            del found[gone]
        before = version
    return Dates(found, Since(None, False, "not in the source", readers))


def _encrypted_again(before: Version, after: Version) -> bool:
    """Whether sops made a new data key (`sops rotate`): then every value looks new, and none has to be."""
    both = set(before.values) & set(after.values)
    return bool(
        both
        and after.wrapped
        and not set(before.wrapped) & set(after.wrapped)
        and all(before.values[name] != after.values[name] for name in both)
    )


def _versions(file: Path) -> tuple[list[Version], bool]:
    """What git has of a file, oldest first, over its renames; and whether that is all that there was."""
    try:
        root = Path(git(file.parent, "rev-parse", "--show-toplevel").decode().strip())
    except NoGit:
        return [], False
    # As the branch had it one after the other: what was done beside comes in with its merge.
    line = ("--first-parent", "--diff-merges=first-parent", "--follow", "--diff-filter=d")
    log = git(root, "log", *line, "--format=%x00%H %at", "--name-only", "--", str(file.resolve())).decode()
    named, moments = [], []
    for entry in log.split("\0")[1:]:
        head, *paths = [line for line in entry.splitlines() if line]
        commit, moment = head.split()
        if paths:
            named.append((f"{commit}:{paths[-1]}", paths[-1]))
            moments.append(datetime.datetime.fromtimestamp(int(moment), UTC))
    found = [_read(moment, text) for moment, (_, text) in zip(moments, texts(root, named), strict=True)]
    shallow = git(root, "rev-parse", "--is-shallow-repository").decode().strip() == "true"
    return found[::-1], not shallow


def _read(when: datetime.datetime, text: str) -> Version:
    version = Version(when)
    if text.startswith(HEADER):
        version.values[""] = text
        return version
    try:
        top = yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.YAMLError:
        return version
    for name, value in top.items() if isinstance(top, dict) else ():
        if name == "sops" and isinstance(value, dict):
            for group in [value, *(value.get("key_groups") or [])]:
                for kind, says in SAYS.items():
                    for key in group.get(kind) or []:
                        version.readers.append(str(key.get(says, kind)))
                        version.wrapped.append(str(key.get("enc", "")))
        else:
            version.values.update(_leaves(str(name), value))
    return version


def _leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _leaves(f"{name}.{key}", one)
    else:
        yield name, str(value)


def _moment(value: Any, otherwise: datetime.datetime) -> datetime.datetime:
    try:
        moment = datetime.datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        return otherwise
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class _Loader(yaml.SafeLoader):
    """Reads encrypted values as they stand."""


_Loader.add_multi_constructor("!", lambda _loader, _suffix, node: str(node.value))
