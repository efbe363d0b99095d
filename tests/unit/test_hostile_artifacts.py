"""What a deployer uploads is hostile input: whatever it is, one sentence refuses it and nothing of it stays."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import json
import os
import random
import socket
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from releasectl import artifact, build, cli, names
from releasectl.artifact import Limits
from releasectl.config import Config
from releasectl.errors import Refusal
from releasectl.hooks import Hooks

LIMITS = Limits(artifact_bytes=20_000_000, bytes=1_000_000, entries=1000, depth=10)


def member(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"x", **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o644
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def tar(*members: tarfile.TarInfo, form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info in members:
            archive.addfile(info, io.BytesIO(b"x" * info.size) if info.isreg() else None)
    return buffer.getvalue()


def packed(*members: tarfile.TarInfo, form: int = tarfile.GNU_FORMAT) -> bytes:
    return gzip.compress(tar(*members, form=form), mtime=0)


GOOD = (member("manage.py", mode=0o755), member("config", tarfile.DIRTYPE, mode=0o755), member("config/wsgi.py"))


def sentence(message: str) -> str:
    """One line for a person: no traceback, nothing that moves the cursor, not a screenful."""
    assert "\n" not in message
    assert message.isprintable(), repr(message)
    assert "Traceback" not in message
    assert 10 < len(message) < 400, len(message)
    assert message[0].isupper() or message[0] in "'\"", message
    assert message.rstrip()[-1] in ".)", message
    return message


@pytest.fixture
def unpack(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Unpack bytes into a fresh root; afterwards nothing outside of the roots may have appeared."""
    numbers = itertools.count()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("untouched")
    roots = tmp_path / "roots"
    roots.mkdir()

    def unpack(content: bytes, limits: Limits = LIMITS) -> Path:
        archive = tmp_path / "archive"
        archive.write_bytes(content)
        root = roots / str(next(numbers))
        artifact.unpack(archive, root, limits)
        return root

    yield unpack
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive", "outside", "roots"]
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"victim": "untouched"}
    for path in roots.rglob("*"):
        assert path.is_dir() or path.is_symlink() or path.is_file()


def refused(unpack: Callable[..., Path], content: bytes, limits: Limits = LIMITS) -> str:
    with pytest.raises(Refusal) as refusal:
        unpack(content, limits)
    assert refusal.value.exit_status == 1
    return sentence(refusal.value.message)


# What is no archive


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("manage.py", "x")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x1f\x8b", id="two-bytes-of-gzip"),
        pytest.param(b"#!/bin/sh\nrm -rf /\n", id="a-script"),
        pytest.param(tar(*GOOD), id="a-tar-not-compressed"),
        pytest.param(zipped(), id="a-zip"),
        pytest.param(gzip.compress(b""), id="gzip-of-nothing"),
        pytest.param(gzip.compress(b"hello\n" * 1000), id="gzip-of-text"),
        pytest.param(gzip.compress(gzip.compress(tar(*GOOD))), id="gzip-of-gzip"),
        pytest.param(gzip.compress(b"\0" * 10240), id="an-empty-tar"),
        pytest.param(gzip.compress(os.urandom(4096)), id="gzip-of-noise"),
    ],
)
def test_what_is_no_archive_is_refused(unpack: Callable[..., Path], content: bytes) -> None:
    refused(unpack, content)


def test_a_good_archive_is_taken(unpack: Callable[..., Path]) -> None:
    """Without this one the others would prove nothing."""
    root = unpack(packed(*GOOD, member("config/link", tarfile.SYMTYPE, linkname="../manage.py")))
    assert (root / "config" / "wsgi.py").read_bytes() == b"x"
    assert stat.S_IMODE((root / "manage.py").stat().st_mode) == 0o755
    assert stat.S_IMODE((root / "config" / "wsgi.py").stat().st_mode) == 0o644
    assert (root / "config" / "link").resolve() == (root / "manage.py").resolve()


def test_truncated_anywhere_is_refused(unpack: Callable[..., Path]) -> None:
    noise = b"".join(random.Random(1).randbytes(1000) for _ in range(20))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number in range(20):
            archive.addfile(member(f"f{number}", content=noise[:1000]), io.BytesIO(noise[number * 1000 :]))
    whole = buffer.getvalue()
    unpack(whole)
    for length in [2, 9, 11, *range(50, len(whole) - 8, 331), len(whole) - 9, len(whole) - 8, len(whole) - 1]:
        assert "truncated" in refused(unpack, whole[:length]), length


def test_damaged_anywhere_is_refused_or_whole(unpack: Callable[..., Path]) -> None:
    """Bits turned over in the compressed file: gzip's checksum tells."""
    whole = packed(*GOOD, *(member(f"f{number}", content=b"y" * 700) for number in range(20)))
    dice = random.Random(2)
    for _ in range(200):
        broken = bytearray(whole)
        broken[dice.randrange(len(broken))] ^= 1 << dice.randrange(8)
        try:
            unpack(bytes(broken))
        except Refusal as refusal:
            sentence(refusal.message)


def test_no_crafted_header_gets_past_as_anything_but_a_refusal(unpack: Callable[..., Path]) -> None:
    """Bytes turned over inside, with checksums made right again: the archive itself lies."""
    members = (
        *GOOD,
        member("long/" + "n" * 150),
        member("link", tarfile.SYMTYPE, linkname="manage.py"),
        member("hard", tarfile.LNKTYPE, linkname="manage.py"),
        member("ünï", pax_headers={"comment": "c" * 600}),
    )
    for form, seed in itertools.product((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT), range(200)):
        dice = random.Random(seed)
        lying = bytearray(tar(*members[: dice.randint(3, 7)], form=form))
        for _ in range(dice.randint(1, 4)):
            block = dice.randrange(len(lying) // 512 - 1) * 512
            lying[block + dice.randrange(512)] = dice.choice([0, 0x2F, 0x2E, 0x30, 0x35, 0x37, 0x4C, 0x78, 0x80, 0xFF])
            header = lying[block : block + 512]
            total = sum(header[:148]) + sum(header[156:]) + 8 * 32
            lying[block + 148 : block + 156] = b"%06o\0 " % total
        try:
            unpack(gzip.compress(bytes(lying), compresslevel=1))
        except Refusal as refusal:
            sentence(refusal.message)


# What leads out


@pytest.mark.parametrize(
    "name",
    [
        "/etc/cron.d/x",
        "//etc/x",
        "../outside/x",
        "a/../../outside/x",
        "a/..",
        "..",
        "./../x",
        "a\nb",
        "a\x1b[2Jb",
        "a\rb",
    ],
)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_that_lead_out_or_lie_are_refused(unpack: Callable[..., Path], name: str, form: int) -> None:
    refused(unpack, packed(*GOOD, member(name), form=form))


def test_a_pax_header_cannot_smuggle_another_name(unpack: Callable[..., Path]) -> None:
    for headers in ({"path": "/etc/x"}, {"path": "../x"}, {"path": "a/../../x"}):
        refused(unpack, packed(*GOOD, member("harmless", pax_headers=headers), form=tarfile.PAX_FORMAT))
    smuggled = member("harmless", tarfile.SYMTYPE, linkname="manage.py", pax_headers={"linkpath": "/etc/passwd"})
    refused(unpack, packed(*GOOD, smuggled, form=tarfile.PAX_FORMAT))


@pytest.mark.parametrize(
    "target",
    ["/etc/passwd", "../outside/victim", "../../outside/victim", "config/../../outside", "a/b/../../../x", ".."],
)
def test_links_that_leave_are_refused(unpack: Callable[..., Path], target: str) -> None:
    why = refused(unpack, packed(*GOOD, member("link", tarfile.SYMTYPE, linkname=target)))
    assert "link" in why


def test_a_link_cannot_leave_by_way_of_another(unpack: Callable[..., Path]) -> None:
    refused(
        unpack,
        packed(
            member("a/b/c", tarfile.DIRTYPE),
            member("deep", tarfile.SYMTYPE, linkname="a/b/c"),
            member("a/out", tarfile.SYMTYPE, linkname="../deep/../../../../outside"),
        ),
    )
    # By its letters this one stays, but it starts from where the first link leads.
    root = unpack(
        packed(
            member("a/b", tarfile.DIRTYPE),
            member("x/y/up", tarfile.SYMTYPE, linkname="../.."),
            member("a/b/far", tarfile.SYMTYPE, linkname="../../x/y/up/a"),
        )
    )
    for path in root.rglob("*"):
        assert path.resolve().is_relative_to(root.resolve()), path


def test_nothing_is_written_through_a_link(unpack: Callable[..., Path]) -> None:
    inside = member("door", tarfile.SYMTYPE, linkname="config")
    assert "beneath a link" in refused(unpack, packed(*GOOD, inside, member("door/x")))
    assert "beneath a link" in refused(unpack, packed(*GOOD, inside, member("door/x/y", tarfile.DIRTYPE)))
    assert "twice" in refused(unpack, packed(*GOOD, inside, member("door")))
    assert "twice" in refused(unpack, packed(*GOOD, inside, member("door", tarfile.DIRTYPE)))
    assert "beneath a file" in refused(unpack, packed(*GOOD, member("manage.py/x")))


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "special file"),
        (b"Z", "special file"),
        (tarfile.CONTTYPE, None),
    ],
)
def test_only_files_directories_and_links(unpack: Callable[..., Path], kind: bytes, what: str | None) -> None:
    odd = member("odd", kind, linkname="manage.py", devmajor=1, devminor=3)
    if what is None:
        # What tar itself takes for a plain file may come as one, and as nothing else.
        root = unpack(packed(*GOOD, odd))
        assert stat.S_ISREG((root / "odd").lstat().st_mode)
    else:
        assert what in refused(unpack, packed(*GOOD, odd))


def test_sparse_files_are_refused(unpack: Callable[..., Path]) -> None:
    sparse = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "900000000000"}
    refused(unpack, packed(*GOOD, member("sparse", content=b"1\n0\n0\n", pax_headers=sparse), form=tarfile.PAX_FORMAT))


def test_modes_and_owners_are_ours(unpack: Callable[..., Path]) -> None:
    old = os.umask(0o077)
    try:
        root = unpack(
            packed(
                member("root", tarfile.DIRTYPE, mode=0o7777),
                member("root/suid", mode=0o6755, uid=0, gid=0, uname="root"),
                member("root/world", mode=0o1666, uid=12345),
                member("root/none", mode=0),
            )
        )
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (root / "root").iterdir()}
    assert modes == {"suid": 0o755, "world": 0o644, "none": 0o644}
    assert {path.stat().st_uid for path in root.rglob("*")} == {os.getuid()}
    assert not {path for path in root.rglob("*") if path.stat().st_mode & 0o7022}


def test_nothing_comes_twice(unpack: Callable[..., Path]) -> None:
    for other in ("manage.py", "./manage.py", "config/../manage.py", "manage.py/"):
        refused(unpack, packed(*GOOD, member(other)))
    refused(unpack, packed(*GOOD, member("config")))
    refused(unpack, packed(*GOOD, member("manage.py", tarfile.DIRTYPE)))
    unpack(packed(*GOOD, member("config", tarfile.DIRTYPE)))


# What is too much


def many(count: int) -> bytes:
    """An archive of many empty files, made faster than tarfile would."""
    block = bytearray(member("00000000", content=b"").tobuf(tarfile.GNU_FORMAT))
    base = sum(block[8:148]) + sum(block[156:]) + 8 * 32
    blocks = bytearray()
    for number in range(count):
        block[:8] = b"%08d" % number
        block[148:156] = b"%06o\0 " % (base + sum(block[:8]))
        blocks += block
    return gzip.compress(bytes(blocks) + bytes(1024), compresslevel=1)


def test_200_000_files_are_refused_at_the_limit(unpack: Callable[..., Path], tmp_path: Path) -> None:
    content = many(200_000)
    limits = Limits(artifact_bytes=200_000_000, bytes=1 << 30, entries=2_000, depth=32)
    assert "2000" in refused(unpack, content, limits)
    assert sum(1 for _ in (tmp_path / "roots").rglob("*")) <= 2_001


def test_bytes_beyond_the_limit_are_refused(unpack: Callable[..., Path], tmp_path: Path) -> None:
    assert "bytes" in refused(unpack, packed(*GOOD, member("big", content=b"z" * 1_000_001)))
    assert "bytes" in refused(unpack, packed(*(member(f"f{n}", content=b"z" * 300_000) for n in range(4))))
    assert sum(path.stat().st_size for path in (tmp_path / "roots").rglob("*") if path.is_file()) <= 1_000_000


def test_a_bomb_is_refused_before_anything_is_unpacked(unpack: Callable[..., Path], tmp_path: Path) -> None:
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=1, mtime=0) as zipped_stream:
        zipped_stream.write(tar(*GOOD)[: 3 * 1024])
        for _ in range(100):
            zipped_stream.write(bytes(1 << 20))
    assert "bytes" in refused(unpack, bomb.getvalue())
    # The same in many gzip members, each of them harmless.
    part = gzip.compress(bytes(1 << 20), compresslevel=1)
    assert "bytes" in refused(unpack, gzip.compress(tar(*GOOD)) + part * 100)


def test_depth_and_length_of_names_are_bounded(unpack: Callable[..., Path]) -> None:
    unpack(packed(member("/".join("d" * 10))))
    assert "deeper" in refused(unpack, packed(member("/".join("d" * 11))))
    assert "255" in refused(unpack, packed(member("n" * 256)))
    assert "255" in refused(unpack, packed(member("ü" * 128)))
    refused(unpack, packed(member("d/" * 3000 + "x")))
    refused(unpack, packed(*GOOD, member("n" * 200_000)))


def test_headers_that_promise_headers_for_ever_are_refused(unpack: Callable[..., Path]) -> None:
    extended = member("x", tarfile.XHDTYPE)
    extended.size = 0
    longname = member("x", tarfile.GNUTYPE_LONGNAME)
    longname.size = 0
    for header in (extended.tobuf(tarfile.GNU_FORMAT), longname.tobuf(tarfile.GNU_FORMAT)):
        refused(unpack, gzip.compress(header * 5000 + tar(*GOOD)))


def test_a_header_as_long_as_a_file_is_not_read_into_memory(unpack: Callable[..., Path]) -> None:
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        header = member("x", kind)
        header.size = 900_000
        why = refused(unpack, gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + b"a" * 900_096 + tar(*GOOD)))
        assert "header" in why


def test_numbers_that_are_none_are_refused(unpack: Callable[..., Path]) -> None:
    for size in (b"\xff" * 12, b"\x80" + b"\xff" * 11, b"7" * 11 + b"\0", b"-0000000001\0"):
        header = bytearray(member("x").tobuf(tarfile.GNU_FORMAT))
        header[124:136] = size
        header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 8 * 32)
        refused(unpack, gzip.compress(bytes(header) + bytes(4096)))
    for headers in ({"size": "9" * 5000}, {"size": "-5"}, {"mtime": "nan"}, {"uid": "9" * 5000}, {"size": "x"}):
        odd = member("x", pax_headers=headers)
        try:
            unpack(packed(*GOOD, odd, form=tarfile.PAX_FORMAT))
        except Refusal as refusal:
            sentence(refusal.message)


def test_a_name_that_is_no_unicode_is_shown_in_letters(unpack: Callable[..., Path]) -> None:
    refused(unpack, packed(*GOOD, member("../\udcff\udcfe\x07")))
    refused(unpack, packed(*GOOD, member("../\u202e\u200b")))


# Receiving it


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "staging").mkdir()
    return tmp_path / "incoming"


def receive(incoming: Path, name: str, content: bytes = b"", limit: int = 1000) -> bytes:
    target = incoming.parent / "staging" / "copy"
    target.unlink(missing_ok=True)
    artifact.receive(incoming, name, target, hashlib.sha256(content).hexdigest(), limit)
    return target.read_bytes()


def not_received(incoming: Path, name: str, content: bytes = b"", limit: int = 1000) -> str:
    with pytest.raises(Refusal) as refusal:
        receive(incoming, name, content, limit)
    return sentence(refusal.value.message)


def test_a_plain_file_is_received(incoming: Path) -> None:
    (incoming / "a.tar.gz").write_bytes(b"content")
    assert receive(incoming, "a.tar.gz", b"content") == b"content"


def test_what_is_no_plain_file_is_not_received(incoming: Path) -> None:
    secret = incoming.parent / "secret"
    secret.write_bytes(b"secret")
    (incoming / "link").symlink_to(secret)
    (incoming / "directory").mkdir()
    os.mkfifo(incoming / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(incoming / "socket"))
        for name in ("link", "directory", "fifo", "socket", "absent"):
            not_received(incoming, name, b"secret")


def test_incoming_itself_may_not_be_a_link(incoming: Path) -> None:
    (incoming / "a.tar.gz").write_bytes(b"content")
    (incoming.parent / "other").symlink_to(incoming)
    with pytest.raises((Refusal, OSError)):
        artifact.receive(incoming.parent / "other", "a.tar.gz", incoming.parent / "staging" / "x", "0" * 64, 1000)


def test_more_than_the_limit_is_not_received(incoming: Path) -> None:
    (incoming / "a.tar.gz").write_bytes(b"y" * 1001)
    assert "1000" in not_received(incoming, "a.tar.gz", b"y" * 1001)


def test_another_content_than_announced_is_not_received(incoming: Path) -> None:
    (incoming / "a.tar.gz").write_bytes(b"content")
    assert "announced" in not_received(incoming, "a.tar.gz", b"other")


class Swap:
    """Does something to the file after the first piece of it was read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
        monkeypatch.setattr(artifact, "CHUNK", 4)
        self.once = threading.Lock()
        real = hashlib.sha256

        def watched(*words: bytes) -> object:
            digest = real(*words)
            outer = self

            class Watched:
                def update(self, piece: bytes) -> None:
                    digest.update(piece)
                    if outer.once.acquire(blocking=False):
                        act()

                def hexdigest(self) -> str:
                    return digest.hexdigest()

            return Watched() if not words else digest

        monkeypatch.setattr(artifact.hashlib, "sha256", watched)


def test_a_swap_of_the_name_while_it_is_read_changes_nothing(incoming: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (incoming / "a").write_bytes(b"good content")
    (incoming / "evil").write_bytes(b"evil content")
    Swap(monkeypatch, lambda: (incoming / "evil").rename(incoming / "a"))
    digest = hashlib.new("sha256", b"good content").hexdigest()
    artifact.receive(incoming, "a", incoming.parent / "staging" / "copy", digest, 1000)
    assert (incoming.parent / "staging" / "copy").read_bytes() == b"good content"
    assert (incoming / "a").read_bytes() == b"evil content"


def test_a_change_in_place_while_it_is_read_is_seen(incoming: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (incoming / "a").write_bytes(b"good content" * 5000)

    def scribble() -> None:
        with (incoming / "a").open("r+b") as stream:
            stream.seek(50_000)
            stream.write(b"evil")

    Swap(monkeypatch, scribble)
    digest = hashlib.new("sha256", b"good content" * 5000).hexdigest()
    with pytest.raises(Refusal, match="announced"):
        artifact.receive(incoming, "a", incoming.parent / "staging" / "copy", digest, 100_000)


def test_growing_without_end_is_stopped_at_the_limit(incoming: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (incoming / "a").write_bytes(b"y" * 900)

    def grow() -> None:
        with (incoming / "a").open("ab") as stream:
            stream.write(b"y" * 100_000)

    Swap(monkeypatch, grow)
    with pytest.raises(Refusal, match=r"while it was read|announced"):
        artifact.receive(incoming, "a", incoming.parent / "staging" / "copy", "0" * 64, 1000)
    assert (incoming.parent / "staging" / "copy").stat().st_size <= 1000


# Nothing of it stays


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = Config(
        releases=tmp_path / "releases",
        incoming=tmp_path / "incoming",
        state=tmp_path / "state",
        static=tmp_path / "static",
        free_min_bytes=1,
        unpacked_max_entries=100,
    )
    for path in (config.releases, config.incoming, config.state, config.static):
        path.mkdir()
    return config


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"no archive", id="no-archive"),
        pytest.param(packed(*GOOD)[:-20], id="truncated"),
        pytest.param(packed(*GOOD, member("../x")), id="leads-out"),
        pytest.param(packed(*GOOD, *(member(f"f{n}") for n in range(200))), id="too-many"),
        pytest.param(packed(*GOOD), id="no-requirements"),
        pytest.param(
            packed(*GOOD, member("requirements.lock", tarfile.SYMTYPE, linkname="manage.py")), id="linked-lock"
        ),
    ],
)
def test_a_refused_artifact_leaves_no_litter(config: Config, tmp_path: Path, content: bytes) -> None:
    (config.incoming / "a.tar.gz").write_bytes(content)
    before = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    hooks = Hooks(config, "prepare", "shop-1", None, lambda _line: None)
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(Refusal) as refusal:
        build.prepare(config, "shop-1", "a.tar.gz", digest, "test", lambda _line: None, hooks)
    sentence(refusal.value.message)
    after = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert [path for path in after if path != "state/staging"] == before


# Arguments

IDS = [
    "",
    ".",
    "..",
    "a/b",
    "../a",
    "/etc",
    "a..b",
    "a b",
    " a",
    "a\n",
    "a\nb",
    "a\0b",
    "-a",
    "--help",
    ".hidden",
    "_a",
    "x" * 65,
    "x" * 300,
    "ä",
    "a%n",
    "a@b",
    "a;b",
    "$(id)",
    "a\u2028b",
    "\x1b[2J",
]


@pytest.mark.parametrize("ident", IDS)
def test_ids_that_are_none_are_refused(ident: str) -> None:
    with pytest.raises(Refusal) as refusal:
        names.release_id(ident)
    assert refusal.value.exit_status == 2
    sentence(refusal.value.message)
    with pytest.raises(Refusal):
        names.artifact_name(ident if len(ident) != 65 else "x" * 201)
    with pytest.raises(Refusal):
        names.Generation.parse(f"{ident}.1")


@pytest.mark.parametrize("ident", [ident for ident in IDS if "\0" not in ident])
@pytest.mark.parametrize(
    "words",
    [
        ("activate", "--id"),
        ("rollback", "--id"),
        ("discard", "--id"),
        ("migrate", "--id"),
        ("prepare", "--artifact", "a", "--sha256", "0" * 64, "--id"),
        ("prepare", "--id", "a", "--sha256", "0" * 64, "--artifact"),
    ],
)
def test_the_command_line_refuses_them_with_one_object(
    ident: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli.os, "environ", dict(os.environ))
    monkeypatch.setattr(cli.os, "umask", lambda _mask: 0)
    monkeypatch.setattr(cli, "run_verb", lambda *_: pytest.fail("it went past the parser"))
    if words[-1] == "--artifact" and len(ident) == 65:
        ident = "x" * 201  # a file's name may be longer than an id
    status = cli.main([*words[:-1], f"{words[-1]}={ident}", "--json"])
    output = capsys.readouterr().out
    answer = json.loads(output)
    assert (status, answer["ok"], len(output.splitlines())) == (2, False, 1)
    sentence(answer["message"])
