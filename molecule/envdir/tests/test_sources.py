"""Each source of secrets delivers the lab's settings, and a host does not notice which one it is."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from ansible.parsing.vault import VaultLib, VaultSecret
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from tests.outside import secrets

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}
REGION = "eu-central-1"


@pytest.fixture(scope="module")
def manager() -> Iterator[str]:
    """The address of a secrets manager on the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("moto_server")
    with subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL) as server:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def given_to(manager: str, name: str, values: dict[str, Any]) -> None:
    client = boto3.client("secretsmanager", region_name=REGION, endpoint_url=manager, config=Config(connect_timeout=1))
    for _ in range(100):
        try:
            client.create_secret(Name=name, SecretString=json.dumps(values))
            return
        except BotoCoreError:
            time.sleep(0.2)
    pytest.fail("the secrets manager did not come up")


@pytest.fixture
def sources(lab, manager, tmp_path, monkeypatch) -> dict[str, dict[str, Any]]:
    """What secrets_source is for each of them; all of them have the same."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    values = secrets(lab)
    given_to(manager, tmp_path.name, values)
    password = tmp_path / "password"
    password.write_text("of the test\n")
    vault = tmp_path / "secrets.vault.yml"
    vault.write_bytes(VaultLib().encrypt(json.dumps(values), VaultSecret(b"of the test")))
    monkeypatch.setenv("SECRETS_OF_THE_TEST", json.dumps(values))
    looked_up = "{{ lookup('ansible.builtin.env', 'SECRETS_OF_THE_TEST') | from_json }}"
    return {
        "vault": {"kind": "vault", "file": str(vault), "password_file": str(password)},
        "aws": {"kind": "aws", "secret_id": tmp_path.name, "region": REGION, "endpoint_url": manager},
        "lookup": {"kind": "lookup", "value": looked_up},
    }


@pytest.fixture
def site(ops) -> Callable[..., str]:
    """Run what delivers secrets: to the app, to Redis, and the edge's key."""

    def run(source: dict[str, Any] | None = None, *more: str, code: int = 0) -> str:
        given = ["-e", json.dumps({"secrets_source": source})] if source else []
        done = ops.playbook("playbooks/site.yml", "--tags", "envdir,redis,tls", "-v", *given, *more)
        assert done.code == code, done.output
        return done.output

    return run


def test_switching_the_source_changes_nothing_on_a_host(lab, app1, data1, site, sources):
    site()
    version = app1.check_output("readlink -f /etc/app/env")
    generation = app1.check_output("readlink /run/app/current.sock || echo none")
    for kind, source in sources.items():
        output = site(source)
        recap = dict(re.findall(r"^(app1|data1) .*?changed=(\d+)", output, re.MULTILINE))
        assert recap == {"app1": "0", "data1": "0"}, f"{kind}: {output}"
        assert f"({kind}) opens" in " ".join(output.split())
        assert app1.check_output("readlink -f /etc/app/env") == version, kind
        assert app1.check_output("readlink /run/app/current.sock || echo none") == generation, kind
        for secret in (secrets(lab)["app"]["DJANGO_SECRET_KEY"], secrets(lab)["redis_app_password"]):
            assert secret not in output, kind
    assert app1.file("/etc/app/env/DJANGO_SECRET_KEY").content_string == secrets(lab)["app"]["DJANGO_SECRET_KEY"] + "\n"


def test_a_secret_that_is_another_one_in_the_source_is_delivered(lab, app1, site, monkeypatch):
    """So that the test before can fail: what is delivered is what the source has."""
    values = secrets(lab)
    held = app1.check_output("readlink -f /etc/app/env")
    changed = {**values, "app": {**values["app"], "DJANGO_SECRET_KEY": "another-" + "x" * 32}}
    monkeypatch.setenv("SECRETS_OF_THE_TEST", json.dumps(changed))
    source = {"kind": "lookup", "value": "{{ lookup('ansible.builtin.env', 'SECRETS_OF_THE_TEST') | from_json }}"}
    output = site(source, "--check", "--diff")
    assert "+DJANGO_SECRET_KEY (new value)" in output
    assert "another-" not in output
    assert app1.check_output("readlink -f /etc/app/env") == held


def test_a_source_that_cannot_be_opened_is_refused_before_a_host_is_asked(site, sources, tmp_path):
    (tmp_path / "password").write_text("another\n")
    output = site(sources["vault"], code=2)
    assert "does not open" in " ".join(output.split())
    assert "Nothing was changed." in output
    assert "Learn what system each host runs" not in output


def test_the_secrets_are_closed_in_the_checkout(lab):
    """The lab's secrets lie encrypted even there, and its key is its owner's alone."""
    place = Path(lab["reports"]).parent
    text = (place / "secrets.sops.yml").read_text()
    values = secrets(lab)
    assert values["redis_app_password"] not in text
    assert values["app"]["DJANGO_SECRET_KEY"] not in text
    assert (place / "age.txt").stat().st_mode & 0o777 == 0o600
