"""The source that the variable ``secrets_source`` describes."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from plugins.secrets.aws import Aws
from plugins.secrets.given import Given
from plugins.secrets.sops import Sops
from plugins.secrets.source import Refused, Source
from plugins.secrets.vault import Passwords, Vault

# The keys of each kind, and whether one has to be there.
KINDS: dict[str, dict[str, bool]] = {
    "sops": {"file": True, "age_key_file": False},
    "vault": {"file": True, "password_file": False, "vault_id": False},
    "aws": {"secret_id": True, "region": False, "endpoint_url": False},
    "lookup": {"value": True, "place": False},
}
# A file there is read by every playbook of the environment, those too that need no secret.
LOADED = ("group_vars", "host_vars")


def source(
    given: Any,
    root: Path,
    *,
    value: Callable[[], Any] | None = None,
    passwords: Callable[[], Passwords] = tuple,
    environ: Mapping[str, str] = os.environ,
) -> Source:
    """Make it; nothing is read yet.

    Paths are as seen from ``root``, the repository. ``value`` works out the template of the kind ``lookup``;
    ``passwords`` are those of vaults that Ansible was given (--vault-id), for a source without a password file. Raises
    ``Refused``.
    """
    kind = checked_keys(given)
    if kind == "lookup":
        fixed = given["value"]
        return Given(value or (lambda: fixed), given.get("place", ""))
    if kind == "aws":
        return Aws(given["secret_id"], given.get("region", ""), given.get("endpoint_url", ""))
    file = root / Path(given["file"]).expanduser()
    shown = str(file.relative_to(root)) if file.is_relative_to(root) else str(file)
    if set(LOADED) & set(Path(shown).parts):
        raise Refused(
            f"{shown} (secrets_source.file) lies in {'/'.join(Path(shown).parts[:-1])}, which every playbook loads,"
            f" a deploy too: move it to secrets/{file.name}."
        )
    if kind == "sops":
        key = given.get("age_key_file")
        return Sops(file, shown, root / Path(key).expanduser() if key else None, environ)
    return _vault(given, root, file, shown, passwords)


def checked_keys(given: Any) -> str:
    """The kind, once every key is one that it has, and text."""
    if not isinstance(given, Mapping) or not given:
        raise Refused("secrets_source is to be a dictionary, {kind: sops, file: secrets/production.sops.yml}.")
    kind = given.get("kind", "")
    if kind not in KINDS:
        said = f"{kind} is no kind of secrets_source" if kind else "secrets_source has no kind"
        raise Refused(f"{said}: there are {', '.join(KINDS)} (docs/ops/secrets.md).")
    keys = KINDS[kind]
    for key in given:
        if key != "kind" and key not in keys:
            close = difflib.get_close_matches(str(key), list(keys), n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(keys)}."
            raise Refused(f"secrets_source of the kind {kind} has the key {key}, which there is not: {hint}")
    for key, needed in keys.items():
        if needed and not given.get(key):
            raise Refused(f"secrets_source of the kind {kind} needs {key} (docs/ops/secrets.md): set it beside kind.")
        if key != "value" and key in given and not isinstance(given[key], str):
            raise Refused(f"secrets_source.{key} is to be text: quote it.")
    return str(kind)


def _vault(given: Mapping[str, Any], root: Path, file: Path, shown: str, passwords: Callable[[], Passwords]) -> Source:
    wanted, name = given.get("vault_id", ""), given.get("password_file", "")
    if not name:

        def of_ansible() -> Passwords:
            return [one for one in passwords() if not wanted or one[0] == wanted]

        return Vault(file, of_ansible, shown)

    def of_file() -> Passwords:
        # Ansible's own way: a file that can be run is run, and its output is the password.
        from ansible.errors import AnsibleError
        from ansible.parsing.dataloader import DataLoader
        from ansible.parsing.vault import get_file_vault_secret

        path = root / Path(name).expanduser()
        if not path.is_file():
            raise Refused(
                f"{name} (secrets_source.password_file) is not there: put the vault's password into it, mode 0600."
            )
        try:
            secret = get_file_vault_secret(filename=str(path), vault_id=wanted or None, loader=DataLoader())
            secret.load()
        except AnsibleError:
            raise Refused(f"{name} (secrets_source.password_file) gives no password: look at it, or run it.") from None
        return [(wanted or "default", secret)]

    return Vault(file, of_file, shown, whence=name)
