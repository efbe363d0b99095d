"""Secrets in AWS Secrets Manager, as moto plays it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from plugins.secrets import aws
from plugins.secrets.aws import Aws
from plugins.secrets.source import Refused

CANARY = "canary-a0a0"
REGION = "eu-central-1"
VALUES = {"app": {"SECRET_KEY": CANARY}, "redis_app_password": "0123"}


@pytest.fixture
def manager(monkeypatch: Any) -> Iterator[Any]:
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        client = boto3.client("secretsmanager", region_name=REGION)
        client.create_secret(Name="slipway/production", SecretString=json.dumps(VALUES), Description="ours")
        yield client


@pytest.fixture
def source(manager: Any) -> Aws:
    return Aws("slipway/production", REGION)


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises(Refused) as caught:
        act()
    assert CANARY not in str(caught.value)
    return str(caught.value)


def failing(monkeypatch: Any, code: str, what: str = "get_secret_value") -> None:
    """The service answers with this error."""
    real = boto3.session.Session.client

    def client(self: Any, *words: Any, **more: Any) -> Any:
        made = real(self, *words, **more)

        def answer(**_words: Any) -> None:
            raise ClientError({"Error": {"Code": code, "Message": CANARY}}, what)

        setattr(made, what, answer)
        return made

    monkeypatch.setattr(boto3.session.Session, "client", client)


def test_what_is_in_it_is_read(source: Aws) -> None:
    assert source.read() == VALUES


def test_what_is_set_is_the_current_version_and_the_old_one_the_previous(source: Aws, manager: Any) -> None:
    value = "two\nlines '\"\\ {{ x }} 東京 🔑" + "x" * 60000
    source.set({"app": {"NEW": value}})
    assert source.read() == {**VALUES, "app": {**VALUES["app"], "NEW": value}}
    previous = manager.get_secret_value(SecretId="slipway/production", VersionStage="AWSPREVIOUS")
    assert json.loads(previous["SecretString"]) == VALUES
    assert manager.describe_secret(SecretId="slipway/production")["Description"] == "ours"


def test_what_somebody_else_set_meanwhile_is_not_written_over(source: Aws, manager: Any, monkeypatch: Any) -> None:
    current = source._current

    def meanwhile() -> Any:
        found = current()
        manager.put_secret_value(SecretId="slipway/production", SecretString='{"theirs": "x"}')
        return found

    monkeypatch.setattr(source, "_current", meanwhile)
    assert "somebody else" in refused(lambda: source.set({"mine": "x"}))
    monkeypatch.undo()
    assert json.loads(manager.get_secret_value(SecretId="slipway/production")["SecretString"]) == {"theirs": "x"}


def test_more_than_aws_takes_is_refused_before_it_is_sent(source: Aws) -> None:
    assert "65536 bytes" in refused(lambda: source.set({"x": "x" * 65536}))
    assert source.read() == VALUES


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("AccessDeniedException", "AWS denies secretsmanager:GetSecretValue on slipway/production"),
        ("ThrottlingException", "run it again in a minute"),
        ("ExpiredTokenException", "renew them"),
        ("UnrecognizedClientException", "does not take the credentials"),
        ("DecryptionFailure", "refuses secretsmanager:GetSecretValue on slipway/production of AWS Secrets Manager"),
    ],
)
def test_what_aws_refuses_is_said(source: Aws, monkeypatch: Any, code: str, said: str) -> None:
    failing(monkeypatch, code)
    assert said in refused(source.read)


def test_what_is_no_dictionary_is_refused(source: Aws, manager: Any) -> None:
    for text, said in ((CANARY, "is not JSON"), (f'["{CANARY}"]', "is to be a dictionary")):
        manager.put_secret_value(SecretId="slipway/production", SecretString=text)
        assert said in refused(source.read)
    manager.put_secret_value(SecretId="slipway/production", SecretBinary=b"x")
    assert "is not JSON" in refused(source.read)
    assert "slipway/gone of AWS Secrets Manager in eu-central-1 is not there" in refused(
        Aws("slipway/gone", REGION).read
    )


def test_who_asks_and_where_has_to_be_known(source: Aws, monkeypatch: Any) -> None:
    assert "No region" in refused(Aws("slipway/production").read)
    monkeypatch.setattr(aws, "CONFIG", aws.Config(connect_timeout=1, retries={"total_max_attempts": 1}))
    assert "does not answer" in refused(Aws("slipway/production", REGION, "http://127.0.0.1:1").read)
    assert "could not be asked" in refused(Aws("slipway/production", REGION, "nonsense").read)


def test_without_credentials_it_says_where_they_are_looked_for(monkeypatch: Any) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    assert "No credentials of AWS are here" in refused(Aws("slipway/production", REGION).read)
