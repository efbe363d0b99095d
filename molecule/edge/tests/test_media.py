"""Media in object storage: a real S3 server, the playbook that makes the bucket, and the bookshop's own settings."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.contracts.sources import ROOT
from tests.local.test_bookshop import run  # noqa: F401

BUCKET = "bookshop-media"
PLAYBOOK = ROOT / "playbooks" / "media_bucket.yml"
STORE = """
import json, django
django.setup()
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
first = default_storage.save("covers/front.png", ContentFile(b"png"))
second = default_storage.save("covers/front.png", ContentFile(b"other"))
print(json.dumps({"first": first, "second": second, "url": default_storage.url(first)}))
"""


@pytest.fixture(scope="module")
def storage():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(sys.executable).with_name("moto_server")
    process = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(address, timeout=1).close()
            break
        except urllib.error.HTTPError:
            break
        except OSError:
            assert time.monotonic() < deadline, "the S3 server does not answer"
            time.sleep(0.2)
    yield address
    process.terminate()
    process.wait(10)


def make(storage: str, tmp_path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("app: {hosts: {app1: {}}}\n")
    variables = {"app_media_bucket": BUCKET, "app_media_endpoint": storage}
    program = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [program, "-i", inventory, PLAYBOOK, "-e", json.dumps(variables), *more],
        cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "AWS_ACCESS_KEY_ID": "admin", "AWS_SECRET_ACCESS_KEY": "secret"},
    )  # fmt: skip


def test_the_bucket_is_closed_and_forgets(storage: str, tmp_path: Path) -> None:
    import boto3

    nameless = make(storage, tmp_path, "-e", "app_media_bucket=")
    assert nameless.returncode != 0
    assert "which is no name of a bucket" in " ".join(nameless.stdout.split())
    first = make(storage, tmp_path)
    assert first.returncode == 0, first.stdout
    assert "changed=2" in first.stdout
    assert "changed=0" in make(storage, tmp_path).stdout
    client = boto3.client(
        "s3", endpoint_url=storage, region_name="us-east-1", aws_access_key_id="admin", aws_secret_access_key="secret"
    )
    closed = client.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert len(closed) == 4
    assert all(closed.values())
    assert client.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    (rule,) = client.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert rule["Status"] == "Enabled"
    assert rule["NoncurrentVersionExpiration"]["NoncurrentDays"] == 30
    assert rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 7


def test_the_bookshop_keeps_covers_there_and_signs_their_addresses(storage: str, tmp_path: Path, run) -> None:  # noqa: F811
    assert make(storage, tmp_path).returncode == 0
    told = run(
        "python", "-c", STORE,
        DJANGO_SETTINGS_MODULE="config.settings", DJANGO_SECRET_KEY="x", DATABASE_URL="sqlite://:memory:",
        MEDIA_BACKEND="s3", MEDIA_S3_BUCKET=BUCKET, MEDIA_S3_REGION="us-east-1", MEDIA_S3_ENDPOINT_URL=storage,
        AWS_ACCESS_KEY_ID="app", AWS_SECRET_ACCESS_KEY="only-the-apps-own",
    )  # fmt: skip
    stored = json.loads(told.strip().splitlines()[-1])
    # Nothing is overwritten.
    assert stored["first"] != stored["second"]
    url = stored["url"]
    assert url.startswith(f"{storage}/")
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    assert "X-Amz-Signature=" in url
    assert "X-Amz-Expires=600" in url
    assert "only-the-apps-own" not in url
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        assert answer.read() == b"png"
