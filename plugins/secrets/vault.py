"""A file of Ansible Vault: encrypted as a whole, or value by value (`!vault`)."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret
from ruamel.yaml import YAML
from ruamel.yaml.comments import TaggedScalar
from ruamel.yaml.error import YAMLError

from plugins.secrets.replacing import replacing
from plugins.secrets.source import Refused, Source, checked, leaves, merged, settable

HEADER, TAG = "$ANSIBLE_VAULT;", "!vault"
# The vault's passwords, as (vault id, password).
Passwords = Sequence[tuple[str, VaultSecret]]


class Vault(Source):
    """``file``; ``passwords`` finds the passwords once they are needed; ``shown`` is the file's name for people."""

    kind = "vault"

    def __init__(self, file: Path, passwords: Callable[[], Passwords], shown: str = "", whence: str = "") -> None:
        self.file, self.passwords, self.shown, self.whence = file, passwords, shown or str(file), whence

    @property
    def place(self) -> str:
        return self.shown

    def read(self) -> dict[str, Any]:
        return self._read(self.file)

    def set(self, values: Mapping[str, Any]) -> None:
        settable(values)
        with replacing(self.file, self.place) as copy:
            wanted = merged(self.read(), values, self.place)
            text = copy.read_text()
            copy.write_text(self._whole(text, values) if text.startswith(HEADER) else self._by_value(text, values))
            if self._read(copy) != wanted:
                raise Refused(
                    f"{self.place} would not have held what was to be set, and is as it was: set it by ansible-vault."
                )

    def readers(self) -> list[str]:
        text = self._text(self.file)
        ids = sorted(
            {line.strip().split(";")[3] for line in text.splitlines() if HEADER in line and line.count(";") == 3}
        )
        return [f"whoever has the vault's password ({', '.join(ids) or 'without a vault id'})"]

    def editing(self) -> str:
        return f"ansible-vault edit {self.place}"

    def closing(self) -> str:
        return f"ansible-vault rekey {self.place}"

    def _text(self, file: Path) -> str:
        if not file.is_file():
            raise Refused(
                f"{self.place} (secrets_source.file) is not there: make it by `ansible-vault create {self.place}`, see"
                " docs/ops/secrets.md."
            )
        text = file.read_text(errors="replace")
        if HEADER not in text:
            raise Refused(
                f"{self.place} is not encrypted: run `ansible-vault encrypt {self.place}`, and where it was committed"
                " make new secrets, for git keeps them."
            )
        return text

    def _read(self, file: Path) -> dict[str, Any]:
        text = self._text(file)
        if text.startswith(HEADER):
            text = self._opened(text)[0]
        source = self

        class Loader(yaml.SafeLoader):
            """Opens each value that is vaulted by itself."""

        Loader.add_constructor(TAG, lambda _loader, node: source._opened(str(node.value))[0])
        try:
            return checked(yaml.load(text, Loader=Loader), self.place)  # noqa: S506
        except yaml.YAMLError:
            # What it says would quote the line.
            raise Refused(f"{self.place} is no YAML: correct it by `ansible-vault edit {self.place}`.") from None

    def _opened(self, ciphertext: str) -> tuple[str, VaultSecret, str]:
        """The text, the password that opened it, and the vault id that is in its header."""
        found = list(self.passwords())
        if not found:
            raise Refused(
                f"No password of the vault is here for {self.place}: name its file as secrets_source.password_file, or"
                " pass --vault-id NAME@FILE (or NAME@prompt)."
            )
        head = ciphertext.strip().splitlines()[0].split(";")
        label = head[3] if len(head) == 4 else ""
        # As Ansible does it: the password of that id first, then the others.
        for _, secret in sorted(found, key=lambda one: one[0] != label):
            try:
                return VaultLib([(label or "default", secret)]).decrypt(ciphertext.strip()).decode(), secret, label
            except AnsibleError:
                continue
        tried = self.whence or ", ".join(sorted({name for name, _ in found}))
        raise Refused(
            f"The vault's password ({tried}) does not open {self.place}"
            + (f", which wants that of the vault id {label}" if label else "")
            + ": ask whoever has it, docs/ops/secrets.md."
        )

    def _whole(self, text: str, values: Mapping[str, Any]) -> str:
        clear, secret, label = self._opened(text)
        changed = self._changed(clear, values, lambda value, _old: value)
        return VaultLib().encrypt(changed, secret, vault_id=label or None).decode()

    def _by_value(self, text: str, values: Mapping[str, Any]) -> str:
        first = next(line for line in text.splitlines() if HEADER in line)
        _, secret, label = self._opened(self._first_value(text, first))

        def vaulted(value: Any, old: Any) -> Any:
            # What was in the clear (a certificate) stays so, and what is no text cannot be vaulted by itself.
            if (old is not None and not isinstance(old, TaggedScalar)) or not isinstance(value, str):
                return value
            return TaggedScalar(VaultLib().encrypt(value, secret, vault_id=label or None).decode(), style="|", tag=TAG)

        return self._changed(text, values, vaulted)

    def _first_value(self, text: str, header: str) -> str:
        found: list[str] = []

        class Loader(yaml.SafeLoader):
            """Collects what is vaulted."""

        Loader.add_constructor(TAG, lambda _loader, node: found.append(str(node.value)))
        yaml.load(text, Loader=Loader)  # noqa: S506
        if not found:
            raise Refused(
                f"{self.place} has {header.strip()[:14]} and no value with !vault before it: correct it there."
            )
        return found[0]

    def _changed(self, text: str, values: Mapping[str, Any], make: Callable[[Any, Any], Any]) -> str:
        """The text with new values in it; comments, order and quotes stay."""
        editor = YAML()
        editor.preserve_quotes, editor.width = True, 1 << 20
        editor.explicit_start = text.startswith("---")
        try:
            tree = editor.load(text)
        except YAMLError:
            raise Refused(f"{self.place} is no YAML: correct it by `ansible-vault edit {self.place}`.") from None
        for path, value in leaves(values):
            inner = tree
            for name in path[:-1]:
                if inner.get(name) is None:
                    inner[name] = {}
                inner = inner[name]
            inner[path[-1]] = make(value, inner.get(path[-1]))
        made = io.StringIO()
        editor.dump(tree, made)
        return made.getvalue()
