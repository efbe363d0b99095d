"""The certificate is in place for the edge alone, and one that cannot be served changes nothing."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.outside import play, secrets

CERTIFICATE = "/etc/slipway/tls/live/fullchain.pem"
KEY = "/etc/slipway/tls/live/privkey.pem"
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def make(name: str, start: datetime.datetime, end: datetime.datetime) -> dict[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject).issuer_name(subject)
        .not_valid_before(start).not_valid_after(end)
        .serial_number(x509.random_serial_number()).public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    return {
        "tls_certificate": certificate.public_bytes(Encoding.PEM).decode(),
        "tls_private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    }


def test_the_certificate_verifies_against_the_authority_for_the_apps_name(lab, app1, tmp_path: Path):
    (tmp_path / "served.pem").write_text(app1.file(CERTIFICATE).content_string)
    verified = subprocess.run(
        ["openssl", "verify", "-CAfile", lab["ca"], "-verify_hostname", lab["edge_name"], str(tmp_path / "served.pem")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert verified.returncode == 0, verified.stderr


def test_the_key_belongs_to_it(app1):
    from_key = app1.check_output(f"openssl pkey -in {KEY} -pubout")
    assert from_key == app1.check_output(f"openssl x509 -in {CERTIFICATE} -noout -pubkey")


def test_only_root_reads_the_key(app1):
    assert (app1.file(KEY).user, app1.file(KEY).mode) == ("root", 0o600)
    for user in ("ops", "nobody", "www-data"):
        assert app1.run(f"runuser -u {user} -- cat {KEY}").rc != 0
    assert app1.run(f"runuser -u nobody -- cat {CERTIFICATE}").rc == 0


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (make("bookshop.localhost", NOW - 9 * DAY, NOW - DAY), "expired on"),
        (make("bookshop.localhost", NOW + DAY, NOW + 9 * DAY), "clock"),
        (make("bookshop.example", NOW - DAY, NOW + 90 * DAY), "does not cover bookshop.localhost"),
        ({"tls_certificate": "nonsense"}, "tls_certificate holds no PEM certificate"),
        ({"tls_certificate": ""}, "tls_certificate is not set"),
        (
            {"tls_private_key": make("bookshop.localhost", NOW - DAY, NOW + DAY)["tls_private_key"]},
            "is not the key of the certificate",
        ),
    ],
    ids=["expired", "of tomorrow", "for another name", "no certificate", "nothing", "key of another pair"],
)
def test_one_that_cannot_be_served_is_refused_before_anything_changes(lab, app1, variables, sentence):
    before = app1.check_output(f"sha256sum {CERTIFICATE} {KEY}")
    done = play(lab, "molecule/tls/converge.yml", "--diff", **variables)
    assert done.returncode != 0
    assert sentence in " ".join(done.stdout.split())
    assert app1.check_output(f"sha256sum {CERTIFICATE} {KEY}") == before


def test_the_key_is_never_printed(lab, app1):
    app1.check_output(f"sh -c ': >{KEY}'")
    done = play(lab, "molecule/tls/converge.yml", "--diff", "-vvv")
    assert done.returncode == 0
    body = secrets(lab)["app1_private_key"].splitlines()[1]
    assert body not in done.stdout + done.stderr
    assert body in app1.file(KEY).content_string
