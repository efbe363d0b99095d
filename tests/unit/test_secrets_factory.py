"""The variable secrets_source: what it may say, and what is said of one that is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
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


RUN = """
import os, sys
from pathlib import Path
from plugins.secrets import memory
from plugins.secrets.given import Given

log = Path(sys.argv[1])
source = Given(lambda: log.open("a").write("x") and {"a": len(log.read_text())})
memory.begin()
kept = memory.Kept("one", source)
children = []
for _ in range(8):
    child = os.fork()
    if not child:
        kept.read()
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
print(kept.read()["a"], memory.Kept("two", source).read()["a"], kept.read()["a"])
"""


def test_the_source_is_asked_once_by_all_processes_of_a_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, tmp_path / "log"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "1 2 1\n", done.stderr


def test_what_was_set_is_asked_for_anew(tmp_path: Path, open_memory: None) -> None:
    source = memory.Kept("one", Counted(tmp_path / "log"))
    assert [source.read(), source.read()] == [{"a": 1}, {"a": 1}]
    source.set({})
    assert source.read() == {"a": 2}


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
