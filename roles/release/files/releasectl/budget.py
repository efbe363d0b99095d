"""Room on the disks and in memory, looked at before anything starts: a refusal costs less than a host that is full."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .config import Config
from .errors import Refusal
from .systemd import PROCESSES, Systemd, unit_name

MEMINFO = Path("/proc/meminfo")
GROUPS = Path("/sys/fs/cgroup")
SPOOL = Path("/var/tmp")  # noqa: S108 (where podman keeps layers while they come)
UNPACKED = 4  # times what a layer is when it is sent
SPARE_FILES = 500  # what else is made while a release is: published files, the record
# Memory that the kernel gives back when somebody needs it, by its names in memory.stat.
RECLAIMABLE = ("inactive_file", "active_file", "slab_reclaimable")


@dataclass
class Disk:
    """One file system: what is to be written there, and what there is."""

    paths: list[Path]
    free: int
    free_files: int | None
    bytes: int = 0
    files: int = SPARE_FILES


def mebibytes(count: int) -> str:
    """Bytes for a sentence, rounded up."""
    return f"{-(-count // 2**20)} MiB"


def disks(config: Config, artifact: int, expected: int, files: int) -> list[Disk]:
    """What a release would write on each file system, and what there is.

    ``artifact`` is the size of the upload that is still to be received and ``expected`` what the release will take, as
    far as can be known by now, both in bytes; ``files`` is how many files it will have. What is published of its
    static files is taken to be no more than was in the upload.
    """
    return _disks(
        (config.releases, max(artifact, expected), files),
        (config.state / "staging", artifact, 0),
        (config.static, artifact, 0),
        (config.build_cache, 0, 0),
    )


def disks_for_image(config: Config, layers: int) -> list[Disk]:
    """As `disks`, for the layers of an image that are still to come: in bytes, compressed as they are sent."""
    store = next(path for path in (config.image_store, *config.image_store.parents) if path.exists())
    return _disks((store, layers * UNPACKED, 0), (SPOOL, layers, 0), (config.releases, 0, 0))


def _disks(*wanted: tuple[Path, int, int]) -> list[Disk]:
    found: dict[int, Disk] = {}
    for path, size, count in wanted:
        try:
            device, room = os.stat(path).st_dev, os.statvfs(path)
        except FileNotFoundError:
            continue
        # What an ordinary account may take, not what is set aside for root; some file systems count no inodes.
        free_files = room.f_favail if room.f_files else None
        disk = found.setdefault(device, Disk([], room.f_bavail * room.f_frsize, free_files))
        disk.paths.append(path)
        disk.bytes += size
        disk.files += count
    return list(found.values())


def require_disk(config: Config, release: str, artifact: int, expected: int, files: int) -> None:
    """Refuse when a release does not fit; see `disks`."""
    require(config, release, disks(config, artifact, expected, files))


def require_disk_for_image(config: Config, release: str, layers: int) -> None:
    """Refuse when the layers of an image do not fit once they are unpacked; see `disks_for_image`."""
    require(config, release, disks_for_image(config, layers))


def require(config: Config, release: str, wanted: list[Disk]) -> None:
    """Refuse when what is to be written does not fit."""
    if not config.disk_check:
        return
    for disk in wanted:
        where = ", ".join(str(path) for path in disk.paths)
        needed = disk.bytes + config.free_min_bytes
        if disk.free < needed:
            raise Refusal(
                f"{release} needs {mebibytes(needed)} of disk space where {where} is, of which release_free_min_bytes"
                f" asks for {mebibytes(config.free_min_bytes)}; {disk.free // 2**20} MiB are free: run"
                " 'releasectl prune --keep 2' or grow the disk."
            )
        if disk.free_files is not None and disk.free_files < disk.files:
            raise Refusal(
                f"{release} needs {disk.files} new files where {where} is, and the file system has room for"
                f" {disk.free_files} (inodes): run 'releasectl prune --keep 2' or make it anew with more inodes."
            )


@dataclass(frozen=True)
class Memory:
    """What a second generation needs beside the live one, in bytes, what there is for it, and what bounds that."""

    live: int
    needed: int
    available: int
    bound: str

    @property
    def enough(self) -> bool:
        return self.available >= self.needed

    @property
    def sentence(self) -> str:
        """Why it is too little."""
        beside = f"the live one uses {mebibytes(self.live)}, " if self.live else ""
        return (
            f"starting {'a second' if self.live else 'the first'} generation needs about {mebibytes(self.needed)} of"
            f" memory ({beside}release_memory_min_bytes comes on top); {self.available // 2**20} MiB are available,"
            f" free swap included ({self.bound})"
        )


def memory(
    config: Config, systemd: Systemd, live: object, meminfo: Path = MEMINFO, groups: Path = GROUPS
) -> Memory | None:
    """Weigh a second generation against what is free; None where nothing of the app runs, or nothing can be known."""
    if not config.memory_check or not config.processes:
        return None
    host = _table(meminfo, " kB", 1024)
    if "MemAvailable:" not in host:
        return None
    swap = host.get("SwapFree:", 0)
    names = sorted({*PROCESSES, *config.processes})
    places = systemd.control_groups(unit_name(process, live) for process in names) if live is not None else {}
    used = sum(_used(groups / place.lstrip("/"), charged) for place, charged in places.items())
    available, bound = host["MemAvailable:"] + swap, "of the host"
    # Where nothing runs yet, what bounds all services bounds this one, too.
    for place in {parent for path in places or {"/system.slice/x": 0} for parent in Path(path).parents}:
        left = _left(groups / str(place).lstrip("/"), swap)
        if left is not None and left < available:
            available, bound = left, f"MemoryMax= of {place.name or 'the container'}"
    return Memory(used, used + config.memory_min_bytes, available, bound)


def require_memory(
    config: Config, systemd: Systemd, live: object, meminfo: Path = MEMINFO, groups: Path = GROUPS
) -> None:
    """Refuse what would start a second generation that there is no memory for: the kernel would end one of the two."""
    found = memory(config, systemd, live, meminfo, groups)
    if found is not None and not found.enough:
        raise Refusal(
            f"{found.sentence[0].upper()}{found.sentence[1:]}: give the host more memory or swap, lower"
            " services_gunicorn_workers, or set release_memory_check: false and run site.yml."
        )


def _table(path: Path, unit: str = "", factor: int = 1) -> dict[str, int]:
    """A file of names and numbers, as the kernel writes them."""
    found = {}
    try:
        for line in path.read_text().splitlines():
            name, _blank, number = line.removesuffix(unit).partition(" ")
            if number.strip().isdigit():
                found[name] = int(number) * factor
    except OSError:
        return {}
    return found


def _number(path: Path) -> int | None:
    """What a file of a control group says; None for `max`, or where there is none."""
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _reclaimable(group: Path) -> int:
    found = _table(group / "memory.stat")
    return sum(found.get(name, 0) for name in RECLAIMABLE)


def _used(group: Path, charged: int) -> int:
    """What the processes of a control group hold, without what is only cached for them where that can be seen.

    Where the kernel still runs the first version of control groups, it cannot, and nothing is known of bounds.
    """
    return max(0, (_number(group / "memory.current") or charged) - _reclaimable(group))


def _left(group: Path, swap: int) -> int | None:
    """What a control group's processes may still take; None where nothing bounds it."""
    most, current = _number(group / "memory.max"), _number(group / "memory.current")
    if most is None or current is None:
        return None
    bound = _number(group / "memory.swap.max")
    if bound is not None:
        swap = max(0, min(swap, bound - (_number(group / "memory.swap.current") or 0)))
    return max(0, most - current) + min(current, _reclaimable(group)) + swap
