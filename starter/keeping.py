"""What is secret: passwords and keys are made here, and kept where git does not look, or in git encrypted by sops.

Names stay readable in the file, values do not. So a change says which secret changed. Nothing is read from it before it
is used, so who only deploys (CI) needs no key. See docs/ops/decisions/0055.
"""

from __future__ import annotations

import os
import secrets
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from lab import pki
from plugins.secrets import age, sops
from plugins.secrets.source import Refused
from starter.answers import Wrong

# The certificate of the host's own database and Redis. Its authority's key is thrown away: nothing renews it.
DAYS = pki.AUTHORITY_DAYS
RULES = """\
---
# Who opens secrets: recipients of age, with commas between. After a change here, for each file that is there:
#   sops updatekeys secrets/production.sops.yml     (docs/ops/secrets.md)
creation_rules:
  - path_regex: secrets/[^/]+\\.sops\\.ya?ml$
    age: {}
"""
HEAD = """\
# To read and to change it: sops edit {}
# What is below app is handed to the app by these names; the rest is what variables name, as secrets.NAME.
"""


class Secrets:
    """secrets/<environment>.sops.yml, to which is only ever added, and the key of age that opens it."""

    def __init__(self, root: Path, environment: str, environ: Mapping[str, str] = os.environ) -> None:
        self.root, self.environment = root, environment
        self.name = f"secrets/{environment}.sops.yml"
        self.file, self.rules = root / self.name, root / ".sops.yaml"
        self.source = sops.Sops(self.file, self.name, environ=environ)
        self.recipient, self.key_text = "", ""
        self.key_file = age.key_file_of(environ)
        there = [key for place in age.places(environ) for key in place.keys]
        if there:
            self.recipient = there[0]
        elif self.key_file.exists():
            raise Wrong(
                f"{self.key_file} has no key of age (AGE-SECRET-KEY-…) in it: point SOPS_AGE_KEY_FILE at a file that"
                " has one, or at one that is not there yet, and start again"
            )
        else:
            self.recipient, self.key_text = age.made("Opens secrets by sops. Made by `make init`.")
        try:
            self.known: dict[str, Any] = self.source.read() if self.file.is_file() else {}
        except Refused as refused:
            raise Wrong(str(refused).rstrip(".")) from None
        self.added: dict[str, Any] = {}
        self.content = ""

    def add(self, name: str, value: str) -> bool:
        """Add a secret unless its name is there already; say whether it was added."""
        return self._add(self.known, self.added, name, value)

    def add_of_app(self, name: str, value: str) -> bool:
        """As ``add``, below ``app``: what the app is handed by this name."""
        return self._add(self.known.get("app", {}), self.added.setdefault("app", {}), name, value)

    def has(self, name: str) -> bool:
        return name in self.known

    def prepare(self) -> None:
        """Encrypt what is new, in memory: where that cannot be, nothing was written yet."""
        self.added = {name: value for name, value in self.added.items() if value}
        if self.file.is_file():
            return
        body = yaml.safe_dump(self.added, sort_keys=False, allow_unicode=True)
        whom, root = ([], self.root) if self.rules.exists() else ([self.recipient], None)
        try:
            self.content = age.encrypted(sops.program(), HEAD.format(self.name) + body, whom, self.name, root)
        except Refused as refused:
            raise Wrong(str(refused).rstrip(".")) from None
        if self.recipient not in self.content:
            raise Wrong(f".sops.yaml does not let you open {self.name}: add your recipient there, {self.recipient}")

    def write(self) -> Iterator[tuple[str, Path, str]]:
        """Write what was prepared, and say what was written: the key, who may open the secrets, the secrets."""
        if self.key_text:
            write_private(self.key_file, self.key_text)
            yield "written", self.key_file, "your key of age, which opens the secrets: keep a copy"
        if not self.rules.exists():
            self.rules.write_text(RULES.format(self.recipient))
            yield "written", self.rules, "who may open the secrets"
        if self.content:
            self.file.parent.mkdir(exist_ok=True)
            self.file.write_text(self.content)
            yield "written", self.file, "secrets, encrypted by sops value by value"
        elif self.added:
            self.source.set(self.added)
            yield "written", self.file, "secrets that were added"

    @staticmethod
    def _add(known: Mapping[str, Any], added: dict[str, Any], name: str, value: str) -> bool:
        if name in known or name in added:
            return False
        added[name] = value
        return True


def password() -> str:
    # Letters and digits only: it stands in URLs.
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(40))


def write_private(path: Path, text: str) -> None:
    """A file that only its owner reads, from its first moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def new_key(comment: str) -> tuple[str, str]:
    """An ssh key for the machine that deploys: private and public half."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), f"{public.decode()} {comment}"


def new_certificate(name: str) -> tuple[str, str, str]:
    """A certificate, and an authority that signs no other: authority, certificate and private key, as PEM."""
    authority = pki.new_authority("Slipway: the host's own database and Redis")
    return authority[0], *pki.new_server(authority, [name], [], DAYS)
