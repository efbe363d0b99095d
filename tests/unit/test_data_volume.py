"""The size of a file system is read from itself, and what is mounted where from the kernel."""

from __future__ import annotations

import shutil
import struct
import subprocess

import pytest

from plugins.modules import data_volume as subject


def superblock(blocks: int, log_size: int = 2, wide: bool = False) -> bytes:
    block = bytearray(1024)
    struct.pack_into("<I", block, 4, blocks & 0xFFFFFFFF)
    struct.pack_into("<I", block, 24, log_size)
    struct.pack_into("<H", block, 0x38, 0xEF53)
    if wide:
        struct.pack_into("<I", block, 0x60, 0x80)
        struct.pack_into("<I", block, 0x150, blocks >> 32)
    return bytes(1024) + bytes(block)


def test_ext4_says_its_size():
    assert subject.ext4_bytes(superblock(25600)) == 25600 * 4096
    assert subject.ext4_bytes(superblock(5 << 32, wide=True)) == (5 << 32) * 4096
    # Without the feature the other half of the number is something else.
    assert subject.ext4_bytes(superblock(100, log_size=0)) == 100 * 1024


def test_xfs_says_its_size():
    assert subject.xfs_bytes(struct.pack("<8IQ", 4096, 0, 0, 0, 0, 0, 0, 0, 76800).ljust(112, b"\0")) == 76800 * 4096


def test_a_file_system_is_known_by_its_head():
    assert subject.kind_of(superblock(1)) == "ext4"
    assert subject.kind_of(b"XFSB" + bytes(2044)) == "xfs"
    assert subject.kind_of(bytes(2048)) == "unknown"
    assert subject.kind_of(b"") == "unknown"


@pytest.mark.parametrize("size", [8 << 20, 24 << 20])
def test_a_real_file_system_is_read(tmp_path, size):
    maker = shutil.which("mkfs.ext4", path="/sbin:/usr/sbin:/usr/bin:/bin")
    assert maker, "install e2fsprogs"
    image = tmp_path / "disk"
    image.write_bytes(b"")
    with image.open("r+b") as stream:
        stream.truncate(size)
    subprocess.run([maker, "-q", "-F", str(image)], check=True, capture_output=True)
    head = subject.head_of(str(image))
    assert subject.kind_of(head) == "ext4"
    assert subject.ext4_bytes(head) == size


def test_the_last_mount_of_a_place_counts():
    text = (
        "/dev/sda1 / ext4 rw 0 0\n/dev/sdb /mnt/a\\040b xfs rw 0 0\n/dev/sdc /x ext4 rw 0 0\n/dev/sdd /x ext4 rw 0 0\n"
    )
    assert subject.mounts(text) == {"/": "/dev/sda1", "/mnt/a b": "/dev/sdb", "/x": "/dev/sdd"}
