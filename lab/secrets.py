"""The lab's secrets: made once, kept vaulted, handed to Ansible vaulted."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from typing import Any

import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

from lab.state import Lab, write

PASSWORDS = (
    "django_secret_key",
    "postgres_app_password",
    "redis_app_password",
)


class Secrets:
    """A dictionary of strings in a vaulted file."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        if not lab.vault_password.is_file():
            write(lab.vault_password, secrets.token_urlsafe(32) + "\n", 0o600)
        secret = VaultSecret(lab.vault_password.read_bytes().strip())
        self.vault = VaultLib([("default", secret)])
        self.secret = secret
        self.values: dict[str, str] = {}
        if lab.secrets.is_file():
            self.values = yaml.safe_load(self.vault.decrypt(lab.secrets.read_bytes()))

    def ensure(self, name: str, make: Callable[[], str]) -> str:
        if name not in self.values:
            self.values[name] = make()
        return self.values[name]

    def ensure_passwords(self) -> None:
        for name in PASSWORDS:
            self.ensure(name, _password)

    def save(self) -> None:
        text = yaml.safe_dump(self.values, sort_keys=True)
        if self.lab.secrets.is_file() and self.vault.decrypt(self.lab.secrets.read_bytes()).decode() == text:
            return
        write(self.lab.secrets, self.vault.encrypt(text, self.secret).decode(), 0o600)

    def vaulted(self, name: str) -> dict[str, Any]:
        """One value as an inventory script hands it over: Ansible opens it where it is used."""
        return {"__ansible_vault": self.vault.encrypt(self.values[name], self.secret).decode()}


def _password() -> str:
    # Letters and digits only: it stands in URLs.
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(40))
