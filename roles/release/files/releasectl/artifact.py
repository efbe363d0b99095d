"""Receiving an artifact: nothing that a deployer uploads is trusted, neither its path nor its content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import Refusal
from .names import shorten

CHUNK = 1024 * 1024
HEADER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Limits:
    """Bounds of what is unpacked; sizes in bytes."""

    artifact_bytes: int
    bytes: int
    entries: int
    depth: int


def size(incoming: Path, name: str) -> int:
    """How large the upload is, in bytes; 0 when it is not there or no plain file, which `receive` refuses."""
    try:
        status = os.lstat(incoming / name)
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def receive(incoming: Path, name: str, target: Path, sha256: str, limit: int) -> None:
    """Copy ``incoming/name`` to ``target`` by descriptor and prove that the copy is what was announced.

    The file is opened without following a link, so what is hashed is what is unpacked, whatever happens to the
    name meanwhile.
    """
    directory = os.open(incoming, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except FileNotFoundError:
        raise Refusal(f"There is no artifact {name} in {incoming}: upload it first (deploy.yml does).") from None
    except OSError as error:
        raise Refusal(
            f"The artifact {name} cannot be opened ({error.strerror}): it must be a plain file, no link."
        ) from None
    finally:
        os.close(directory)
    if not stat.S_ISREG(os.fstat(source).st_mode):
        os.close(source)
        raise Refusal(f"The artifact {name} is not a plain file.")
    with os.fdopen(source, "rb") as reader:
        status = os.fstat(reader.fileno())
        if status.st_size > limit:
            raise Refusal(
                f"The artifact {name} has {status.st_size} bytes, more than release_artifact_max_bytes ({limit})."
            )
        digest = hashlib.sha256()
        left = limit
        with open(target, "xb") as writer:
            while chunk := reader.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise Refusal(
                        f"The artifact {name} grew over release_artifact_max_bytes ({limit}) while it was read."
                    )
                digest.update(chunk)
                writer.write(chunk)
            writer.flush()
            os.fsync(writer.fileno())
    if digest.hexdigest() != sha256:
        raise Refusal(
            f"The artifact {name} is not the one that was announced (SHA-256 {digest.hexdigest()[:12]}… instead of"
            f" {sha256[:12]}…): it was changed or swapped on the way; deploy again."
        )


class _Member(tarfile.TarInfo):
    """A member whose header is bounded: tarfile reads extended headers into memory whole, however long they are."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        extended = self.type not in tarfile.REGULAR_TYPES and self.type not in (tarfile.DIRTYPE, tarfile.SYMTYPE)
        if self.type == tarfile.GNUTYPE_SPARSE or self.size < 0 or (extended and self.size > HEADER_BYTES):
            raise Refusal("The artifact holds a header that no release needs: pack it anew (make artifact).")
        return super()._proc_member(archive)  # type: ignore[misc]


def _parts(name: str, depth: int) -> tuple[str, ...]:
    """The parts of a member's name, refused when it could lead out of the release."""
    if name.startswith("/"):
        raise Refusal(f"The artifact holds an absolute path, {shorten(name)}.")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise Refusal(f"The artifact holds a path with '..', {shorten(name)}.")
    if len(parts) > depth:
        raise Refusal(f"The artifact nests deeper than release_unpacked_max_depth ({depth}): {shorten(name)}.")
    if any(len(part.encode(errors="surrogateescape")) > 255 for part in parts):
        raise Refusal(f"The artifact holds a name of more than 255 bytes, {shorten(name)}.")
    if any(ord(character) < 32 for character in name):
        raise Refusal(f"The artifact holds a name with control characters, {shorten(name)}.")
    return parts


def _link_stays_inside(parts: tuple[str, ...], target: str) -> bool:
    """Whether a link at ``parts`` that points to ``target`` stays below the root.

    A '..' is taken at the beginning alone: behind a name it could climb out of where another link leads.
    """
    if target.startswith("/"):
        return False
    up = 0
    rest = [part for part in target.split("/") if part not in ("", ".")]
    while up < len(rest) and rest[up] == "..":
        up += 1
    return up <= len(parts) - 1 and ".." not in rest[up:]


@contextlib.contextmanager
def _readable(archive: Path) -> Iterator[tarfile.TarFile]:
    with open(archive, "rb") as stream:
        if stream.read(2) != b"\x1f\x8b":
            raise Refusal("The artifact is not a gzip-compressed tar archive.")
        stream.seek(0)
        try:
            with tarfile.open(fileobj=stream, mode="r|gz", tarinfo=_Member) as tar:
                yield tar
            # The stream ends with gzip's checksum: reading up to it tells a truncated file from a whole one.
        except EOFError:
            raise Refusal("The artifact is truncated: upload it again.") from None
        except tarfile.ReadError as error:
            truncated = "unexpected end of data" in str(error)
            raise Refusal(
                "The artifact is truncated: upload it again."
                if truncated
                else f"The artifact is not a readable tar archive ({error})."
            ) from None
        except (tarfile.TarError, zlib.error) as error:
            raise Refusal(f"The artifact is damaged ({error}).") from None
        except (ValueError, LookupError, ArithmeticError, RecursionError) as error:
            # tarfile's own stumbling over headers that lie or nest without end.
            raise Refusal(f"The artifact is damaged (its headers make no sense: {type(error).__name__}).") from None


def unpack(archive: Path, root: Path, limits: Limits, room: Callable[[int], None] = lambda _bytes: None) -> int:
    """Unpack ``archive`` into the new directory ``root``; return the number of entries. ``room`` is told before, how
    many bytes that will be, and may refuse.

    Only plain files, directories and relative links that stay inside are taken. Owners, set-id bits and times
    are not: everything belongs to whoever runs this, with mode 0644 or 0755.
    """
    os.mkdir(root, 0o755)
    kinds: dict[tuple[str, ...], str] = {(): "directory"}
    entries = total = 0

    def make_parents(parts: tuple[str, ...]) -> None:
        for length in range(1, len(parts)):
            parent = parts[:length]
            kind = kinds.get(parent)
            if kind is None:
                os.mkdir(root.joinpath(*parent), 0o755)
                kinds[parent] = "directory"
            elif kind != "directory":
                raise Refusal(f"The artifact puts {shorten('/'.join(parts))} beneath a {kind}.")

    room(_check_is_whole(archive, limits))
    with _readable(archive) as tar:
        for member in tar:
            entries += 1
            if entries > limits.entries:
                raise Refusal(f"The artifact holds more entries than release_unpacked_max_entries ({limits.entries}).")
            parts = _parts(member.name, limits.depth)
            path = root.joinpath(*parts)
            make_parents(parts)
            if member.isdir():
                if kinds.get(parts, "directory") != "directory":
                    raise Refusal(f"The artifact holds {shorten(member.name)} twice.")
                if parts not in kinds:
                    os.mkdir(path, 0o755)
                    kinds[parts] = "directory"
                continue
            if parts in kinds:
                raise Refusal(f"The artifact holds {shorten(member.name)} twice.")
            if member.issym():
                if not _link_stays_inside(parts, member.linkname):
                    raise Refusal(
                        f"The artifact holds a link that leaves it, {shorten(member.name)}"
                        f" -> {shorten(member.linkname)}."
                    )
                os.symlink(member.linkname, path)
                kinds[parts] = "link"
            elif member.isreg() and not member.issparse() and member.size >= 0:
                total += member.size
                if total > limits.bytes:
                    raise Refusal(f"The artifact unpacks to more than release_unpacked_max_bytes ({limits.bytes}).")
                _write_member(tar, member, path)
                kinds[parts] = "file"
            else:
                what = "hard link" if member.islnk() else "device or special file"
                raise Refusal(
                    f"The artifact holds a {what}, {shorten(member.name)}: only files, directories and links."
                )
    if entries == 0:
        raise Refusal("The artifact is empty.")
    return entries


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    if source is None:
        raise Refusal(f"The artifact's {shorten(member.name)} cannot be read.")
    mode = 0o755 if member.mode & 0o100 else 0o644
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as writer:
        os.fchmod(writer.fileno(), mode)
        left = member.size
        while left:
            chunk = source.read(min(CHUNK, left))
            if not chunk:
                raise Refusal("The artifact is truncated: upload it again.")
            writer.write(chunk)
            left -= len(chunk)


def _check_is_whole(archive: Path, limits: Limits) -> int:
    """Decompress once without keeping anything: a truncated or bursting artifact is refused before it is unpacked.

    Returns the bytes that came out.
    """
    # Each entry costs a header of 512 bytes and padding of as much; long names cost some more.
    ceiling = limits.bytes + limits.entries * 4096 + 10 * CHUNK
    size = 0
    with open(archive, "rb") as stream:
        if stream.read(2) != b"\x1f\x8b":
            raise Refusal("The artifact is not a gzip-compressed tar archive.")
        stream.seek(0)
        inflate = zlib.decompressobj(wbits=31)
        try:
            while chunk := stream.read(CHUNK):
                while chunk:
                    size += len(inflate.decompress(chunk, CHUNK))
                    if size > ceiling:
                        raise Refusal(f"The artifact unpacks to more than release_unpacked_max_bytes ({limits.bytes}).")
                    chunk = inflate.unconsumed_tail
                    if inflate.eof:
                        chunk = inflate.unused_data
                        if chunk:
                            inflate = zlib.decompressobj(wbits=31)
        except zlib.error as error:
            raise Refusal(f"The artifact is damaged ({error}).") from None
        if not inflate.eof:
            raise Refusal("The artifact is truncated: upload it again.")
    return size
