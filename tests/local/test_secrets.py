"""Secrets in whole plays: asked for once a run, by nobody who needs none, and shown nowhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from plugins.secrets import age, factory, sops
from plugins.secrets.source import Refused
from tests.local.controller import ROOT, Controller

CANARY = "canary-c0de"
SECRETS = {"app": {"TOKEN": CANARY}, "webhook": f"https://hooks.example.org/{CANARY}"}
THREE = "all: {hosts: {one: , two: , three: }, vars: {ansible_connection: local}}\n"
USES = f"""
- hosts: all
  gather_facts: false
  vars_files: [{ROOT}/group_vars/all/main.yml]
  tasks:
    - assert: {{that: "app_secrets.TOKEN | length == {len(CANARY)}"}}
      no_log: true
    - assert: {{that: secrets.app == app_secrets}}
      no_log: true
"""


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    """Nobody's home: the key is where the test says."""
    for name in ("SOPS_AGE_KEY", "SOPS_AGE_KEY_FILE", "SOPS_AGE_KEY_CMD", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Controller(tmp_path)


@pytest.fixture
def source(controller: Controller) -> dict[str, str]:
    """A file of sops whose key is given by a command, which notes that it was asked."""
    place = controller.place
    recipient = age.new_key(place / "key.txt", "the test's")
    file = place / "secrets.sops.yml"
    file.write_text(age.encrypted(sops.program(), yaml.safe_dump(SECRETS), [recipient], file.name))
    command = place / "give-key"
    command.write_text(f"#!/bin/sh\necho asked >>{place}/log\ngrep -v '^#' {place}/key.txt\n")
    command.chmod(0o755)
    os.environ["SOPS_AGE_KEY_CMD"] = str(command)
    return {"kind": "sops", "file": str(file)}


def asked(controller: Controller) -> int:
    log = controller.place / "log"
    return log.read_text().count("asked") if log.is_file() else 0


def play(controller: Controller, text: str, *words: str, **variables: object) -> tuple[int, str]:
    file = controller.place / "play.yml"
    file.write_text(text)
    run = controller.play_file(file, *words, **variables)
    return run.returncode, run.stdout + run.stderr


def test_all_hosts_and_tasks_of_a_run_ask_once(controller: Controller, source: dict[str, str]) -> None:
    (controller.place / "hosts.yml").write_text(THREE)
    code, said = play(controller, USES, "-vvv", secrets_source=source)
    assert code == 0, said
    assert asked(controller) == 1
    assert CANARY not in said
    # And so it was the memory that answered: without it each of them asks.
    os.environ["ANSIBLE_CALLBACKS_ENABLED"] = "kept_modules"
    code, said = play(controller, USES, secrets_source=source)
    assert code == 0, said
    assert asked(controller) > 6


def test_a_play_that_uses_no_secret_asks_for_none(controller: Controller, source: dict[str, str]) -> None:
    text = USES.split("  tasks:")[0] + "  tasks:\n    - debug: {msg: '{{ app_name }}'}\n"
    code, said = play(controller, text, secrets_source=source)
    assert code == 0, said
    assert asked(controller) == 0


def test_a_command_that_is_looked_up_is_run_once_for_each_host(controller: Controller) -> None:
    (controller.place / "hosts.yml").write_text(THREE)
    place = controller.place
    (place / "values").write_text(yaml.safe_dump(SECRETS))
    program = place / "safe"
    program.write_text(f"#!/bin/sh\necho asked >>{place}/log\ncat {place}/values\n")
    program.chmod(0o755)
    value = f"{{{{ lookup('ansible.builtin.pipe', '{program}') | from_yaml }}}}"
    code, said = play(controller, USES, "-vvv", secrets_source={"kind": "lookup", "value": value})
    assert code == 0, said
    assert asked(controller) == 3
    assert CANARY not in said


def check(controller: Controller, **variables: object) -> tuple[int, str]:
    text = USES.split("  tasks:")[0] + f"  tasks:\n    - check_secrets: {{playbook: {ROOT}/playbooks/site.yml}}\n"
    code, said = play(controller, text, **variables)
    return code, re.sub(r"\s+", " ", said)


def test_a_source_that_opens_is_named_with_its_kind(controller: Controller, source: dict[str, str]) -> None:
    wants = "{{ secrets.webhook }}"
    code, said = check(controller, secrets_source=source, alerts_webhook=wants, release_token="{{ secrets.app.TOKEN }}")
    assert code == 0, said
    assert CANARY not in said


def test_a_name_that_the_source_has_not_is_refused(controller: Controller, source: dict[str, str]) -> None:
    code, said = check(controller, secrets_source=source, app_banner="{{ secrets.webhok }}")
    assert code != 0
    assert "app_banner names secrets.webhok, which is not in" in said
    assert "Nothing was changed." in said
    code, said = check(controller, app_banner="{{ secrets.webhook }}")
    assert code != 0
    assert "secrets_source is not set" in said


def test_without_the_key_it_is_said_where_one_was_looked_for(controller: Controller, source: dict[str, str]) -> None:
    del os.environ["SOPS_AGE_KEY_CMD"]
    code, said = check(controller, secrets_source=source)
    assert code != 0
    assert "No key here opens" in said
    assert ".config/sops/age/keys.txt (not there)" in said
    assert "Nothing was changed." in said


def test_an_environment_that_says_nothing_of_secrets_is_left_alone(controller: Controller) -> None:
    code, said = check(controller)
    assert code == 0, said


def test_an_address_from_ones_own_environment_needs_no_key(controller: Controller, source: dict[str, str]) -> None:
    """As docs/ops/secrets.md has it for CI."""
    os.environ["SLACK_WEBHOOK"] = "https://hooks.example.org/ci"
    del os.environ["SOPS_AGE_KEY_CMD"]
    text = USES.split("  tasks:")[0] + (
        "  tasks:\n    - assert: {that: url == 'https://hooks.example.org/ci'}\n"
        "      vars: {url: \"{{ lookup('ansible.builtin.env', 'SLACK_WEBHOOK') or secrets.slack_webhook }}\"}\n"
    )
    code, said = play(controller, text, secrets_source=source)
    assert code == 0, said
    del os.environ["SLACK_WEBHOOK"]
    code, said = play(controller, text, secrets_source=source)
    assert code != 0
    assert "No key here opens" in said


def test_a_name_that_is_a_setting_and_a_secret_is_refused(controller: Controller, source: dict[str, str]) -> None:
    role = f"{{name: {ROOT}/roles/envdir, tasks_from: check}}"
    text = USES.split("  tasks:")[0].replace("all\n", "app1\n", 1) + f"  tasks:\n    - import_role: {role}\n"
    code, said = play(controller, text, "-vvv", secrets_source=source, app_settings={"TOKEN": "x"})
    assert code != 0
    assert "TOKEN is in app_settings and in app_secrets: take it out of one of them." in said
    assert CANARY not in said


def test_the_program_that_is_used_is_the_pinned_one() -> None:
    assert sops.program() == str(Path(sys.executable).with_name("sops"))


def sh(place: Path, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", line], cwd=place, capture_output=True, text=True, check=False,
        timeout=60, env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **environment},
    )  # fmt: skip


def test_a_person_is_let_in_and_shut_out_as_the_page_says(controller: Controller) -> None:
    place, file = controller.place, "secrets/production.sops.yml"
    mine, theirs = age.new_key(place / "mine.txt", "mine"), age.new_key(place / "theirs.txt", "theirs")
    rules = "creation_rules:\n  - path_regex: secrets/[^/]+\\.sops\\.ya?ml$\n    age: {}\n"
    (place / "secrets").mkdir()
    key = {"SOPS_AGE_KEY_FILE": str(place / "mine.txt")}
    (place / ".sops.yaml").write_text(rules.format(mine))
    editor = f"cp {place}/new"
    (place / "new").write_text(yaml.safe_dump(SECRETS))
    done = sh(place, f"sops edit {file}", EDITOR=editor, **key)
    assert done.returncode == 0, done.stderr
    source = sops.Sops(
        place / file, file, place / "theirs.txt", {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
    )
    with pytest.raises(Refused, match="No key here opens"):
        source.read()

    (place / ".sops.yaml").write_text(rules.format(f"{mine},{theirs}"))
    assert sh(place, f"sops updatekeys --yes {file}", **key).returncode == 0
    assert source.read() == SECRETS
    assert source.readers() == [mine, theirs]

    (place / ".sops.yaml").write_text(rules.format(mine))
    before = (place / file).read_text()
    assert "sops updatekeys --yes" in source.closing()
    done = sh(place, source.closing().partition("then: ")[2], **key)
    assert done.returncode == 0, done.stderr
    assert source.readers() == [mine]
    with pytest.raises(Refused, match="No key here opens"):
        source.read()
    # Another data key: not a value that the leaver's copy of the old one would open.
    values = re.compile(r"ENC\[[^]]+\]")
    assert not set(values.findall(before)) & set(values.findall((place / file).read_text()))


def test_moving_to_another_source_leaves_no_file_in_the_clear(controller: Controller, source: dict[str, str]) -> None:
    place = controller.place
    (place / "password").write_text("the vault's\n")
    (place / ".sops.yaml").write_text(
        f"creation_rules: [{{age: {age.recipients((place / 'key.txt').read_text())[0]}}}]\n"
    )
    (place / "secrets").mkdir()
    there = "ansible-vault encrypt --vault-password-file password --output secrets/production.vault.yml"
    back = (
        "sops encrypt --filename-override secrets/production.sops.yml --output secrets/production.sops.yml /dev/stdin"
    )
    for line in (
        f"sops decrypt {source['file']} | {there}",
        f"ansible-vault view --vault-password-file password secrets/production.vault.yml | {back}",
    ):
        done = sh(place, line)
        assert done.returncode == 0, done.stderr
    given = {"kind": "vault", "file": "secrets/production.vault.yml", "password_file": "password"}
    assert factory.source(given, place).read() == SECRETS
    assert factory.source({"kind": "sops", "file": "secrets/production.sops.yml"}, place).read() == SECRETS
    assert not [path for path in place.rglob("*") if path.is_file() and CANARY in path.read_text(errors="replace")]
