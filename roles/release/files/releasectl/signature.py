"""Whose signature an image has: cosign's, which lies beside it in the registry, checked by openssl before the pull.

There are two forms of it. In the first, `sha256-<digest>.sig` is the tag of a manifest whose layers are what was
signed, each with its signature as an annotation. In the second, each signature is a bundle of sigstore, and
`sha256-<digest>` the tag of an index that lists them. Both name the digest of the image, the first its repository too.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import store
from .config import Config
from .errors import Refusal
from .names import shorten
from .reference import REFERENCE, Reference
from .systemd import run

KEY = re.compile(r"-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=\n]+)-----END PUBLIC KEY-----\n?")
SIGNATURE = "dev.cosignproject.cosign/signature"
CERTIFICATE = "dev.sigstore.cosign/certificate"
PAYLOAD = "cosign container image signature"
BUNDLE = "application/vnd.dev.sigstore.bundle"
STATEMENT = "https://sigstore.dev/cosign/sign/v1"
MOST = 20  # bundles that are looked at, the last ones


@dataclass(frozen=True)
class Signature:
    """One signature of an image: what was signed, and what that says."""

    signed: bytes
    signature: bytes
    said: bytes  # JSON
    keyless: bool


def check(config: Config, reference: Reference, say: Callable[[str], None]) -> str | None:
    """Refuse an image whose signature does not hold, or that has none where there has to be one.

    Returns which key holds, by the SHA-256 of it; None when nobody looks, or there is no signature.
    """
    if config.image_signatures == "ignored":
        return None
    keys = _keys(config)
    found = _of(config, reference)
    if not found:
        if config.image_signatures == "required":
            raise Refusal(
                f"{reference} is not signed, and release_image_signatures is 'required': sign it with"
                f" 'cosign sign --key … {reference.by_digest}', or deploy one that is; nothing was pulled."
            )
        say("it is not signed")
        return None
    say("checking its signature")
    problems = []
    for one in found:
        for key in keys:
            if _holds(config, key, one):
                problem = _mismatch(reference, one.said)
                if not problem:
                    return fingerprint(key)
                problems.append(problem)
    raise Refusal(f"{problems[0] if problems else _foreign(reference, found)}; nothing was pulled.")


def fingerprint(key: str) -> str:
    """The SHA-256 of a public key, as `openssl pkey -pubin -outform DER | sha256sum` prints it."""
    found = KEY.fullmatch(key)
    assert found is not None
    return hashlib.sha256(base64.b64decode(found[1])).hexdigest()


def _keys(config: Config) -> list[str]:
    try:
        keys = [found[0] for found in KEY.finditer(config.image_keys.read_text())]
    except FileNotFoundError:
        keys = []
    if not keys:
        raise Refusal(
            f"release_image_signatures is '{config.image_signatures}', and no public key is in {config.image_keys}: set"
            " release_image_signature_key and run site.yml; nothing was pulled."
        )
    return keys


# Finding


def _of(config: Config, reference: Reference) -> list[Signature]:
    """All signatures of an image, in either form."""
    try:
        return [*_payloads(config, reference), *_bundles(config, reference)]
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        raise Refusal(
            f"What {reference.registry} has as the signature of {reference} is none of cosign's: sign it anew; nothing"
            " was pulled."
        ) from None


def _payloads(config: Config, reference: Reference) -> list[Signature]:
    found = store.attached(config, reference.beside(".sig"))
    if found is None:
        return []
    manifest, contents = found
    notes = [dict(layer.get("annotations") or {}) for layer in manifest["layers"]]
    return [
        Signature(content, base64.b64decode(note[SIGNATURE], validate=True), content, CERTIFICATE in note)
        for note, content in zip(notes, contents, strict=True)
    ]


def _bundles(config: Config, reference: Reference) -> list[Signature]:
    listed = store.referrers(config, reference)
    wanted = [entry["digest"] for entry in listed if str(entry.get("artifactType")).startswith(BUNDLE)]
    found = []
    for digest in wanted[-MOST:]:
        for content in (store.attached(config, reference.pinned(digest)) or ({}, []))[1]:
            bundle = json.loads(content)
            envelope = bundle.get("dsseEnvelope") or {"payload": "", "payloadType": "", "signatures": []}
            said, kind = base64.b64decode(envelope["payload"], validate=True), str(envelope["payloadType"]).encode()
            # What else was attested of an image, as its provenance, is a bundle as well.
            if said and json.loads(said).get("predicateType") == STATEMENT:
                signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(said), said)
                keyless = "publicKey" not in bundle["verificationMaterial"]
                for one in envelope["signatures"]:
                    found.append(Signature(signed, base64.b64decode(one["sig"], validate=True), said, keyless))
    return found


# Judging


def _holds(config: Config, key: str, one: Signature) -> bool:
    with tempfile.TemporaryDirectory(prefix="signature-", dir=config.private_run) as scratch:
        paths = [Path(scratch) / name for name in ("key", "signature", "signed")]
        for path, content in zip(paths, (key.encode(), one.signature, one.signed), strict=True):
            path.write_bytes(content)
        words = ["/usr/bin/openssl", "dgst", "-sha256", "-verify", paths[0], "-signature", paths[1], paths[2]]
        return run([str(word) for word in words]).returncode == 0


def _mismatch(reference: Reference, said: bytes) -> str:
    """What is wrong with what a key of ours has signed; nothing when it is this image."""
    try:
        digests, repository = _named(json.loads(said))
    except (KeyError, TypeError, ValueError, AttributeError):
        return f"What is signed beside {reference} does not say which image it is: sign it with cosign"
    if reference.digest not in digests:
        other = shorten(", ".join(digests) or "none")
        return f"The signature beside {reference} is that of other content ({other}): sign this image"
    if repository and _plain(repository) != _plain(reference.repository):
        return (
            f"The signature beside {reference} is for {shorten(repository)}: sign it by the name that it is deployed by"
        )
    return ""


def _named(said: dict[str, Any]) -> tuple[list[str], str]:
    """The digests, and the repository where there is one, of which a payload or a statement speaks."""
    if said.get("predicateType") == STATEMENT:
        return [f"sha256:{subject['digest']['sha256']}" for subject in said["subject"]], ""
    critical = said["critical"]
    if critical["type"] != PAYLOAD:
        raise ValueError
    return [str(critical["image"]["docker-manifest-digest"])], str(critical["identity"]["docker-reference"])


def _plain(repository: str) -> str:
    """A repository without tag and digest; Docker Hub has two names."""
    found = REFERENCE.fullmatch(repository) or re.fullmatch(r"(?P<registry>[^/]*)/(?P<path>.*)", repository)
    return f"{found['registry'].replace('index.docker.io', 'docker.io')}/{found['path']}" if found else repository


def _foreign(reference: Reference, found: list[Signature]) -> str:
    again = f"sign it with 'cosign sign --key … {reference.by_digest}'"
    if all(one.keyless for one in found):
        return f"{reference} is signed without a key (keyless), which hosts do not check: {again}"
    return (
        f"{reference} is signed by none of the keys in release_image_signature_key, or was changed since: {again}, or"
        " list the key that it is signed with"
    )
