"""From the envdir to a process: a generation is pinned to the version of the settings that it started with."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from .config import Config
from .errors import Refusal
from .files import final_name, link_name, write_atomically, write_json
from .names import Generation

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


class Settings:
    """The versions under /etc/app (env -> env.<n>) and which generation uses which."""

    def __init__(self, env: Path, pins: Path, private_run: Path) -> None:
        self.env = env
        self.pins = pins
        self.runtime = private_run / "env"

    @classmethod
    def of(cls, config: Config) -> Settings:
        """Those of this host."""
        return cls(config.env, config.state / "generations", config.private_run)

    def current(self) -> str | None:
        """The version in force, for example ``env.4``; None when no settings were delivered yet."""
        return link_name(self.env)

    def pin(self, generation: Generation, version: str | None) -> str | None:
        """Bind a generation to ``version`` if that still exists, to the version in force otherwise."""
        if version is None or not (self.env.parent / version).is_dir():
            version = self.current()
        write_json(self.pins / str(generation), {"settings": version})
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
