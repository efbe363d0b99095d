"""Which signatures hold. Keys, signatures and openssl are real; the registry is what a test says, and the lab's own."""

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from lab import oci
from releasectl import reference, signature, store
from releasectl.config import Config
from releasectl.errors import Refusal

OURS, NEXT, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
DIGEST = "sha256:" + "0123456789abcdef" * 4
NAME = "registry.example.com:5000/team/shop"
IMAGE = reference.pinned(f"{NAME}:1@{DIGEST}")


class Beside:
    """What lies beside the image."""

    def __init__(self) -> None:
        self.tagged: tuple[dict[str, Any], list[bytes]] | None = None
        self.listed: list[dict[str, Any]] = []
        self.bundles: dict[str, bytes] = {}

    def sign(self, key: ec.EllipticCurvePrivateKey, *, name: str = NAME, digest: str = DIGEST, **note: str) -> None:
        manifest, contents = self.tagged or ({"layers": []}, [])
        content = oci.payload(name, digest)
        notes = {signature.SIGNATURE: oci.signed(key, content), **note}
        self.tagged = {"layers": [*manifest["layers"], {"annotations": notes}]}, [*contents, content]

    def bundle(self, content: bytes, kind: str = oci.BUNDLE) -> None:
        digest = f"sha256:{len(self.bundles):064x}"
        self.bundles[digest] = content
        self.listed.append({"digest": digest, "artifactType": kind})

    def attached(self, _config: Config, asked: reference.Reference) -> tuple[dict[str, Any], list[bytes]] | None:
        return ({}, [self.bundles[asked.digest]]) if asked.digest else self.tagged


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Beside:
    found = Beside()
    monkeypatch.setattr(store, "attached", found.attached)
    monkeypatch.setattr(store, "referrers", lambda *_: found.listed)
    return found


@pytest.fixture
def strict(config: Config, tmp_path: Any) -> Config:
    """A host on which images have to be signed, by either of two keys."""
    keys = tmp_path / "keys.pub"
    keys.write_text(oci.public_key(OURS) + "\n" + oci.public_key(NEXT))
    return replace(config, image_signatures="required", image_keys=keys)


def check(config: Config, said: list[str] | None = None) -> str | None:
    return signature.check(config, IMAGE, (said if said is not None else []).append)


@pytest.mark.parametrize("key", [OURS, NEXT])
def test_one_of_the_keys_suffices_and_is_told(strict, beside, key):
    beside.sign(OTHER)
    beside.sign(key)
    assert check(strict) == signature.fingerprint(oci.public_key(key))
    assert list(strict.private_run.glob("signature-*")) == []


def test_nobody_looks_unless_it_is_asked_for(config, monkeypatch):
    monkeypatch.setattr(store, "attached", lambda *_: pytest.fail("the registry was asked"))
    assert check(config) is None


def test_one_that_is_missing_is_refused_only_where_there_has_to_be_one(strict, beside):
    with pytest.raises(Refusal, match=r"is not signed, and release_image_signatures is 'required'.*nothing was pulled"):
        check(strict)
    said: list[str] = []
    present = replace(strict, image_signatures="present")
    assert check(present, said) is None
    assert said == ["it is not signed"]
    beside.sign(OTHER)
    with pytest.raises(Refusal, match="by none of the keys"):
        check(present)


def changed(beside: Beside) -> None:
    beside.sign(OURS)
    beside.tagged = beside.tagged[0], [beside.tagged[1][0].replace(b"team/shop", b"team/shap")]


@pytest.mark.failure("image-not-signed")
@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda beside: beside.sign(OTHER), "signed by none of the keys in release_image_signature_key"),
        (changed, "by none of the keys in release_image_signature_key, or was changed since"),
        (lambda beside: beside.sign(OURS, digest="sha256:" + "ab" * 32), "is that of other content .*sha256:abab"),
        (lambda beside: beside.sign(OURS, name="registry.example.com/shop"), "is for 'registry.example.com/shop'"),
        (lambda beside: beside.sign(OTHER, **{signature.CERTIFICATE: "x"}), "without a key .keyless."),
        (lambda beside: setattr(beside, "tagged", ({"layers": [{"annotations": {}}]}, [b""])), "none of cosign's"),
        (lambda beside: setattr(beside, "tagged", ({"layers": [7]}, [b""])), "none of cosign's"),
        (lambda beside: beside.bundle(b"[]"), "none of cosign's"),
        (lambda beside: beside.bundle(oci.bundle(OTHER, DIGEST)), "by none of the keys"),
        (lambda beside: beside.bundle(oci.bundle(OURS, "sha256:" + "ab" * 32)), "is that of other content"),
        (lambda beside: beside.bundle(oci.bundle(OURS, DIGEST).replace(b"vnd.in-toto", b"vnd.other")), "by none of"),
    ],
)
def test_one_that_does_not_hold_is_refused_by_reason(strict, beside, made, why):
    made(beside)
    with pytest.raises(Refusal, match=rf"{why}.*nothing was pulled\.$"):
        check(strict)


@pytest.mark.parametrize("said", [b"[]", b"{}", b"{", oci.payload(NAME, DIGEST).replace(b"cosign", b"atomic")])
def test_what_a_key_of_ours_signed_and_is_no_signature_of_an_image_is_refused(strict, beside, said):
    note = {signature.SIGNATURE: oci.signed(OURS, said)}
    beside.tagged = {"layers": [{"annotations": note}]}, [said]
    with pytest.raises(Refusal, match="does not say which image it is"):
        check(strict)


def test_a_bundle_holds_as_well_and_what_else_is_attested_is_no_signature(strict, beside):
    def statement(kind: str) -> bytes:
        return oci.bundle(OURS, DIGEST, kind=kind)

    beside.bundle(statement("https://slsa.dev/provenance/v1"))
    beside.bundle(b"an SBOM", kind="application/spdx+json")
    with pytest.raises(Refusal, match="is not signed"):
        check(strict)
    beside.bundle(statement(signature.STATEMENT))
    assert check(strict) == signature.fingerprint(oci.public_key(OURS))


@pytest.mark.parametrize(
    ("signed", "asked"),
    [
        ("index.docker.io/acme/shop", "docker.io/acme/shop"), ("ghcr.io/acme/shop:1.0", "ghcr.io/acme/shop"),
        (f"ghcr.io/acme/shop@{DIGEST}", "ghcr.io/acme/shop"),
    ],
)  # fmt: skip
def test_a_repository_is_the_same_by_another_of_its_names(strict, beside, signed, asked):
    beside.sign(OURS, name=signed)
    assert signature.check(strict, reference.pinned(f"{asked}@{DIGEST}"), print)


@pytest.mark.parametrize("content", [None, "", "-----BEGIN PUBLIC KEY-----\n", "a key"])
def test_without_a_key_nothing_is_pulled(strict, beside, content):
    if content is None:
        strict.image_keys.unlink()
    else:
        strict.image_keys.write_text(content)
    beside.sign(OURS)
    with pytest.raises(Refusal, match=r"no public key is in .*: set release_image_signature_key and run site.yml"):
        check(strict)
