"""Room is looked at before anything starts, the cache of builds is bounded, and a full disk is one sentence."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from releasectl import budget, build, cache, cli
from releasectl.config import Config
from releasectl.errors import Refusal
from releasectl.events import Events
from releasectl.hooks import Hooks
from releasectl.names import Generation
from releasectl.systemd import Systemd
from tests.unit.releasectl.conftest import request_of

MIB = 2**20
LIVE = Generation("a", 1)


# Disk


@pytest.fixture
def checked(config: Config, tmp_path: Path) -> Config:
    (tmp_path / "cache").mkdir()
    return dataclasses.replace(config, disk_check=True, free_min_bytes=10 * MIB, build_cache=tmp_path / "cache")


@pytest.fixture
def disks(monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int, int, int]]:
    """By a word of the path: device, free bytes, inodes in all and free ones. The rest is one large disk."""
    table: dict[str, tuple[int, int, int, int]] = {}

    def found(path: Path) -> tuple[int, int, int, int]:
        return next((row for word, row in table.items() if word in str(path)), (1, 2**40, 10**6, 10**6))

    def statvfs(path: Path) -> SimpleNamespace:
        _device, free, files, free_files = found(path)
        # Root could take twice as much: what is set aside for it is not for a build.
        return SimpleNamespace(f_frsize=1, f_bavail=free, f_bfree=2 * free, f_files=files, f_favail=free_files)

    def stat(path: Path) -> SimpleNamespace:
        path.stat()
        return SimpleNamespace(st_dev=found(path)[0])

    monkeypatch.setattr(budget, "os", SimpleNamespace(stat=stat, statvfs=statvfs))
    return table


def test_what_fits_is_not_refused(checked, disks) -> None:  # type: ignore[no-untyped-def]
    budget.require_disk(checked, "b", 5 * MIB, 100 * MIB, 5000)


def test_what_is_on_one_disk_is_added_up(checked, disks) -> None:  # type: ignore[no-untyped-def]
    # The release, the archive that is received, and its static files once more: 100 + 5 + 5, and what is left free.
    disks["/"] = (1, 120 * MIB, 0, 0)
    budget.require_disk(checked, "b", 5 * MIB, 100 * MIB, 5000)
    disks["/"] = (1, 120 * MIB - 1, 0, 0)
    with pytest.raises(Refusal) as refusal:
        budget.require_disk(checked, "b", 5 * MIB, 100 * MIB, 5000)
    message = refusal.value.message
    for word in ("b needs 120 MiB of disk space", str(checked.releases), "119 MiB are free", "releasectl prune"):
        assert word in message
    budget.require_disk(dataclasses.replace(checked, disk_check=False), "b", 5 * MIB, 100 * MIB, 5000)


@pytest.mark.parametrize("place", ["releases", "staging", "static", "cache"])
def test_each_disk_is_looked_at_by_itself(checked, disks, place) -> None:  # type: ignore[no-untyped-def]
    disks[f"/{place}"] = (2, 1 * MIB, 0, 0)
    with pytest.raises(Refusal, match=rf"/{place} is, .*1 MiB are free"):
        budget.require_disk(checked, "b", 5 * MIB, 0, 0)


def test_inodes_count_where_a_disk_counts_them(checked, disks) -> None:  # type: ignore[no-untyped-def]
    disks["/releases"] = (2, 2**40, 10_000, 5_100)
    with pytest.raises(Refusal, match=r"needs 5500 new files where .*releases is, .* 5100 \(inodes\)"):
        budget.require_disk(checked, "b", MIB, 0, 5000)
    disks["/releases"] = (2, 2**40, 0, 0)
    budget.require_disk(checked, "b", MIB, 0, 5000)


def test_it_is_refused_before_anything_is_copied_by_what_the_last_one_took(checked, host, disks, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The newest release is the measure of the next one."""
    newest = build.Release("e", "0" * 64, "2026-02-01T00:00:00Z", "me", 1, 1, None, disk=300 * MIB, files=20_000)
    checked.release_dir("e").mkdir()
    build.write_json(checked.release_dir("e") / build.RECORD, dataclasses.asdict(newest))
    (checked.incoming / "a.tar.gz").write_bytes(b"x" * MIB)
    monkeypatch.setattr(build.artifact, "receive", lambda *_words: pytest.fail("it was copied"))
    for row, why in (((1, 300 * MIB, 0, 0), "needs 312 MiB"), ((1, 2**40, 10**6, 20_499), "needs 20500 new files")):
        disks["/"] = row
        with pytest.raises(Refusal, match=why):
            build.prepare(checked, "f", "a.tar.gz", "0" * 64, "me", print, Hooks(checked, "prepare", "f", None, print))
    assert not checked.release_dir("f").exists()


def test_a_record_of_a_later_version_is_still_one(config, host) -> None:  # type: ignore[no-untyped-def]
    path = config.release_dir("a") / build.RECORD
    path.write_text(path.read_text().replace("{", '{"signature": "x", ', 1))
    assert build.read(config.release_dir("a")) is not None
    path.write_text("[]")
    assert build.read(config.release_dir("a")) is None


# Memory


@pytest.fixture
def kernel(tmp_path: Path) -> SimpleNamespace:
    """A host's /proc/meminfo and control groups, in MiB."""
    groups = tmp_path / "cgroup"

    def meminfo(available: int, swap: int = 0) -> Path:
        path = tmp_path / "meminfo"
        path.write_text(f"MemTotal: 999999 kB\nMemAvailable: {available * 1024} kB\nSwapFree: {swap * 1024} kB\n")
        return path

    def group(name: str, current: int, cached: int = 0, most: int | None = None) -> None:
        place = groups / name
        place.mkdir(parents=True, exist_ok=True)
        (place / "memory.current").write_text(f"{current * MIB}\n")
        (place / "memory.max").write_text("max\n" if most is None else f"{most * MIB}\n")
        (place / "memory.stat").write_text(f"anon 1\ninactive_file {cached * MIB}\nactive_file 0\n")

    return SimpleNamespace(meminfo=meminfo, group=group, groups=groups)


@pytest.fixture
def weigh(config, host, systemd, kernel):  # type: ignore[no-untyped-def]
    checked = dataclasses.replace(config, memory_check=True, memory_min_bytes=64 * MIB)

    def weigh(available: int, swap: int = 0, live: object = LIVE) -> budget.Memory | None:
        return budget.memory(checked, systemd, live, kernel.meminfo(available, swap), kernel.groups)

    host.activate("a", "me")
    for process, current, cached in (("gunicorn", 300, 100), ("celery-worker", 50, 0), ("celery-beat", 10, 0)):
        kernel.group(f"system.slice/app.slice/{process}@a.1.service", current, cached)
    weigh.checked = checked  # type: ignore[attr-defined]
    return weigh


def test_a_second_generation_needs_what_the_live_one_holds_and_a_margin(weigh) -> None:  # type: ignore[no-untyped-def]
    found = weigh(324)
    assert (found.live, found.needed) == (260 * MIB, 324 * MIB), "what is only cached does not count"
    assert found.enough
    assert not weigh(323).enough


def test_where_control_groups_are_of_the_first_version_systemds_number_counts(weigh, kernel) -> None:  # type: ignore[no-untyped-def]
    shutil.rmtree(kernel.groups)
    assert weigh(4000).live == 3 * MIB


SHOWN = """ControlGroup=/system.slice/system-gunicorn.slice/gunicorn@a.1.service
MemoryCurrent=186085376

ControlGroup=
MemoryCurrent=[not set]

MemoryCurrent=[not set]
ControlGroup=/system.slice/x.service
"""


def test_what_systemd_says_of_its_units(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    done = subprocess.CompletedProcess([], 0, SHOWN, "")
    monkeypatch.setattr("releasectl.systemd.run", lambda _argv: done)
    assert Systemd().control_groups(["gunicorn@a.1.service", "y", "x"]) == {
        "/system.slice/system-gunicorn.slice/gunicorn@a.1.service": 186085376,
        "/system.slice/x.service": 0,
    }


def test_free_swap_counts(weigh) -> None:  # type: ignore[no-untyped-def]
    assert weigh(200, swap=124).enough
    assert not weigh(200, swap=123).enough


def test_the_first_generation_needs_the_margin(weigh) -> None:  # type: ignore[no-untyped-def]
    assert weigh(64, live=None).enough
    found = weigh(63, live=None)
    assert not found.enough
    assert "starting the first generation needs about 64 MiB" in found.sentence


def test_a_bound_around_the_units_counts_and_is_named(weigh, kernel) -> None:  # type: ignore[no-untyped-def]
    kernel.group("system.slice/app.slice", 400, cached=100, most=600)
    found = weigh(4000)
    assert (found.available, found.bound) == (300 * MIB, "MemoryMax= of app.slice")
    assert not found.enough
    kernel.group("system.slice/app.slice", 400, cached=124, most=600)
    assert weigh(4000).enough
    # A container shows its host's memory and has a bound of its own.
    kernel.group("", 900, most=1000)
    assert weigh(4000).bound == "MemoryMax= of the container"


def test_where_nothing_can_be_known_or_nothing_runs_nothing_is_refused(weigh, systemd, tmp_path, kernel) -> None:  # type: ignore[no-untyped-def]
    assert budget.memory(weigh.checked, systemd, LIVE, tmp_path / "none", kernel.groups) is None
    for changes in ({"memory_check": False}, {"processes": ()}):
        unchecked = dataclasses.replace(weigh.checked, **changes)
        assert budget.memory(unchecked, systemd, LIVE, kernel.meminfo(1), kernel.groups) is None


@pytest.fixture
def short(config, host, kernel, monkeypatch) -> Config:  # type: ignore[no-untyped-def]
    """A host with a live release and no memory for a second one."""
    host.activate("a", "me")
    host.activate("b", "me")
    monkeypatch.setattr(budget.memory, "__defaults__", (kernel.meminfo(10), kernel.groups))
    monkeypatch.setattr(budget.require_memory, "__defaults__", (kernel.meminfo(10), kernel.groups))
    monkeypatch.setattr(cli, "Systemd", lambda: host.systemd)
    return dataclasses.replace(config, memory_check=True)


@pytest.mark.failure("out-of-memory")
@pytest.mark.parametrize("verb", ["prepare", "activate", "restart"])
def test_too_little_memory_is_told_before_anything_is_started(short, host, systemd, verb) -> None:  # type: ignore[no-untyped-def]
    asked = {
        "verb": verb, "actor": "me", "id": "new" if verb == "prepare" else "c", "artifact": "x", "sha256": "0" * 64,
        "discard_on_failure": False, "watch": None, "accept_schema": False, "applied": None,
        "if_settings_changed": False,
    }  # fmt: skip
    before = list(systemd.calls)
    answer = cli.execute(short, asked, print)
    assert not answer["ok"]
    assert "Starting a second generation" in answer["message"] or "starting the first" in answer["message"].lower()
    assert "release_memory_check" in answer["message"]
    assert "\n" not in answer["message"]
    assert systemd.calls == before
    assert host.live_release() == "b"


def test_a_rollback_is_tried_all_the_same(short, host) -> None:  # type: ignore[no-untyped-def]
    said: list[str] = []
    answer = cli.execute(short, {"verb": "rollback", "actor": "me", "id": None, "accept_schema": False}, said.append)
    assert answer["ok"], answer
    assert host.live_release() == "a"
    assert any(line.startswith("trying all the same: starting") for line in said)


# The cache


class Pruning:
    """What `uv cache prune` does: what nothing refers to goes."""

    def __init__(self, uv: Path) -> None:
        self.uv = uv
        self.properties: list[str] = []

    def __call__(self, _unit: str, argv: list[str], properties: list[str], *_more: object) -> str:
        assert argv[1:3] == ["cache", "prune"]
        self.properties = properties
        used = {path.readlink().name for path in self.uv.rglob("wheels-*/*/*/*") if path.is_symlink()}
        for path in (self.uv / "archive-v0").iterdir():
            if path.name not in used:
                cache.remove_tree(path)
        return ""


@pytest.fixture
def cached(config, host, tmp_path, monkeypatch) -> Config:  # type: ignore[no-untyped-def]
    """Three packages of 100 KiB in uv's cache: one installed in the live release, an older version, a stranger."""
    root = tmp_path / "cache"
    for name, version in (("zope-interface", "7.0"), ("zope-interface", "6.0"), ("stranger", "1.0")):
        archive = root / "uv" / "archive-v0" / f"{name}{version}"
        archive.mkdir(parents=True)
        (archive / "code.py").write_bytes(b"x" * 100 * 1024)
        place = root / "uv" / "wheels-v8" / "pypi" / name
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{version}-py3-none-any").symlink_to(f"../../../archive-v0/{archive.name}")
        (place / f"{version}-py3-none-any.http").write_text("x")
    built = root / "uv" / "sdists-v11" / "pypi" / "stranger" / "1.0" / "src"
    built.mkdir(parents=True)
    (built / "code.c").write_bytes(b"x" * 100 * 1024)
    (config.release_dir("a") / "venv/lib/python3.11/site-packages/Zope.Interface-7.0.dist-info").mkdir(parents=True)
    pruning = Pruning(root / "uv")
    monkeypatch.setattr(cache, "sandboxed", pruning)
    made = dataclasses.replace(config, build_cache=root, build_cache_max_bytes=200 * 1024)
    made.__dict__["pruning"] = pruning
    return made


def names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "uv" / "archive-v0").glob("*"))


def test_below_the_bound_the_cache_is_left_alone(cached) -> None:  # type: ignore[no-untyped-def]
    for most in (0, 10 * MIB):
        assert not cache.bound(dataclasses.replace(cached, build_cache_max_bytes=most), ["a"], print)
    assert len(names(cached.build_cache)) == 3


def test_over_it_what_no_kept_release_has_goes(cached) -> None:  # type: ignore[no-untyped-def]
    assert cache.bound(cached, ["a"], print)
    assert names(cached.build_cache) == ["zope-interface7.0"]
    assert not list((cached.build_cache / "uv").glob("sdists-*/pypi/stranger/*"))
    properties = cached.pruning.properties
    assert {"User=app-build", "PrivateNetwork=yes", f"BindPaths={cached.build_cache}"} <= set(properties)
    assert f"BindReadOnlyPaths={cached.build_cache}" not in properties


def test_what_hooks_keep_goes_before_what_releases_are_made_from(cached) -> None:  # type: ignore[no-untyped-def]
    (cached.build_cache / ".npm").mkdir()
    (cached.build_cache / ".npm" / "big").write_bytes(b"x" * 300 * 1024)
    assert cache.bound(cached, ["a"], print)
    assert not (cached.build_cache / ".npm").exists()
    assert names(cached.build_cache) == ["zope-interface7.0"]


def test_when_that_is_not_enough_all_of_it_goes(cached) -> None:  # type: ignore[no-untyped-def]
    assert cache.bound(dataclasses.replace(cached, build_cache_max_bytes=1), ["a"], print)
    assert list(cached.build_cache.iterdir()) == []


def test_a_uv_that_fails_fails_nothing_else(cached, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    def fails(*_words: object) -> str:
        raise Refusal("Pruning the build cache failed: no such command")

    monkeypatch.setattr(cache, "sandboxed", fails)
    said: list[str] = []
    assert cache.bound(cached, ["a"], said.append)
    assert "no such command" in " ".join(said)
    assert cache.size(cached.build_cache) <= 200 * 1024


@pytest.mark.parametrize("place", ["uv", "uv/wheels-v8", "uv/wheels-v8/pypi", "uv/wheels-v8/pypi/stranger"])
def test_links_in_the_cache_lead_nowhere(cached, tmp_path, place) -> None:  # type: ignore[no-untyped-def]
    """The build user owns it, and this runs as root."""
    victim = tmp_path / "victim"
    (victim / "wheels-v8" / "pypi" / "stranger").mkdir(parents=True)
    kept = [victim / "wheels-v8/pypi/stranger/9-x", victim / "pypi/9-x", victim / "stranger/9-x", victim / "9-x"]
    for path in kept:
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    trap = cached.build_cache / place
    cache.remove_tree(trap)
    trap.symlink_to(victim)
    (cached.build_cache / "ballast").write_bytes(b"x" * 500 * 1024)
    cache.bound(cached, ["a"], print)
    assert all(path.exists() for path in kept)


# Releases that stay


def test_what_still_drains_and_what_a_rollback_goes_to_are_not_pruned(host, systemd, config) -> None:  # type: ignore[no-untyped-def]
    for release in ("a", "b", "c", "d"):
        host.activate(release, "me")
    systemd.states["gunicorn@b.2.service"] = "deactivating"
    assert host.prune(1) == ["a"]
    assert {path.name for path in config.releases.iterdir()} == {"b", "c", "d"}
    systemd.states.pop("gunicorn@b.2.service")
    assert host.prune(1) == ["b"]
    assert host.rollback_target(None) == "c"


def test_after_a_rollback_the_one_before_stays(host, config) -> None:  # type: ignore[no-untyped-def]
    for release in ("a", "b", "c"):
        host.activate(release, "me")
    host.switch("rollback", "b", None, "me")
    assert host.prune(1) == ["c"]
    assert host.rollback_target(None) == "a"


# A full disk


def full(*_words: object, **_more: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/var/x")


def sentence(answer: dict[str, object]) -> str:
    message = str(answer["message"])
    assert "\n" not in message
    assert "No space left on device" in message
    return message


@pytest.mark.failure("disk-full")
@pytest.mark.parametrize("verb", ["migrate", "activate", "prune", "discard", "restart", "rollback"])
def test_a_full_disk_is_one_sentence_in_every_verb(config, host, systemd, monkeypatch, verb) -> None:  # type: ignore[no-untyped-def]
    host.activate("a", "me")
    host.activate("b", "me")
    monkeypatch.setattr(cli, "Systemd", lambda: systemd)
    for place in ("releasectl.state.write_json", "releasectl.settings.write_atomically"):
        monkeypatch.setattr(place, full)
    asked = {
        "verb": verb, "actor": "me", "id": None if verb == "rollback" else "c", "keep": 1, "if_settings_changed": False,
        "plan": False, "app": None, "migration": None, "maintenance": "never", "serving": False,
        "restore_point": "never",
        "discard_on_failure": False, "watch": None, "accept_schema": False, "applied": None,
    }  # fmt: skip
    answer = cli.execute(config, asked, print)
    assert not answer["ok"]
    sentence(answer)
    assert host.live_release() == "b"
    assert systemd.running("gunicorn")[0] == "gunicorn@b.2.service"


def test_a_full_disk_while_receiving_leaves_nothing(config, host, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    content = b"x"
    (config.incoming / "a.tar.gz").write_bytes(content)
    monkeypatch.setattr(build.artifact.os, "fsync", full)
    with pytest.raises(Refusal, match=r"No space left on device .*nothing of it was kept"):
        build.prepare(
            config, "f", "a.tar.gz", hashlib.sha256(content).hexdigest(), "me", print,
            Hooks(config, "prepare", "f", None, print),
        )  # fmt: skip
    assert list((config.state / "staging").iterdir()) == []


@pytest.mark.failure("disk-full")
def test_what_was_done_is_told_as_done_when_it_cannot_be_recorded(config, host, systemd, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(cli, "Systemd", lambda: systemd)
    monkeypatch.setattr(Events, "append", full)
    answer = cli.execute(config, request_of("activate", "--id=a"), print)
    assert answer["ok"]
    assert sentence(answer).startswith("a is live, the first release. It could not be recorded")


def test_a_lease_that_cannot_be_noted_begins_nothing_and_ends_nothing(config, host, systemd, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(cli, "Systemd", lambda: systemd)
    locks = cli.Locks(config.private_run, config.state)
    with locks.verb("lock", "me"):
        lease = locks.take("me", "deploy", 60)
    asked = request_of("activate", "--id=a", f"--token={lease.token}")
    original = cli.Locks._renew
    monkeypatch.setattr(cli.Locks, "_renew", full)
    answer = cli.execute(config, asked, print)
    assert "was not begun" in sentence(answer)
    assert host.live_release() is None
    monkeypatch.setattr(cli.Locks, "_renew", lambda self, lease, busy: original(self, lease, busy) if busy else full())
    assert cli.execute(config, asked, print)["ok"]
    assert host.live_release() == "a"


@pytest.mark.failure("events-corrupted")
def test_half_a_line_is_taken_out_of_the_record_again(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    events = Events(tmp_path)
    events.append(verb="activate")
    original = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: original(descriptor, data[: len(data) // 2]))
    with pytest.raises(OSError, match="No space left"):
        events.append(verb="rollback")
    monkeypatch.undo()
    events.append(verb="prune")
    assert [event["verb"] for event in events.recent(9)] == ["activate", "prune"]
