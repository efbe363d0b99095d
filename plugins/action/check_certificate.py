"""Check a certificate and its key on the controller, before any host is changed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_certificate
short_description: Check on the controller that a certificate can be served
description:
  - Fails with one sentence unless the text holds certificates in order (leaf first, each signed by the next), the key
    is the leaf's, they are valid now, and the leaf covers the names. It changes nothing and connects to nothing.
options:
  certificate:
    description: The certificate and its chain, leaf first (PEM).
    type: str
    required: true
  private_key:
    description: The leaf's private key (PEM, without a passphrase).
    type: str
    required: true
  names:
    description: Names that the leaf must cover.
    type: list
    elements: str
    required: true
  prefix:
    description: The prefix of the two variables that hold them, for the sentences (C(tls) for C(tls_certificate)).
    type: str
    required: true
  warn_days:
    description: Warn when fewer days are left.
    type: int
    default: 14
"""

import datetime
import itertools
from typing import Any

from ansible.plugins.action import ActionBase
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key


class Unfit(Exception):
    """The certificate cannot be served; the text says why."""


def covers(pattern: str, name: str) -> bool:
    """Whether a name of a certificate covers a host name (RFC 6125: a star is one whole leftmost label)."""
    pattern, name = pattern.lower(), name.lower()
    if pattern.startswith("*."):
        return "." in name and name.split(".", 1)[1] == pattern[2:]
    return pattern == name


def names_of(leaf: x509.Certificate) -> list[str]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]


def public_bytes(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def inspect(
    certificate: str, private_key: str, names: list[str], prefix: str, now: datetime.datetime
) -> dict[str, Any]:
    """What the certificate says of itself; Unfit when it cannot be served for these names now."""
    for part, text in (("certificate", certificate), ("private_key", private_key)):
        if not text.strip():
            raise Unfit(
                f"{prefix}_{part} is not set: put it into group_vars/<environment>, what is secret into a vault"
            )
    try:
        chain = x509.load_pem_x509_certificates(certificate.encode())
    except ValueError:
        raise Unfit(f"{prefix}_certificate holds no PEM certificate") from None
    try:
        key = load_pem_private_key(private_key.encode(), password=None)
    except TypeError:
        raise Unfit(f"{prefix}_private_key has a passphrase, which no daemon can type: store it without") from None
    except ValueError:
        raise Unfit(f"{prefix}_private_key holds no PEM private key") from None

    leaf = chain[0]
    have = names_of(leaf)
    called = f"the certificate for {', '.join(have) or leaf.subject.rfc4514_string()}"
    if public_bytes(key.public_key()) != public_bytes(leaf.public_key()):
        raise Unfit(f"{prefix}_private_key is not the key of {called}: set {prefix}_certificate and it from one pair")
    for issued, issuer in itertools.pairwise(chain):
        try:
            issued.verify_directly_issued_by(issuer)
        except (InvalidSignature, TypeError, ValueError):
            raise Unfit(
                f"{prefix}_certificate is not in order: after {called} must come the one that issued it, and so on"
            ) from None
    start, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if now >= end:
        raise Unfit(f"{called} expired on {end:%Y-%m-%d}: get a new one into {prefix}_certificate")
    for issuer in chain[1:]:
        if now >= issuer.not_valid_after_utc:
            raise Unfit(
                f"in the chain of {called}, {issuer.subject.rfc4514_string()} expired on"
                f" {issuer.not_valid_after_utc:%Y-%m-%d}: get the present chain into {prefix}_certificate"
            )
    if now < start:
        raise Unfit(f"{called} is valid from {start:%Y-%m-%d %H:%M} UTC only: is this machine's clock right?")
    missing = [name for name in names if not any(covers(pattern, name) for pattern in have)]
    if missing:
        raise Unfit(f"{called} does not cover {', '.join(missing)}: get one that does into {prefix}_certificate")
    return {"names": have, "expires": end.isoformat(), "days_left": (end - now).days}


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            {
                "certificate": {"type": "str", "required": True},
                "private_key": {"type": "str", "required": True, "no_log": True},
                "names": {"type": "list", "elements": "str", "required": True},
                "prefix": {"type": "str", "required": True},
                "warn_days": {"type": "int", "default": 14},
            }
        )
        # Whatever happens, the key must not be printed with the task's arguments.
        result["invocation"] = {"module_args": {"names": args["names"], "prefix": args["prefix"]}}
        now = datetime.datetime.now(datetime.UTC)
        try:
            found = inspect(args["certificate"], args["private_key"], args["names"], args["prefix"], now)
        except Unfit as unfit:
            sentence = str(unfit)
            # A sentence that begins with a variable keeps its name as it is written.
            begun = sentence if sentence.startswith(args["prefix"]) else sentence[0].upper() + sentence[1:]
            result.update(failed=True, msg=f"{begun}, and run the playbook again.")
            return result
        result.update(changed=False, **found)
        if found["days_left"] < args["warn_days"]:
            result["warnings"] = [
                f"The certificate in {args['prefix']}_certificate expires in {found['days_left']} days."
            ]
        return result
