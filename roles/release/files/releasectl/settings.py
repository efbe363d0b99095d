"""From the envdir to a process: a generation is pinned to the version of the settings that it started with.

A new version waits behind a link of its own until the live release serves with it (adopting.py): what starts meanwhile,
by a deploy or after a reboot, gets the one in force.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from .config import Config
from .errors import Refusal
from .files import final_name, link_atomically, link_name, sync_directory, write_atomically, write_json
from .names import Generation

# Beside the versions, root's alone: made, once, with the first of them, and the same on all hosts of the app.
KEY = "fingerprint.key"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ESCAPED = re.compile(r'(["\\$`])')


def read_envdir(directory: Path) -> dict[str, str]:
    """Read one version by the rules of daemontools' envdir: first line, no trailing blanks, NUL is a newline."""
    values: dict[str, str] = {}
    for path in sorted(directory.iterdir()):
        if not NAME.fullmatch(path.name):
            continue
        raw = path.read_bytes()
        if not raw:
            continue  # an empty file unsets the variable
        line = raw.split(b"\n", 1)[0].rstrip(b" \t").replace(b"\0", b"\n")
        try:
            values[path.name] = line.decode()
        except UnicodeDecodeError:
            raise Refusal(
                f"The setting {path.name} is not UTF-8: correct it in app_settings and run site.yml."
            ) from None
    return values


def environment_file(values: dict[str, str]) -> str:
    """The values in the syntax of EnvironmentFile= (systemd.exec(5)), quoted so that each arrives as it is."""
    lines = []
    for name, value in values.items():
        if any(ord(character) < 32 and character not in "\t\n" for character in value) or "\x7f" in value:
            raise Refusal(
                f"The setting {name} holds a control character that systemd does not hand over:"
                " encode it (for example as base64) in app_settings and run site.yml."
            )
        quoted = ESCAPED.sub(r"\\\1", value)
        lines.append(f'{name}="{quoted}"\n')
    return "".join(lines)


def fingerprint(key: str, values: Mapping[str, str]) -> str:
    """By which settings are told from others: keyed, so that nobody without the key can try values; before the dash the
    key's own name.
    """
    name = hashlib.sha256(b"name of " + key.encode()).hexdigest()[:4]
    told = json.dumps(values, sort_keys=True).encode()
    return f"{name}-{hmac.new(bytes.fromhex(key), told, hashlib.sha256).hexdigest()[:16]}"


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, list[str]]:
    """By name, never by value: what ``new`` has more, less and otherwise than ``old``."""
    return {
        "added": sorted(set(new) - set(old)),
        "removed": sorted(set(old) - set(new)),
        "changed": sorted(name for name in set(old) & set(new) if old[name] != new[name]),
    }


class Settings:
    """The versions under /etc/app (env -> env.<n>, env.next -> one that waits) and which generation uses which."""

    def __init__(self, env: Path, pins: Path, private_run: Path) -> None:
        self.env = env
        self.next = env.with_name(f"{env.name}.next")
        self.pins = pins
        self.runtime = private_run / "env"

    @classmethod
    def of(cls, config: Config) -> Settings:
        """Those of this host."""
        return cls(config.env, config.state / "generations", config.private_run)

    def current(self) -> str | None:
        """The version in force, for example ``env.4``; None when no settings were delivered yet."""
        return link_name(self.env)

    def there(self, version: str | None) -> bool:
        """Whether a version is still kept."""
        return version is not None and (self.env.parent / version).is_dir()

    def waiting(self) -> str | None:
        """The version that was delivered and has not been tried yet."""
        version = link_name(self.next)
        return version if self.there(version) and version != self.current() else None

    def put_in_force(self, version: str) -> None:
        """What starts from now on gets ``version``: one rename."""
        link_atomically(self.env, version)

    def drop_waiting(self, version: str | None) -> None:
        """``version`` waits no more; another that was delivered meanwhile does."""
        if version is not None and link_name(self.next) == version:
            self.next.unlink()
            sync_directory(self.next.parent)

    def values(self, version: str | None) -> dict[str, str]:
        """What a version has; nothing when it is not there."""
        return read_envdir(self.env.parent / version) if version is not None and self.there(version) else {}

    def names(self, version: str | None) -> list[str]:
        """What a version sets, whatever its values are."""
        if version is None or not self.there(version):
            return []
        with os.scandir(self.env.parent / version) as entries:
            return sorted(entry.name for entry in entries if NAME.fullmatch(entry.name) and entry.stat().st_size)

    def fingerprint(self, version: str | None) -> str | None:
        """Of a version's names and values; None without a key, or where that version is not there or not readable."""
        try:
            key = (self.env.parent / KEY).read_text().strip()
            return fingerprint(key, self.values(version)) if self.there(version) else None
        except (OSError, ValueError, Refusal):
            return None

    def pin(self, generation: Generation, version: str | None) -> str | None:
        """Bind a generation to ``version`` if that still exists, to the version in force otherwise."""
        if not self.there(version):
            version = self.current()
        write_json(self.pins / str(generation), {"settings": version, "fingerprint": self.fingerprint(version)})
        return version

    def pinned(self, generation: Generation) -> str | None:
        """The version that a generation is bound to."""
        try:
            version: str | None = json.loads((self.pins / str(generation)).read_text())["settings"]
        except (FileNotFoundError, ValueError, KeyError):
            return self.current()
        return version

    def write_environment(self, name: str, version: str | None, more: Mapping[str, str] | None = None) -> Path:
        """Write the root-only file that systemd hands to one process; on tmpfs, gone with the machine. What the app's
        settings have comes before ``more``.
        """
        values = {**(more or {}), **(read_envdir(self.env.parent / version) if version else {})}
        path = self.runtime / name
        write_atomically(path, environment_file(values).encode(), 0o600)
        return path

    def forget(self, generation: Generation) -> None:
        """Drop the pin and the file of a generation that is gone."""
        for path in (self.pins / str(generation), self.runtime / str(generation)):
            path.unlink(missing_ok=True)

    def forget_all_but(self, wanted: set[str]) -> None:
        """Drop what generations outside of ``wanted`` left behind, half-written files of theirs included."""
        for directory in (self.pins, self.runtime):
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(directory):
                    # One of a wanted generation may be in the making.
                    if final_name(name) not in wanted:
                        (directory / name).unlink(missing_ok=True)
