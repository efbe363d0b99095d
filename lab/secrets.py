"""The lab's secrets: made once, kept in a file of sops as a user's are, with a key of age that is the lab's own."""

from __future__ import annotations

import copy
import secrets
import string
from collections.abc import Callable
from typing import Any

import yaml

from lab.state import Lab, write
from plugins.secrets import age, sops

# Beside these: of each authority and each host, the certificate and its private key.
PASSWORDS = (
    "postgres_app_password",
    "redis_app_password",
    # Of an app that is not the bookshop: examples/foreign.
    "secret_key",
)
# What is delivered to the bookshop by itself, below `app`.
APP = ("DJANGO_SECRET_KEY",)


class Secrets:
    """What the file has. ``values`` is changed, and ``save`` writes what differs."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        if not lab.age_key.is_file():
            age.new_key(lab.age_key, f"The lab {lab.name}.")
        self.source = sops.Sops(lab.secrets, age_key_file=lab.age_key)
        self.values: dict[str, Any] = self.source.read() if lab.secrets.is_file() else {}
        self.saved = copy.deepcopy(self.values)

    def ensure_passwords(self) -> None:
        for name in PASSWORDS:
            _ensure(self.values, name, _password)
        for name in APP:
            _ensure(self.values.setdefault("app", {}), name, _password)

    def save(self) -> None:
        if not self.lab.secrets.is_file():
            (recipient,) = age.recipients(self.lab.age_key.read_text())
            text = yaml.safe_dump(self.values, sort_keys=True)
            write(self.lab.secrets, age.encrypted(sops.program(), text, [recipient], self.lab.secrets.name), 0o600)
        elif self.values != self.saved:
            self.source.set({name: value for name, value in self.values.items() if self.saved.get(name) != value})
        self.saved = copy.deepcopy(self.values)


def _ensure(values: dict[str, Any], name: str, make: Callable[[], str]) -> None:
    if name not in values:
        values[name] = make()


def _password() -> str:
    # Letters and digits only: it stands in URLs.
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(40))
