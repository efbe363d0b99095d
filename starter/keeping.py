"""What is secret: passwords and keys are made here, and kept where git does not look, or in git vaulted one by one.

Names stay readable in vault.yml, values do not. So a change says which secret changed, and who only deploys (CI) reads
the variables without the vault's password. See docs/ops/decisions/0035.
"""

from __future__ import annotations

import os
import secrets
import string
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from lab import pki
from starter.answers import Wrong

# The certificate of the host's own database and Redis. Its authority's key is thrown away: nothing renews it.
DAYS = pki.AUTHORITY_DAYS


class _Loader(yaml.SafeLoader):
    """Reads which names are there; vaulted values stay as they are."""


_Loader.add_constructor("!vault", lambda _loader, node: _Vaulted(str(node.value)))


class _Vaulted(str):
    """A value that only the password opens."""


class Vault:
    """group_vars/<environment>/vault.yml, to which is only ever added, and its password's file."""

    def __init__(self, file: Path, password_file: Path, environment: str) -> None:
        self.file, self.password_file, self.environment = file, password_file, environment
        text = file.read_text() if file.is_file() else ""
        if text.startswith("$ANSIBLE_VAULT"):
            raise Wrong(
                f"{file} is encrypted as a whole: open it (ansible-vault decrypt), vault each value in it"
                " (ansible-vault encrypt_string), and start again"
            )
        self.text = text
        self.known: dict[str, Any] = yaml.load(text, Loader=_Loader) or {} if text else {}  # noqa: S506
        self.added: dict[str, tuple[str, bool]] = {}
        vaulted = [value for value in self.known.values() if isinstance(value, _Vaulted)]
        if vaulted and not password_file.is_file():
            raise Wrong(f"{file} is there, and its password is not: put it into {password_file}")
        self.new = not password_file.is_file()
        self.password = secrets.token_urlsafe(32) if self.new else password_file.read_text().strip()
        self.secret = VaultSecret(self.password.encode())
        self.lib = VaultLib([(environment, self.secret)])
        if vaulted:
            try:
                self.lib.decrypt(vaulted[0])
            except AnsibleError:
                raise Wrong(f"{password_file} does not open {file}: it is another vault's password") from None

    def add(self, name: str, value: str, secret: bool = True) -> bool:
        """Add a value unless its name is there already; say whether it was added."""
        if name in self.known or name in self.added:
            return False
        self.added[name] = (value, secret)
        return True

    def has(self, name: str) -> bool:
        return name in self.known

    def render(self) -> str:
        head = (
            "---\n# Each secret by itself: names are readable, values are not. To add one, or to replace one:\n"
            f"#   ansible-vault encrypt_string --encrypt-vault-id {self.environment} --stdin-name vault_…\n"
        )
        text = self.text or head
        for name, (value, secret) in self.added.items():
            body, tag = (value, "|")
            if secret:
                body, tag = self.lib.encrypt(value, self.secret, vault_id=self.environment).decode(), "!vault |"
            text += f"{name}: {tag}\n" + "".join(f"  {line}\n" for line in body.strip().splitlines())
        return text


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
