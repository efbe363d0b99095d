"""The variable secrets_source: what it may say, and what is said of one that is wrong."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugins.action.check_secrets import missing
from plugins.secrets import factory, memory
from plugins.secrets.given import Given
from plugins.secrets.source import Refused


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("sops", "secrets_source is to be a dictionary"),
        ({"file": "x"}, "secrets_source has no kind: there are sops, vault, aws, lookup"),
        ({"kind": "spos"}, "spos is no kind"),
        ({"kind": "sops"}, "needs file"),
        ({"kind": "sops", "file": "s.yml", "age_keyfile": "k"}, "did you mean age_key_file?"),
        ({"kind": "sops", "file": "s.yml", "region": "k"}, "it has file, age_key_file."),
        ({"kind": "aws", "region": "eu-central-1"}, "needs secret_id"),
        ({"kind": "aws", "secret_id": 5}, "secrets_source.secret_id is to be text"),
        ({"kind": "lookup"}, "needs value"),
        ({"kind": "vault", "file": "group_vars/production/vault.yml"}, "move it to secrets/vault.yml"),
    ],
)
def test_what_is_wrong_with_it_is_said(tmp_path: Path, given: Any, said: str) -> None:
    with pytest.raises(Refused, match="secrets_source") as caught:
        factory.source(given, tmp_path)
    assert said in str(caught.value)


def test_files_are_as_the_repository_has_them(tmp_path: Path) -> None:
    source = factory.source({"kind": "sops", "file": "secrets/production.sops.yml"}, tmp_path)
    assert source.place == "secrets/production.sops.yml"
    assert factory.source({"kind": "sops", "file": "/elsewhere/s.yml"}, tmp_path).place == "/elsewhere/s.yml"


def test_what_is_looked_up_is_read_and_not_set(tmp_path: Path) -> None:
    source = factory.source({"kind": "lookup", "value": {"a": "b"}, "place": "the safe"}, tmp_path)
    assert source.read() == {"a": "b"}
    assert source.describe() == {
        "kind": "lookup", "place": "the safe", "writable": False, "readers": ["whoever the safe lets in"],
    }  # fmt: skip
    with pytest.raises(Refused, match="the safe can only be read"):
        source.set({"a": "c"})
    for wrong, said in (
        ("text", "is to be a dictionary"),
        ({"a": object()}, "quote it"),
        ({1: "x"}, "A name in the safe"),
    ):
        with pytest.raises(Refused, match=said):
            Given(lambda wrong=wrong: wrong, "the safe").read()


class Counted(Given):
    writable = True

    def __init__(self, log: Path) -> None:
        super().__init__(lambda: log.open("a").write("x") and {"a": len(log.read_text())}, "")

    def set(self, values: Any) -> None:
        pass


@pytest.fixture
def open_memory() -> Iterator[None]:
    memory.begin()
    yield
    memory.end()


def _ask(source: Any) -> None:
    source.read()


def test_the_source_is_asked_once_by_all_processes_of_a_run(tmp_path: Path, open_memory: None) -> None:
    log = tmp_path / "log"
    log.write_text("")
    source = memory.Kept("one", Counted(log))
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_ask, args=(source,)) for _ in range(8)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert source.read() == {"a": 1}
    assert memory.Kept("two", Counted(log)).read() == {"a": 2}
    source.set({})
    assert source.read() == {"a": 3}


def test_without_a_memory_the_source_is_asked_each_time(tmp_path: Path) -> None:
    source = memory.Kept("one", Counted(tmp_path / "log"))
    assert [source.read(), source.read()] == [{"a": 1}, {"a": 2}]


def test_what_is_executed_does_not_inherit_the_memory(open_memory: None) -> None:
    import os

    assert not os.get_inheritable(memory._opened[0])


def test_a_secret_that_a_variable_names_is_missed() -> None:
    variables = {
        "app_settings": {
            "URL": "x://{{ secrets.there }}:{{ secrets.gone | urlencode }}@",
            "B": "{{ other.secrets.no }}",
        },
        "tls_private_key": "{{ secrets.hosts[inventory_hostname].key }}",
        "maybe": "{{ secrets.optional | default('') }} {{ secrets.asked is defined }}",
        "redis_app_password": "{{ secrets.elsewhere }}",
        "text": "secrets.words",
    }
    assert missing(variables, {"there"}, ["redis"]) == {"gone": "app_settings", "hosts": "tls_private_key"}
    assert json.dumps(missing(variables, {"there", "gone", "hosts", "elsewhere"})) == "{}"
