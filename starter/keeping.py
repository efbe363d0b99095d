"""What is secret: passwords and keys are made here, and kept where git does not look, or in git vaulted one by one.

Names stay readable in vault.yml, values do not. So a change says which secret changed, and who only deploys (CI) reads
the variables without the vault's password. See docs/ops/decisions/0035.
"""

from __future__ import annotations

import datetime
import os
import secrets
import string
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from starter.answers import Wrong

# The certificate of the host's own database and Redis. Its authority's key is thrown away: nothing renews it.
YEARS = 10


class _Loader(yaml.SafeLoader):
    """Reads which names are there; vaulted values stay as they are."""


_Loader.add_constructor("!vault", lambda _loader, node: _Vaulted(str(node.value)))


class _Vaulted(str):
    """A value that only the password opens."""


class Vault:
    """group_vars/<environment>/vault.yml, to which is only ever added, and its password's file."""

    def __init__(self, file: Path, password_file: Path, environment: str) -> None:
        self.file, self.password_file, self.environment = file, password_file, environment
        text = file.read_text() if file.is_file() else ""
        if text.startswith("$ANSIBLE_VAULT"):
            raise Wrong(
                f"{file} is encrypted as a whole: open it (ansible-vault decrypt), vault each value in it"
                " (ansible-vault encrypt_string), and start again"
            )
        self.text = text
        self.known: dict[str, Any] = yaml.load(text, Loader=_Loader) or {} if text else {}  # noqa: S506
        self.added: dict[str, tuple[str, bool]] = {}
        vaulted = [value for value in self.known.values() if isinstance(value, _Vaulted)]
        if vaulted and not password_file.is_file():
            raise Wrong(f"{file} is there, and its password is not: put it into {password_file}")
        self.new = not password_file.is_file()
        self.password = secrets.token_urlsafe(32) if self.new else password_file.read_text().strip()
        self.secret = VaultSecret(self.password.encode())
        self.lib = VaultLib([(environment, self.secret)])
        if vaulted:
            try:
                self.lib.decrypt(vaulted[0])
            except AnsibleError:
                raise Wrong(f"{password_file} does not open {file}: it is another vault's password") from None

    def add(self, name: str, value: str, secret: bool = True) -> bool:
        """Add a value unless its name is there already; say whether it was added."""
        if name in self.known or name in self.added:
            return False
        self.added[name] = (value, secret)
        return True

    def has(self, name: str) -> bool:
        return name in self.known

    def render(self) -> str:
        head = (
            "---\n# Each secret by itself: names are readable, values are not. To add one, or to replace one:\n"
            f"#   ansible-vault encrypt_string --encrypt-vault-id {self.environment} --stdin-name vault_…\n"
        )
        text = self.text or head
        for name, (value, secret) in self.added.items():
            body, tag = (value, "|")
            if secret:
                body, tag = self.lib.encrypt(value, self.secret, vault_id=self.environment).decode(), "!vault |"
            text += f"{name}: {tag}\n" + "".join(f"  {line}\n" for line in body.strip().splitlines())
        return text


def password() -> str:
    # Letters and digits only: it stands in URLs.
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(40))


def write_private(path: Path, text: str) -> None:
    """A file that only its owner reads, from its first moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def new_key(comment: str) -> tuple[str, str]:
    """An ssh key for the machine that deploys: private and public half."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), f"{public.decode()} {comment}"


def new_certificate(name: str) -> tuple[str, str, str]:
    """A certificate, and an authority that signs no other: authority, certificate and private key, as PEM."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Slipway: the host's own database and Redis")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    authority = _sign(issuer, issuer, authority_key.public_key(), authority_key, authority=True)
    server = _sign(subject, issuer, key.public_key(), authority_key, authority=False, name=name)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return _pem(authority), _pem(server), private.decode()


def _sign(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
    name: str = "",
) -> x509.Certificate:
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=0 if authority else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(_usage(authority), critical=True)
    )
    if not authority:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
        ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(signer, hashes.SHA256())


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
