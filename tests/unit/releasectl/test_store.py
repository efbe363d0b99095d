"""What a registry says, and what is made of it; podman and skopeo themselves are tried in the lab."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from releasectl import image, reference, store
from releasectl.config import Config
from releasectl.errors import CommandFailed, Refusal

NAME = "registry.example.com/shop"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """What is answered by what is asked for; bytes that are no answer are an error that the tool ended with."""
    has: dict[str, bytes] = {}

    def call(_config: object, _unit: str, argv: list[str], *_more: object, **_options: object) -> str:
        copied = Path(argv[-1].removeprefix("dir:")) if argv[-1].startswith("dir:") else None
        answer = has.get(argv[-2] if copied else argv[-1], b"!reading manifest: manifest unknown")
        if answer.startswith(b"!"):
            raise CommandFailed("Asking it failed", journal=[answer[1:].decode()])
        if copied is None:
            Path(argv[5]).write_bytes(answer)
            return ""
        copied.mkdir()
        (copied / "manifest.json").write_bytes(answer)
        for name, content in has.items():
            if "/" not in name:
                (copied / name).write_bytes(content)
        return ""

    monkeypatch.setattr(store, "_call", call)
    return has


@pytest.fixture
def index(registry: dict[str, bytes]) -> tuple[str, dict[str, object]]:
    """A tag that names an index of two systems, and the manifest that is for this host."""
    manifest: dict[str, object] = {"layers": [{"digest": "sha256:1", "size": 7}]}
    mine = json.dumps(manifest).encode()
    registry[f"docker://{NAME}@{digest_of(mine)}"] = mine
    platforms = (("sparc", "sha256:" + "0" * 64), (image.architecture_here(), digest_of(mine)))
    entries = [{"digest": found, "platform": {"os": "linux", "architecture": name}} for name, found in platforms]
    whole = json.dumps({"mediaType": store.INDEXES[0], "manifests": entries}).encode()
    registry[f"docker://{NAME}:1"] = registry[f"docker://{NAME}@{digest_of(whole)}"] = whole
    return digest_of(whole), manifest


def test_a_tag_is_pinned_by_what_it_names_and_looked_at_by_what_is_for_this_host(config, index):
    assert store.manifest(config, reference.parse(f"{NAME}:1")) == index
    assert store.manifest(config, reference.parse(f"{NAME}@{index[0]}")) == index
    assert list(config.private_run.glob("registry-*")) == []


def test_other_content_than_was_asked_for_is_refused(config, registry):
    asked = "sha256:" + "ab" * 32
    registry[f"docker://{NAME}@{asked}"] = b"{}"
    with pytest.raises(Refusal, match="answered with other content"):
        store.manifest(config, reference.parse(f"{NAME}@{asked}"))


@pytest.mark.parametrize(
    "answer", [b"[]", b"<html>", b'{"manifests": 7}', b'{"manifests": [1]}', b'{"manifests": [{"digest": 1}]}']
)
def test_what_is_no_manifest_is_refused(config, registry, answer):
    registry[f"docker://{NAME}:1"] = answer
    with pytest.raises(Refusal, match="with what is no"):
        store.manifest(config, reference.parse(f"{NAME}:1"))


def test_an_index_without_this_system_is_refused(config, registry):
    entry = {"digest": "sha256:1", "platform": {"os": "linux", "architecture": "sparc"}}
    registry[f"docker://{NAME}:1"] = json.dumps({"manifests": [entry]}).encode()
    with pytest.raises(Refusal, match="is for other systems"):
        store.manifest(config, reference.parse(f"{NAME}:1"))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("unauthorized: authentication required", r"does not let this host in, which has no credentials.*_credentials"),
        ("manifest unknown: manifest unknown", "has no .*push it"),
        ("name unknown: repository name not known", "has no "),
        ("x509: certificate signed by unknown authority", "release_image_ca_certificate"),
        ("dial tcp 192.0.2.1:443: i/o timeout", "firewall_outbound_extra"),
        ("dial tcp: lookup registry.example.com: no such host", "firewall_outbound_extra"),
        ("something else", "did not give"),
    ],
)
def test_why_a_registry_did_not_give_is_said_with_what_to_do(config, registry, tmp_path, words, sentence):
    registry[f"docker://{NAME}:1"] = b"!" + words.encode()
    config = replace(config, image_credentials=tmp_path / "none")
    with pytest.raises(Refusal) as refused:
        store.manifest(config, reference.parse(f"{NAME}:1"))
    assert re.search(sentence, str(refused.value))
    assert "what is live was not touched" in str(refused.value)


ATTACHED = "sha256-" + "ab" * 32


def attach(has: dict[str, bytes], *contents: bytes, size: int = 1) -> None:
    """Have it as the registry does, and as skopeo leaves it in a directory."""
    layers = [{"digest": digest_of(content), "size": size} for content in contents]
    manifest = json.dumps({"config": {"digest": digest_of(b"{}"), "size": 2}, "layers": layers}).encode()
    has[f"docker://{NAME}:{ATTACHED}.sig"] = has[f"docker://{NAME}@{digest_of(manifest)}"] = manifest
    has.update({digest_of(content).removeprefix("sha256:"): content for content in contents})


def test_what_lies_beside_an_image_is_its_manifest_and_its_layers(config, registry):
    attach(registry, b"one", b"two")
    found = store.attached(config, reference.pinned(f"{NAME}@sha256:{'ab' * 32}").beside(".sig"))
    assert found is not None
    assert found[1] == [b"one", b"two"]
    assert list(config.private_run.glob("registry-*")) == []


@pytest.mark.parametrize(("count", "size"), [(101, 1), (1, 1024 * 1024)])
def test_more_than_signatures_are_is_not_fetched(config, registry, count, size):
    attach(registry, *(b"%d" % number for number in range(count)), size=size)
    with pytest.raises(Refusal, match="is larger than 100 signatures are: remove it"):
        store.attached(config, reference.pinned(f"{NAME}@sha256:{'ab' * 32}").beside(".sig"))


def test_what_is_not_there_is_none_and_what_cannot_be_asked_for_is_no_none(config, registry):
    found = reference.pinned(f"{NAME}@sha256:{'ab' * 32}")
    assert store.attached(config, found.beside(".sig")) is None
    assert store.referrers(config, found) == []
    registry[f"docker://{NAME}:{ATTACHED}"] = registry[f"docker://{NAME}:{ATTACHED}.sig"] = b"!i/o timeout"
    for ask in (lambda: store.attached(config, found.beside(".sig")), lambda: store.referrers(config, found)):
        with pytest.raises(Refusal, match="cannot be reached"):
            ask()


@pytest.mark.parametrize(
    "answer",
    [b"[]", b"{}", b"<html>", b'{"config": {"digest": "sha256:/../key", "size": 1}, "layers": []}', b'{"layers": 7}'],
)
def test_what_lies_there_and_is_nothing_of_the_kind_is_refused(config, registry, answer):
    registry[f"docker://{NAME}:{ATTACHED}.sig"] = answer
    with pytest.raises(Refusal, match="with what is no"):
        store.attached(config, reference.pinned(f"{NAME}@sha256:{'ab' * 32}").beside(".sig"))


def test_places_for_what_is_shown_are_looked_for_again_when_there_are_more(config, tmp_path, monkeypatch):
    shown = tmp_path / "shown"
    shown.mkdir()
    config: Config = replace(
        config, image_paths=(str(shown), "/nowhere"), launcher=tmp_path / "none", inside=tmp_path / "none"
    )
    (config.release_dir("b") / "static").mkdir(parents=True)
    monkeypatch.setattr(store, "run", lambda _argv: type("Done", (), {"returncode": 0, "stdout": "/x", "stderr": ""}))
    monkeypatch.setattr(image, "of", lambda _directory: type("Found", (), {"identity": "1"}))
    assert not store._complete(config, "b")
    store.mount(config, "b")
    assert store._complete(config, "b")
    skeleton = config.release_dir("b") / store.SKELETON
    assert (skeleton / str(shown).lstrip("/")).is_dir()
    assert all((skeleton / place).is_dir() for place in store.API)
    assert not (skeleton / "nowhere").exists()
