"""Secrets in a file of sops: what is put in comes out, and whoever cannot open it is told why, by sops itself."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from plugins.secrets import age, sops
from plugins.secrets.sops import Sops
from plugins.secrets.source import Refused

CANARY = "canary-5f0e"
TEXT = f"""\
# What the app signs with.
app:
  # made by hand
  SECRET_KEY: {CANARY}
  WORKERS: 4
redis_app_password: "0123"
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A home of one's own: nobody's keys are found."""
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")}


@pytest.fixture
def key(tmp_path: Path) -> str:
    return age.new_key(tmp_path / "key.txt", "mine")


@pytest.fixture
def make(tmp_path: Path, key: str, environ: dict[str, str]) -> Callable[..., Sops]:
    def made(*to: str, text: str = TEXT) -> Sops:
        file = tmp_path / "secrets/production.sops.yml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(age.encrypted(sops.program(), text, to or (key,), file.name))
        return Sops(file, "secrets/production.sops.yml", tmp_path / "key.txt", environ)

    return made


def clear(source: Sops) -> str:
    return subprocess.run(
        [sops.program(), "decrypt", source.file], capture_output=True, text=True, check=True,
        env={**source.environ, "SOPS_AGE_KEY_FILE": str(source.age_key_file)},
    ).stdout  # fmt: skip


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises(Refused) as caught:
        act()
    said = str(caught.value)
    assert CANARY not in said
    return said


def test_what_is_in_it_is_read(make: Callable[..., Sops]) -> None:
    source = make()
    assert CANARY not in source.file.read_text()
    assert source.read() == {"app": {"SECRET_KEY": CANARY, "WORKERS": 4}, "redis_app_password": "0123"}


@pytest.mark.parametrize(
    "value",
    [
        "two\nlines\n", "\n", " blanks around \t", "'\"\\'\"", "{{ not_a_template }}", "$HOME `id` %s",
        "straße 東京 🔑", "0123",
        "yes", "null", "", "# no comment", "- no: list", "ENC[not encrypted]", "x" * 65536, 17, True,
        "-----BEGIN X-----\nMIIB\n",
        {"ghcr.io": {"username": "bot", "password": "p"}},
    ],
    ids=repr,
)  # fmt: skip
def test_every_value_comes_back_as_it_was(make: Callable[..., Sops], value: Any) -> None:
    source = make()
    source.set({"app": {"NEW": value}, "other": value})
    assert source.read()["app"] == {"SECRET_KEY": CANARY, "WORKERS": 4, "NEW": value}
    assert source.read()["other"] == value


def test_setting_leaves_comments_others_mode_and_readers(make: Callable[..., Sops], tmp_path: Path, key: str) -> None:
    another = age.new_key(tmp_path / "another.txt", "another's")
    source = make(key, another)
    source.file.chmod(0o640)
    before = yaml.safe_load(source.file.read_text())
    source.set({"app": {"SECRET_KEY": "new"}})
    after = yaml.safe_load(source.file.read_text())
    assert "# What the app signs with." in clear(source)
    assert "# made by hand" in clear(source)
    assert after["redis_app_password"] == before["redis_app_password"]
    assert after["app"]["SECRET_KEY"] != before["app"]["SECRET_KEY"]
    assert source.readers() == [key, another]
    assert source.file.stat().st_mode & 0o777 == 0o640
    assert Sops(source.file, "", tmp_path / "another.txt", source.environ).read()["app"]["SECRET_KEY"] == "new"
    assert list(source.file.parent.iterdir()) == [source.file]


def test_nothing_is_set_when_one_of_several_cannot_be(make: Callable[..., Sops]) -> None:
    source = make()
    before = source.file.read_bytes()
    assert "redis_app_password in" in refused(lambda: source.set({"app": {"X": "1"}, "redis_app_password": {"a": "b"}}))
    assert "app in" in refused(lambda: source.set({"app": "no dictionary"}))
    assert "letters, digits" in refused(lambda: source.set({'a"] [0': "x"}))
    assert "to a list or to nothing" in refused(lambda: source.set({"app": {"X": ["a"]}}))
    assert source.file.read_bytes() == before


def test_what_an_editor_wrote_meanwhile_is_not_written_over(make: Callable[..., Sops], monkeypatch: Any) -> None:
    source = make()
    decrypted = source._decrypted

    def meanwhile(file: Path) -> dict[str, Any]:
        source.file.write_text(source.file.read_text() + "# by somebody\n")
        return decrypted(file)

    monkeypatch.setattr(source, "_decrypted", meanwhile)
    assert "somebody else" in refused(lambda: source.set({"x": "1"}))
    assert source.file.read_text().endswith("# by somebody\n")
    assert list(source.file.parent.iterdir()) == [source.file]


def test_no_value_is_on_a_command_line_or_in_a_file(make: Callable[..., Sops], monkeypatch: Any) -> None:
    source, seen = make(), []
    real = subprocess.run

    def run(words: list[str], **how: Any) -> Any:
        lying = [path.read_text() for path in source.file.parent.iterdir()]
        seen.append(json.dumps([words, how["env"], lying]))
        return real(words, **how)

    monkeypatch.setattr(sops.subprocess, "run", run)
    source.set({"app": {"SECRET_KEY": CANARY + "-new"}})
    assert len(seen) >= 3
    assert not [one for one in seen if CANARY in one]


def test_a_file_for_others_names_them_and_where_keys_were_looked_for(
    make: Callable[..., Sops], tmp_path: Path, key: str
) -> None:
    stranger = age.new_key(tmp_path / "stranger.txt", "a stranger's")
    source = make(stranger)
    said = refused(source.read)
    assert f"No key here opens secrets/production.sops.yml, which is for {stranger}." in said
    assert f"key.txt (the key of {key})" in said
    assert f"{source.environ['HOME']}/.config/sops/age/keys.txt (not there)" in said
    assert "SOPS_AGE_KEY_FILE (not set)" in said
    assert "docs/ops/secrets.md" in said


def test_keys_are_found_where_sops_looks(make: Callable[..., Sops], tmp_path: Path, environ: dict[str, str]) -> None:
    file = make().file
    text = (tmp_path / "key.txt").read_text()
    usual = Path(environ["HOME"]) / ".config/sops/age/keys.txt"
    usual.parent.mkdir(parents=True)
    usual.write_text(text)
    assert Sops(file, "", None, environ).read()
    usual.unlink()
    assert Sops(file, "", None, {**environ, "SOPS_AGE_KEY": text.splitlines()[-1]}).read()
    assert Sops(file, "", None, {**environ, "SOPS_AGE_KEY_FILE": str(tmp_path / "key.txt")}).read()
    assert Sops(file, "", tmp_path / "not-there", {**environ, "SOPS_AGE_KEY_FILE": str(tmp_path / "key.txt")}).read()
    assert "not-there (not there)" in refused(Sops(file, "", tmp_path / "not-there", environ).read)


def test_a_file_that_was_altered_past_sops_is_refused(make: Callable[..., Sops]) -> None:
    source = make()
    text = source.file.read_text()
    source.file.write_text(text.replace("    WORKERS", "    WORKER_COUNT"))
    assert "altered past sops" in refused(source.read)
    # A value of another entry of the same kind: only the message authentication code tells.
    source.file.write_text("\n".join(line for line in text.splitlines() if "redis_app_password" not in line))
    assert "altered past sops" in refused(source.read)


def test_what_is_no_file_of_sops_is_refused(make: Callable[..., Sops]) -> None:
    source = make()
    source.file.write_text(TEXT)
    assert "is not encrypted by sops: run `sops encrypt --in-place secrets/production.sops.yml`" in refused(source.read)
    assert "is not encrypted" in refused(lambda: source.set({"x": "1"}))
    source.file.write_text(f"<<<<<<< HEAD\na: {CANARY}\n=======\n")
    assert "conflict marks" in refused(source.read)
    source.file.unlink()
    assert "(secrets_source.file) is not there: make it by `sops edit" in refused(source.read)


def test_a_list_is_no_dictionary_of_secrets(make: Callable[..., Sops]) -> None:
    assert "A name in secrets/production.sops.yml" in refused(make(text="a b: 1\n").read)


def test_without_sops_it_says_what_brings_it(make: Callable[..., Sops], tmp_path: Path, monkeypatch: Any) -> None:
    source = make()
    monkeypatch.setattr(sops.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "run bin/setup" in refused(source.read)


def test_a_key_command_that_never_answers_is_given_up(make: Callable[..., Sops], monkeypatch: Any) -> None:
    source = make()
    source.age_key_file = None
    source.environ["SOPS_AGE_KEY_CMD"] = "sleep 30"
    monkeypatch.setattr(sops, "SECONDS", 1)
    assert "within 1 s" in refused(source.read)


def test_a_new_key_is_its_owners_alone_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "keys/age.txt"
    recipient = age.new_key(path, "production")
    assert path.stat().st_mode & 0o777 == 0o600
    assert age.recipients(path.read_text()) == (recipient,)
    with pytest.raises(FileExistsError):
        age.new_key(path, "again")
