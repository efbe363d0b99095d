"""Keys of age: made here, and looked for where sops looks for them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyrage

from plugins.secrets.replacing import written
from plugins.secrets.source import Refused

MARK = "AGE-SECRET-KEY-"


@dataclass(frozen=True)
class Place:
    """One of the places that sops looks in, what is there in words, and the public keys of what is there."""

    name: str
    found: str
    keys: tuple[str, ...] = ()


def made(comment: str) -> tuple[str, str]:
    """A new key: its recipient, and a file's text of the form that age-keygen writes."""
    identity = pyrage.x25519.Identity.generate()
    recipient = str(identity.to_public())
    return recipient, f"# {comment}\n# public key: {recipient}\n{identity}\n"


def new_key(path: Path, comment: str) -> str:
    """Make a key, in a new file (0600), and return its recipient."""
    recipient, text = made(comment)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    written(path, text.encode())
    return recipient


def recipients(text: str) -> tuple[str, ...]:
    """The public halves of the keys in a text; lines that are no X25519 key of age (a plugin's) say nothing."""
    found = []
    for line in text.splitlines():
        if line.strip().startswith(MARK):
            try:
                found.append(str(pyrage.x25519.Identity.from_str(line.strip()).to_public()))
            except pyrage.IdentityError:
                continue
    return tuple(found)


def key_file_of(environ: Mapping[str, str], key_file: Path | None = None) -> Path:
    """The file that sops reads keys from: the source's, where that is there; else the environment's, or the usual."""
    if key_file and key_file.is_file():
        return key_file
    if given := environ.get("SOPS_AGE_KEY_FILE"):
        return Path(given)
    return usual_key_file(environ)


def usual_key_file(environ: Mapping[str, str]) -> Path:
    home = Path(environ.get("HOME") or Path.home())
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "sops/age/keys.txt"


def places(environ: Mapping[str, str], key_file: Path | None = None) -> list[Place]:
    """All places of sops 3.11, with what is in each."""
    found = []
    if key_file:
        found.append(_file(f"secrets_source.age_key_file, {key_file}", key_file))
    text = environ.get("SOPS_AGE_KEY", "")
    found.append(Place("SOPS_AGE_KEY", _counted(recipients(text)) if text else "not set", recipients(text)))
    given = environ.get("SOPS_AGE_KEY_FILE", "")
    found.append(_file(f"SOPS_AGE_KEY_FILE, {given}", Path(given)) if given else Place("SOPS_AGE_KEY_FILE", "not set"))
    found.append(Place("SOPS_AGE_KEY_CMD", "set" if environ.get("SOPS_AGE_KEY_CMD") else "not set"))
    usual = usual_key_file(environ)
    found.append(_file(str(usual), usual))
    home = Path(environ.get("HOME") or Path.home())
    ssh = [Path(environ[name]) for name in ("SOPS_AGE_SSH_PRIVATE_KEY_FILE",) if environ.get(name)]
    for path in ssh or [home / ".ssh/id_ed25519", home / ".ssh/id_rsa"]:
        found.append(Place(str(path), "an ssh key" if path.is_file() else "not there"))
    return found


def _file(name: str, path: Path) -> Place:
    if not path.is_file():
        return Place(name, "not there")
    if not os.access(path, os.R_OK):
        return Place(name, "not readable")
    keys = recipients(path.read_text(errors="replace"))
    return Place(name, _counted(keys), keys)


def _counted(keys: Iterable[str]) -> str:
    listed = ", ".join(keys)
    return f"the key of {listed}" if listed else "no key of age in it"


def encrypted(sops: str, text: str, to: Iterable[str], name: str, root: Path | None = None) -> str:
    """A new sops file, as text: ``text`` (YAML with comments) for the recipients ``to``, or, where none are said, for
    those that ``.sops.yaml`` of ``root`` has for the file ``name``.
    """
    whom = ["--age", ",".join(to)] if to else []
    config = ["--config", str(root / ".sops.yaml") if root else os.devnull]
    done = subprocess.run(
        [sops, *config, "encrypt", *whom, "--input-type", "yaml", "--output-type", "yaml", "--filename-override", name,
         "/dev/stdin"],
        input=text, capture_output=True, text=True, timeout=60, check=False, cwd=root,
    )  # fmt: skip
    if done.returncode:
        whose = "each of them a key of age, age1…" if to else f"a rule for {name} in .sops.yaml, of recipients age1…"
        raise Refused(f"sops could not make {name} (exit code {done.returncode}): is there {whose}?")
    return done.stdout
