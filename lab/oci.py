"""Images to release, made without any to begin with: a base out of the lab's hosts, the app's requirements, the app.

Three layers, so that a changed app changes the last one. The first two are kept under .cache/oci. What is made of one
artifact is the same bytes each time.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import os
import shutil
import ssl
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lab import engine
from lab.state import ROOT, LabError

CACHE = ROOT / ".cache" / "oci"
LOCK = ROOT / "examples" / "bookshop" / "requirements.lock"
ASGI = ROOT / "lab" / "asgi.lock"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
INDEX = "application/vnd.oci.image.index.v1+json"
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
# Of a host: a shell, Python, flock, the libraries of all of them, and what Celery asks of the clock.
BASE = """
cd / && tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
  bin lib lib64 sbin usr/bin/sh usr/bin/dash usr/bin/env usr/bin/flock usr/bin/nice usr/bin/python3 usr/bin/python3.11 \
  usr/lib/python3 usr/lib/python3.11 usr/lib64 $(ls -d usr/lib/*-linux-gnu*/*.so*) usr/lib/locale/C.utf8 \
  usr/share/zoneinfo/UTC usr/share/zoneinfo/Etc/UTC \
  etc/ld.so.cache etc/ld.so.conf etc/ld.so.conf.d etc/nsswitch.conf etc/ssl/openssl.cnf etc/passwd etc/group
"""
COMMAND = ("gunicorn", "config.wsgi:application", "--bind", "0.0.0.0:8000", "--workers", "2")
PACKAGES = "usr/local/lib/python3.11/dist-packages"
PROGRAMS = {
    "gunicorn": "from gunicorn.app.wsgiapp import run\n\nrun()\n",
    "celery": "from celery.__main__ import main\n\nmain()\n",
}


@dataclass(frozen=True)
class Blob:
    """Bytes that are called by their digest; of a layer, that of what it unpacks to as well."""

    data: bytes
    unpacked: str = ""

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.data).hexdigest()

    def told(self, kind: str) -> dict[str, Any]:
        return {"mediaType": kind, "size": len(self.data), "digest": self.digest}


@dataclass
class Image:
    """Layers, and what the image says of itself."""

    layers: list[Blob]
    command: list[str] = field(default_factory=lambda: list(COMMAND))
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/app"
    revision: str = ""

    def config(self) -> Blob:
        said = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "config": {
                "Env": [
                    "PATH=/usr/local/bin:/usr/bin:/bin",
                    *(f"{name}={value}" for name, value in self.environment.items()),
                ],
                "WorkingDir": self.workdir,
                "Labels": {"org.opencontainers.image.revision": self.revision},
                **({"Cmd": self.command} if self.command else {}),
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.unpacked for layer in self.layers]},
        }
        return Blob(json.dumps(said, sort_keys=True).encode())

    def manifest(self) -> Blob:
        said = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.config().told(CONFIG),
            "layers": [layer.told(LAYER) for layer in self.layers],
        }
        return Blob(json.dumps(said, sort_keys=True).encode())


def layer(tar: bytes) -> Blob:
    return Blob(gzip.compress(tar, 1, mtime=0), "sha256:" + hashlib.sha256(tar).hexdigest())


def _kept(name: str, make: Any) -> Blob:
    """A layer that is made once."""
    path = CACHE / f"{name}.tar.gz"
    if not path.is_file():
        made = layer(make())
        CACHE.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".half")
        half.write_bytes(made.data)
        half.replace(path)
    data = path.read_bytes()
    return Blob(data, "sha256:" + hashlib.sha256(gzip.decompress(data)).hexdigest())


def base(host_image: str) -> Blob:
    """The bottom layer, of the image that lab hosts are started from."""
    known = hashlib.sha256((engine.inspect("image", [host_image])[0]["Id"] + BASE).encode()).hexdigest()[:16]

    def make() -> bytes:
        words = ["docker", "run", "--rm", "--network=none", "--entrypoint=/bin/sh", host_image, "-ec", BASE]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode:
            raise LabError(f"The base of images could not be taken of {host_image}: {done.stderr.decode()[-500:]}")
        return done.stdout

    return _kept(f"base-{known}", make)


def requirements(lock: Path = LOCK) -> Blob:
    """What the bookshop needs, or another lock file lists, installed for the base's Python."""

    def make() -> bytes:
        own = ROOT / ".cache/uv/bin/uv"
        uv = str(own) if own.exists() else shutil.which("uv")
        if uv is None:
            raise LabError("uv is not here: run bin/setup first.")
        with tempfile.TemporaryDirectory() as scratch:
            venv = Path(scratch) / "venv"
            python = str(venv / "bin" / "python")
            for words in (
                [uv, "venv", "--quiet", "--no-config", "--python", "3.11", str(venv)],
                [uv, "pip", "sync", "--quiet", "--no-config", "--require-hashes", "--python", python, str(lock)],
                [python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(venv / "lib")],
            ):
                subprocess.run(words, check=True)
            return _tar(next(venv.glob("lib/python3.11/site-packages")), PACKAGES, programs=True)

    return _kept(f"requirements-{hashlib.sha256(lock.read_bytes() + repr(PROGRAMS).encode()).hexdigest()[:16]}", make)


def app(artifact: Path, **files: str) -> Blob:
    """The top layer: an artifact's content below /app, and files of the test's own by their whole path."""
    buffer = io.BytesIO()
    with tarfile.open(artifact) as source, tarfile.open(fileobj=buffer, mode="w") as target:
        for member in source:
            content = source.extractfile(member) if member.isreg() else None
            member.name, member.mtime, member.uid, member.gid = f"app/{member.name}", 0, 0, 0
            target.addfile(member, content)
        for name, text in files.items():
            _add(target, name, text.encode(), 0o644)
    return layer(buffer.getvalue())


def _tar(directory: Path, prefix: str, programs: bool = False) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(directory.rglob("*")):
            if path.is_file() and not path.is_symlink():
                _add(archive, f"{prefix}/{path.relative_to(directory)}", path.read_bytes(), 0o644)
        for name, text in PROGRAMS.items() if programs else ():
            _add(archive, f"usr/local/bin/{name}", f"#!/usr/bin/python3\n{text}".encode(), 0o755)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    archive.addfile(member, io.BytesIO(data))


class Registry:
    """Pushes to a registry over its HTTP interface."""

    def __init__(self, host: str, ca: str, user: str, password: str) -> None:
        self.host = host
        self.context = ssl.create_default_context(cafile=ca)
        self.credentials = base64.b64encode(f"{user}:{password}".encode()).decode()

    def ask(self, method: str, path: str, data: bytes | None = None, kind: str = "application/octet-stream") -> Any:
        address = path if path.startswith("https://") else f"https://{self.host}/v2/{path}"
        request = urllib.request.Request(address, data=data, method=method)  # noqa: S310 (https alone)
        request.add_header("Authorization", f"Basic {self.credentials}")
        if data is not None:
            request.add_header("Content-Type", kind)
        return urllib.request.urlopen(request, context=self.context, timeout=60)  # noqa: S310

    def has(self, repository: str, blob: Blob) -> bool:
        try:
            self.ask("HEAD", f"{repository}/blobs/{blob.digest}").close()
        except urllib.error.HTTPError:
            return False
        return True

    def push_blob(self, repository: str, blob: Blob) -> None:
        if self.has(repository, blob):
            return
        with self.ask("POST", f"{repository}/blobs/uploads/", b"") as begun:
            place = str(begun.headers["Location"])
        self.ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={blob.digest}", blob.data).close()

    def push(self, repository: str, tag: str, image: Image) -> str:
        """Push an image, and give the digest by which it is known."""
        for blob in (*image.layers, image.config()):
            self.push_blob(repository, blob)
        manifest = image.manifest()
        self.ask("PUT", f"{repository}/manifests/{tag}", manifest.data, MANIFEST).close()
        return manifest.digest

    def put(self, repository: str, tag: str, kind: str, said: dict[str, Any], *blobs: Blob) -> str:
        """Push a manifest and what it names; returns its digest."""
        for blob in blobs:
            self.push_blob(repository, blob)
        manifest = Blob(json.dumps({"schemaVersion": 2, "mediaType": kind, **said}).encode())
        self.ask("PUT", f"{repository}/manifests/{tag or manifest.digest}", manifest.data, kind).close()
        return manifest.digest

    def sign(self, repository: str, digest: str, *signatures: tuple[Blob, str]) -> None:
        """Attach payloads with their signatures as `cosign sign` does, by a tag that the digest gives."""
        config = Blob(json.dumps({"architecture": "", "os": "", "rootfs": {"type": "layers", "diff_ids": []}}).encode())
        layers = [{**one.told(SIMPLE), "annotations": {SIGNATURE: signature}} for one, signature in signatures]
        said = {"config": config.told(CONFIG), "layers": layers}
        self.put(repository, f"{digest.replace(':', '-')}.sig", MANIFEST, said, config, *(one for one, _ in signatures))

    def attest(self, repository: str, digest: str, content: bytes) -> None:
        """Attach a bundle as `cosign sign` does since 3.0, where a registry does not list referrers itself."""
        empty, layer = Blob(b"{}"), Blob(content)
        said = {
            "artifactType": BUNDLE, "config": empty.told("application/vnd.oci.empty.v1+json"),
            "layers": [layer.told(BUNDLE)], "subject": {"mediaType": MANIFEST, "digest": digest, "size": 0},
        }  # fmt: skip
        found = self.put(repository, "", MANIFEST, said, empty, layer)
        entry = {"mediaType": MANIFEST, "digest": found, "size": 0, "artifactType": BUNDLE}
        self.put(repository, digest.replace(":", "-"), INDEX, {"manifests": [entry]})


def payload(name: str, digest: str) -> bytes:
    """What `cosign sign` signs of an image: its repository and its digest."""
    critical = {
        "identity": {"docker-reference": name},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    return json.dumps({"critical": critical, "optional": None}, separators=(",", ":")).encode()


def signed(key: ec.EllipticCurvePrivateKey, content: bytes) -> str:
    """A signature as cosign writes it."""
    return base64.b64encode(key.sign(content, ec.ECDSA(hashes.SHA256()))).decode()


def bundle(key: ec.EllipticCurvePrivateKey, digest: str, kind: str = "https://sigstore.dev/cosign/sign/v1") -> bytes:
    """A bundle of sigstore: a statement of in-toto about an image, in an envelope of DSSE."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1", "subject": [{"digest": {"sha256": digest.partition(":")[2]}}],
        "predicateType": kind, "predicate": {},
    }  # fmt: skip
    said, of = json.dumps(statement).encode(), "application/vnd.in-toto+json"
    signature = signed(key, b"DSSEv1 %d %s %d %s" % (len(of), of.encode(), len(said), said))
    whole = {
        "mediaType": BUNDLE, "verificationMaterial": {"publicKey": {"hint": ""}},
        "dsseEnvelope": {
            "payload": base64.b64encode(said).decode(), "payloadType": of, "signatures": [{"sig": signature}],
        },
    }  # fmt: skip
    return json.dumps(whole).encode()


def public_key(key: ec.EllipticCurvePrivateKey) -> str:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, kind).decode()
