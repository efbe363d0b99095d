"""A certificate that cannot be served is refused with one sentence, before any host is touched."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from plugins.action.check_certificate import Unfit, covers, inspect

NOW = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)


def pem(key: Any, encryption: Any = None) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()).decode()


def issue(
    names: list[str], start: Any = NOW - DAY, end: Any = NOW + 90 * DAY, issuer: str = "CA", signed_by: Any = None
) -> tuple[str, Any]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]))
        .not_valid_before(start)
        .not_valid_after(end)
        .serial_number(x509.random_serial_number())
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .sign(signed_by or key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode(), key


def refused(certificate: str, key: str, names: tuple[str, ...] = ("example.com",)) -> str:
    with pytest.raises(Unfit) as caught:
        inspect(certificate, key, list(names), "tls", NOW)
    return str(caught.value)


def test_a_good_pair_is_taken():
    certificate, key = issue(["example.com", "*.example.com"])
    found = inspect(certificate, pem(key), ["example.com", "www.example.com"], "tls", NOW)
    assert found["days_left"] == 90


def test_a_key_of_another_pair_is_refused():
    certificate, _ = issue(["example.com"])
    _, other = issue(["example.com"])
    assert "tls_private_key is not the key of the certificate for example.com" in refused(certificate, pem(other))


def test_an_expired_one_is_refused():
    certificate, key = issue(["example.com"], start=NOW - 9 * DAY, end=NOW - DAY)
    assert "expired on 2026-11-22" in refused(certificate, pem(key))


def test_one_of_tomorrow_is_refused():
    certificate, key = issue(["example.com"], start=NOW + DAY)
    assert "clock" in refused(certificate, pem(key))


def test_one_for_another_name_is_refused():
    certificate, key = issue(["example.org"])
    assert "does not cover example.com" in refused(certificate, pem(key))


def test_a_chain_out_of_order_is_refused():
    certificate, key = issue(["example.com"], issuer="Intermediate")
    stranger, _ = issue(["Another"])
    assert "not in order" in refused(certificate + stranger, pem(key))


def test_a_chain_that_bears_the_right_name_and_did_not_sign_is_refused():
    authority, signer = issue(["Intermediate"])
    certificate, key = issue(["example.com"], issuer="Intermediate", signed_by=signer)
    assert inspect(certificate + authority, pem(key), ["example.com"], "tls", NOW)["days_left"] == 90
    renewed, _ = issue(["Intermediate"])
    assert "not in order" in refused(certificate + renewed, pem(key))


def test_a_chain_that_expired_is_refused():
    authority, signer = issue(["Intermediate"], end=NOW)
    certificate, key = issue(["example.com"], issuer="Intermediate", signed_by=signer)
    said = refused(certificate + authority, pem(key))
    assert "in the chain of the certificate for example.com, CN=Intermediate expired on 2026-11-23" in said


def test_what_is_no_pem_is_refused():
    certificate, key = issue(["example.com"])
    assert refused(" ", pem(key)).startswith("tls_certificate is not set")
    assert refused(certificate, "").startswith("tls_private_key is not set")
    assert refused("nonsense", pem(key)) == "tls_certificate holds no PEM certificate"
    assert refused(certificate, "nonsense") == "tls_private_key holds no PEM private key"
    assert "passphrase" in refused(certificate, pem(key, BestAvailableEncryption(b"x")))


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*.example.com", "www.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.b.example.com", False),
        ("Example.com", "example.COM", True),
    ],
)
def test_a_star_covers_one_label(pattern, name, expected):
    assert covers(pattern, name) is expected
