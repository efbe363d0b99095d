"""Artifacts that are none, too much, or not what was announced, all the way from the deployer: one sentence, no change.

Every kind of them is tried against the code itself in tests/unit/test_hostile_artifacts.py; here, that the way there
holds too."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

INCOMING = "/opt/app/incoming"


@pytest.fixture(scope="module", autouse=True)
def nothing_changes(app1: Any, ops: Any, edge: Any, cargo: dict[str, Any]) -> Iterator[None]:
    """The same release serves, and nothing of the attempts is left where releases are made."""
    live = ops.have_live(edge, cargo["good-1"])
    before = seen(app1, ops)
    yield
    app1.run(f"rm -rf {INCOMING}/try-*")
    assert edge.get().release == live
    assert seen(app1, ops) == before


def seen(app1: Any, ops: Any) -> dict[str, Any]:
    status = ops.status()
    places = "/opt/app/releases /var/lib/app/staging /var/www/app/static /var/lib/app/generations"
    listing = app1.check_output(f"find {places} -not -path '*/venv/*' | sort | sha256sum")
    return {**{key: status[key] for key in ("live", "previous", "releases", "intent", "lease")}, "files": listing}


@pytest.fixture
def prepare(lab: dict[str, Any], ops: Any) -> Callable[..., dict[str, Any]]:
    def prepare(content: bytes, announced: bytes | None = None, *words: str) -> dict[str, Any]:
        name = f"try-{uuid.uuid4().hex[:12]}.tar.gz"
        ssh = ["ssh", "-F", lab["ssh_config"], "deployer@app1"]
        subprocess.run([*ssh, f"cat > {INCOMING}/{name}"], input=content, check=True, timeout=120)
        digest = hashlib.sha256(content if announced is None else announced).hexdigest()
        given = ["--id", "try-1", "--artifact", name, "--sha256", digest, *words]
        answer: dict[str, Any] = ops.releasectl("prepare", *given)
        return answer

    return prepare


def packed(*members: tuple[str, bytes, str, bytes]) -> bytes:
    """Members as (name, kind, link, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, link, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(content)
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(buffer.getvalue(), mtime=0)


FILE = ("manage.py", tarfile.REGTYPE, "", b"print()\n")


def many(count: int) -> bytes:
    """An archive of so many empty files, made faster than tarfile would."""
    info = tarfile.TarInfo("00000000")
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    rest = sum(block[8:148]) + sum(block[156:]) + 8 * 32
    blocks = bytearray()
    for number in range(count):
        block[:8] = b"%08d" % number
        block[148:156] = b"%06o\0 " % (rest + sum(block[:8]))
        blocks += block
    return gzip.compress(bytes(blocks) + bytes(1024), compresslevel=1)


def bomb(mebibytes: int) -> bytes:
    """A small file that unpacks to so much."""
    return packed(FILE) + gzip.compress(bytes(1 << 20), compresslevel=9) * mebibytes


def refused(answer: dict[str, Any]) -> str:
    assert answer["ok"] is False, answer
    assert answer["changed"] is False
    message = str(answer["message"])
    assert message.isprintable()
    assert 10 < len(message) < 400
    assert "Traceback" not in json.dumps(answer)
    return message


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(b"#!/bin/sh\n", "gzip", id="no-archive"),
        pytest.param(packed(FILE)[:-12], "truncated", id="truncated"),
        pytest.param(packed(FILE, ("/etc/cron.d/x", tarfile.REGTYPE, "", b"x")), "absolute", id="absolute"),
        pytest.param(packed(FILE, ("../../x", tarfile.REGTYPE, "", b"x")), "'..'", id="dot-dot"),
        pytest.param(packed(FILE, ("x", tarfile.SYMTYPE, "/etc/shadow", b"")), "link", id="link-that-leaves"),
        pytest.param(packed(FILE, ("x", tarfile.LNKTYPE, "manage.py", b"")), "hard link", id="hard-link"),
        pytest.param(packed(FILE, ("x", tarfile.CHRTYPE, "", b"")), "device", id="device"),
        pytest.param(packed(FILE, ("x", tarfile.FIFOTYPE, "", b"")), "special file", id="fifo"),
        pytest.param(packed(FILE, ("d/" * 40 + "x", tarfile.REGTYPE, "", b"x")), "deeper", id="too-deep"),
        pytest.param(lambda: many(200_000), "entries", id="200000-files", marks=pytest.mark.full),
        pytest.param(lambda: bomb(1_400), "bytes", id="bomb"),
        pytest.param(packed(FILE), "requirements.lock", id="no-requirements"),
    ],
)
def test_a_bad_artifact_gets_one_sentence(prepare: Any, content: bytes | Callable[[], bytes], why: str) -> None:
    assert why in refused(prepare(content() if callable(content) else content))


def test_another_artifact_than_announced_is_refused(prepare: Any) -> None:
    assert "not the one that was announced" in refused(prepare(packed(FILE), announced=b"another"))


def test_an_artifact_that_is_not_there_is_refused(ops: Any) -> None:
    words = ["--id", "try-1", "--artifact", "try-none.tar.gz", "--sha256", "0" * 64]
    assert "upload it first" in refused(ops.releasectl("prepare", *words))


@pytest.mark.failure("disk-full")
@pytest.mark.parametrize(
    ("place", "owner", "size"),
    [
        pytest.param("/var/lib/app/staging", "root", "4k", id="while-it-is-received"),
        pytest.param("/var/cache/app-build", "app-build", "1m", id="while-it-is-built"),
    ],
)
def test_a_full_disk_is_told_and_leaves_nothing(
    configured: Any, app1: Any, ops: Any, cargo: dict[str, Any], place: str, owner: str, size: str, prepare: Any
) -> None:
    """A small tmpfs stands in for the disk, and nobody looked at it before."""
    with tarfile.open(cargo["good-3"]["artifact"]) as artifact:
        lock = artifact.extractfile("requirements.lock")
        assert lock
        # A lock of its own, or there would be nothing to build.
        content = packed(FILE, ("requirements.lock", tarfile.REGTYPE, "", b"# full\n" + lock.read()))
    configured(disk_check=False)
    app1.check_output(
        f"mkdir -p {place} && mount -t tmpfs -o size={size},mode=0700 full {place} && chown {owner} {place}"
    )
    try:
        message = refused(prepare(content))
    finally:
        app1.check_output(f"umount {place}")
    assert "space" in message.lower() or "os error 28" in message.lower()


@pytest.mark.failure("disk-full")
@pytest.mark.parametrize(
    ("bound", "said"),
    [("free_min_bytes", "are free"), ("memory_min_bytes", "MiB are available, free swap included (of the host)")],
)
def test_too_little_room_is_told_before_anything_is_done(configured: Any, prepare: Any, bound: str, said: str) -> None:
    """What is free is looked at first: the bound is set above what any host has."""
    configured(**{bound: 10**18})
    assert said in refused(prepare(packed(FILE)))


@pytest.mark.failure("two-deployers")
def test_while_somebody_deploys_nobody_else_does(ops: Any, prepare: Any) -> None:
    lease = ops.releasectl("lock", "--purpose", "a-deploy-of-mine")
    try:
        message = refused(prepare(packed(FILE)))
        assert "deployer" in message
        assert "a-deploy-of-mine" in message
        assert "since" in message
    finally:
        assert ops.releasectl("unlock", "--token", lease["token"])["ok"]
