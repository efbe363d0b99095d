"""Secrets in a file of Ansible Vault, whole or value by value, opened and changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.vault import VaultLib, VaultSecret

from plugins.secrets import factory
from plugins.secrets.source import Refused
from plugins.secrets.vault import Vault

CANARY = "canary-77ab"
PASSWORD = VaultSecret(b"the-password")
VALUES = {"app": {"SECRET_KEY": CANARY}, "certificate": "public", "count": 3}


def encrypted(text: str, label: str | None = "production") -> str:
    return VaultLib().encrypt(text, PASSWORD, vault_id=label).decode()


def whole(label: str | None = "production") -> str:
    return encrypted(f"# why\napp:\n  SECRET_KEY: {CANARY}  # mine\ncertificate: public\ncount: 3\n", label)


def by_value() -> str:
    body = "".join(f"    {line}\n" for line in encrypted(CANARY).splitlines())
    return f"---\n# why\napp:\n  SECRET_KEY: !vault |\n{body}# below\ncertificate: public\ncount: 3\n"


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Vault]:
    def made(text: str, *passwords: tuple[str, VaultSecret]) -> Vault:
        file = tmp_path / "secrets/production.vault.yml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return Vault(file, lambda: passwords or [("production", PASSWORD)], "secrets/production.vault.yml")

    return made


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises(Refused) as caught:
        act()
    assert CANARY not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("text", [whole(), whole(None), by_value()], ids=["whole", "whole, no id", "by value"])
def test_what_is_in_it_is_read_and_set(make: Callable[..., Vault], text: str) -> None:
    source = make(text)
    assert source.read() == VALUES
    wanted = [
        "two\nlines\n",
        "\n",
        " blanks \t",
        "'\"\\",
        "{{ x }}",
        "straße 東京 🔑",
        "0123",
        "",
        "x" * 65536,
        17,
        True,
    ]
    source.set({"app": {f"N{number}": value for number, value in enumerate(wanted)}, "new": {"deep": "x"}})
    found = source.read()
    assert [found["app"][f"N{number}"] for number in range(len(wanted))] == wanted
    assert found["app"]["SECRET_KEY"] == CANARY
    assert found["new"] == {"deep": "x"}
    assert source.file.read_text().count("x" * 100) == 0
    assert list(source.file.parent.iterdir()) == [source.file]


@pytest.mark.parametrize("text", [whole(), by_value()], ids=["whole", "by value"])
def test_setting_keeps_comments_mode_and_vault_id(make: Callable[..., Vault], text: str) -> None:
    source = make(text)
    source.file.chmod(0o640)
    source.set({"app": {"SECRET_KEY": "new"}})
    after = source.file.read_text()
    clear = source._opened(after)[0] if after.startswith("$ANSIBLE_VAULT") else after
    assert "# why" in clear
    assert clear.index("SECRET_KEY") < clear.index("certificate: public")
    assert after.count("$ANSIBLE_VAULT;1.2;AES256;production") == 1
    assert source.readers() == ["whoever has the vault's password (production)"]
    assert source.file.stat().st_mode & 0o777 == 0o640
    assert source.read()["app"]["SECRET_KEY"] == "new"


def test_by_value_only_the_changed_lines_change(make: Callable[..., Vault]) -> None:
    source = make(by_value())
    source.set({"app": {"NEW": "x"}, "certificate": "another"})
    before, after = by_value().splitlines(), source.file.read_text().splitlines()
    assert [line for line in before if line.startswith("#")] == [line for line in after if line.startswith("#")]
    assert "certificate: another" in after
    assert any("NEW: !vault |" in line for line in after)


def test_a_wrong_password_names_the_id_that_is_wanted(make: Callable[..., Vault]) -> None:
    source = make(whole(), ("staging", VaultSecret(b"another")))
    said = refused(source.read)
    assert "The vault's password (staging) does not open secrets/production.vault.yml" in said
    assert "wants that of the vault id production" in said


def test_the_right_one_of_several_passwords_is_used(make: Callable[..., Vault]) -> None:
    source = make(whole(), ("staging", VaultSecret(b"another")), ("mine", PASSWORD))
    source.set({"x": "1"})
    assert source.read()["x"] == "1"
    assert source.file.read_text().startswith("$ANSIBLE_VAULT;1.2;AES256;production")


def test_what_cannot_be_read_is_refused(make: Callable[..., Vault]) -> None:
    assert "is not encrypted: run `ansible-vault encrypt" in refused(make(f"a: {CANARY}\n").read)
    assert "is no YAML" in refused(make(encrypted(f"a: [{CANARY}")).read)
    assert "is to be a dictionary" in refused(make(encrypted(CANARY)).read)
    assert "quote it there" in refused(make(encrypted("day: 2026-01-01")).read)
    source = make(whole())
    source.passwords = list
    assert "No password of the vault is here" in refused(source.read)
    source.file.unlink()
    assert "make it by `ansible-vault create" in refused(source.read)


def test_a_password_comes_from_a_file_or_a_program(make: Callable[..., Vault], tmp_path: Path) -> None:
    make(whole())
    given = {"kind": "vault", "file": "secrets/production.vault.yml", "password_file": "password"}
    password = tmp_path / "password"
    password.write_text("the-password\n")
    assert factory.source(given, tmp_path).read() == VALUES
    password.write_text("#!/bin/sh\necho the-password\n")
    password.chmod(0o700)
    assert factory.source(given, tmp_path).read() == VALUES
    password.write_text("#!/bin/sh\nexit 3\n")
    assert "gives no password" in refused(factory.source(given, tmp_path).read)
    password.unlink()
    assert "password (secrets_source.password_file) is not there" in refused(factory.source(given, tmp_path).read)
