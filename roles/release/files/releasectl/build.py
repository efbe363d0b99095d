"""Making a release: as a user of its own, in a sandbox that sees no settings, no running release and no other build."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from . import artifact, migrations
from .config import Config
from .errors import Refusal
from .events import timestamp
from .files import remove_tree, sync_directory, temporary_name, write_json
from .migrate import MARK, described, inside
from .systemd import CONFINED, run, sandboxed

# What Django's ManifestStaticFilesStorage writes: name.<12 hexadecimal digits>.suffix
HASHED = re.compile(r"\.[0-9a-f]{12}(\.|$)")
RECORD = "release.json"
# What is worth compressing once, so that the edge need not do it at each request.
TEXTS = (".css", ".js", ".mjs", ".json", ".map", ".svg", ".txt", ".xml", ".wasm", ".ttf")
COMPRESSED_FROM = 1000  # bytes; below, nothing is gained


@dataclass(frozen=True)
class Release:
    """The record that makes a directory a release; written last."""

    id: str
    sha256: str
    prepared_at: str
    prepared_by: str
    entries: int
    bytes: int
    revision: str | None


def read(directory: Path) -> Release | None:
    """The record of a prepared release, None when the directory is none."""
    try:
        return Release(**json.loads((directory / RECORD).read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def prepared(config: Config) -> dict[str, Release]:
    """All releases on this host, oldest first."""
    found = []
    for entry in os.scandir(config.releases):
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            release = read(Path(entry.path))
            if release is not None and release.id == entry.name:
                found.append(release)
    return {release.id: release for release in sorted(found, key=lambda release: (release.prepared_at, release.id))}


def sweep(config: Config) -> list[str]:
    """Remove what a killed verb left: half releases and received archives. Runs under the flock, when nobody builds."""
    removed = []
    for entry in os.scandir(config.releases):
        if entry.is_dir(follow_symlinks=False) and read(Path(entry.path)) is None:
            # The verb died, what it had started in a unit of its own may still be writing.
            run(["systemctl", "stop", *(f"releasectl-{step}-{entry.name}.service" for step in ("build", "static"))])
            remove_tree(Path(entry.path))
            removed.append(entry.name)
    staging = config.state / "staging"
    for left in staging.iterdir() if staging.is_dir() else ():
        left.unlink()
    # Half-copied, of a release that nobody may ever prepare again.
    for left in config.static.rglob(temporary_name("*")):
        left.unlink()
    return removed


def prepare(config: Config, release: str, name: str, sha256: str, actor: str, say: Callable[[str], None]) -> Release:
    """Receive, unpack, build and collect one release; on any failure nothing of it is left."""
    directory = config.release_dir(release)
    staging = config.state / "staging"
    staging.mkdir(mode=0o700, exist_ok=True)
    archive = staging / f"{release}.tar.gz"
    try:
        _require_space(config)
        say("receiving the artifact")
        artifact.receive(config.incoming, name, archive, sha256, config.artifact_max_bytes)
        say("unpacking")
        limits = artifact.Limits(
            config.artifact_max_bytes, config.unpacked_max_bytes, config.unpacked_max_entries, config.unpacked_max_depth
        )
        directory.mkdir(mode=0o755)
        entries = artifact.unpack(archive, directory / "src", limits)
        say("building the virtual environment")
        _build_environment(config, directory, release)
        say("collecting static files")
        known = _collect_static(config, directory, release)
        size = _make_root_owned(directory)
        say("publishing hashed static files")
        publish_static(config, directory)
        migrations.keep(directory, known)
        record = Release(release, sha256, timestamp(), actor, entries, size, _revision(directory))
        write_json(directory / RECORD, asdict(record), 0o644)
        sync_directory(config.releases)
        return record
    except BaseException as error:
        remove_tree(directory)
        if isinstance(error, OSError):
            raise Refusal(
                f"Preparing {release} failed: {error.strerror} ({error.filename or config.releases});"
                " nothing of it was kept and the live release was not touched."
            ) from error
        raise
    finally:
        archive.unlink(missing_ok=True)


def _require_space(config: Config) -> None:
    for path in (config.releases, config.state):
        free = shutil.disk_usage(path).free
        if free < config.free_min_bytes:
            raise Refusal(
                f"Only {free // 2**20} MiB are free on {path}, fewer than release_free_min_bytes"
                f" ({config.free_min_bytes // 2**20} MiB): run 'releasectl prune' or grow the disk."
            )


def _sandbox(config: Config, directory: Path, writable: list[Path]) -> list[str]:
    """Properties of the unit that runs a deployer's code; systemd.exec(5) for each."""
    hidden = " ".join(
        f"-{path}"
        for path in (config.env.parent, config.private_run, config.run, config.incoming, config.state, config.events)
    )
    return [
        f"User={config.build_user}",
        f"Group={config.build_user}",
        f"WorkingDirectory={directory / 'src'}",
        # A build may take what serving leaves over: on two cores it would otherwise slow every request down.
        "Nice=10",
        "IOSchedulingClass=idle",
        "ProtectSystem=strict",
        f"TemporaryFileSystem={config.releases}:ro",
        f"BindReadOnlyPaths={directory}",
        *(f"BindPaths={path}" for path in writable),
        f"InaccessiblePaths={hidden}",
        *CONFINED,
        "ProtectProc=invisible",
        "PrivateUsers=yes",
        "RemoveIPC=yes",
        "CapabilityBoundingSet=",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        # Not MemoryDenyWriteExecute=, and @resources stays: compilers write code and run it, and make themselves nice.
        "SystemCallFilter=~@privileged",
        "SystemCallFilter=@chown",
        "TasksMax=512",
        f"MemoryMax={config.build_memory_max}",
    ]


def _own(config: Config, *paths: Path) -> None:
    for path in paths:
        path.mkdir(mode=0o755)
        shutil.chown(path, config.build_user, config.build_user)


def _build_environment(config: Config, directory: Path, release: str) -> None:
    requirements = directory / "src" / config.requirements
    if requirements.is_symlink() or not requirements.is_file():
        raise Refusal(
            f"The artifact has no {config.requirements} at its top: lock the app's requirements with hashes"
            " (uv pip compile --generate-hashes) or set app_requirements."
        )
    venv = directory / "venv"
    _own(config, venv)
    script = (
        'set -e; "$1" venv --quiet --allow-existing --python "$2" "$3";'
        ' exec "$1" pip sync --quiet --require-hashes --python "$3/bin/python" "$4"'
    )
    environment = {
        "HOME": str(config.build_cache),
        "UV_CACHE_DIR": str(config.build_cache / "uv"),
        "UV_LINK_MODE": "copy",
        # An edge has a release for its static files: what never runs there need not be compiled.
        "UV_COMPILE_BYTECODE": "1" if config.processes else "0",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_CONFIG": "1",
        "UV_NO_PROGRESS": "1",
        # The authorities that the host's owner chose, not those that uv brings along.
        "UV_SYSTEM_CERTS": "1",
        **config.build_environment,
    }
    sandboxed(
        f"releasectl-build-{release}",
        ["/bin/sh", "-c", script, "sh", str(config.uv), config.python_version, str(venv), str(requirements)],
        _sandbox(config, directory, [venv, config.build_cache]),
        environment,
        config.build_timeout,
        f"Installing {config.requirements}",
    )


def _collect_static(config: Config, directory: Path, release: str) -> tuple[migrations.Record, ...] | None:
    """Collect the static files and, by the same start of Django, learn what each of the migrations does."""
    static = directory / "static"
    _own(config, static)
    environment = {
        "HOME": "/nonexistent",
        "DJANGO_SETTINGS_MODULE": config.settings_module,
        "STATIC_ROOT": str(static),
        "RELEASE_ID": release,
        "PYTHONDONTWRITEBYTECODE": "1",
        **config.build_environment,
        **config.build_settings,
    }
    python = str(directory / "venv" / "bin" / "python")
    words = {"mode": "describe", "manage": ["collectstatic", "--noinput", "--verbosity", "0"]}
    said: list[str] = []
    sandboxed(
        f"releasectl-static-{release}",
        [python, inside(config), json.dumps(words)],
        [*_sandbox(config, directory, [static]), "PrivateNetwork=yes"],
        environment,
        config.build_timeout,
        "Collecting static files",
        lambda line: said.append(line) if line.startswith(MARK) else None,
    )
    return described(said)


def _make_root_owned(directory: Path) -> int:
    """Give the release to root, readable by all and writable by nobody else; return its size in bytes.

    No process of the build user is left by now, so nothing changes underneath. Links are not followed.
    """
    size = 0
    for parent, names, files in os.walk(directory):
        for name in [".", *names, *files]:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                os.lchown(path, 0, 0)
                continue
            if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
                raise Refusal(
                    f"The build made a special file, {path}: a release holds only files, directories and links."
                )
            executable = stat.S_ISDIR(status.st_mode) or status.st_mode & 0o100
            os.chown(path, 0, 0)
            os.chmod(path, 0o755 if executable else 0o644)
            if stat.S_ISREG(status.st_mode):
                if status.st_nlink > 1:
                    raise Refusal(f"The build made a hard link, {path}: whoever holds the other name could change it.")
                size += status.st_size
    return size


def _revision(directory: Path) -> str | None:
    path = directory / "src" / "REVISION"
    if path.is_symlink() or not path.is_file():
        return None
    return path.read_text(errors="replace").strip()[:64] or None


def hashed_files(directory: Path) -> set[str]:
    """The release's static files whose name carries a hash of their content, relative to its static directory."""
    root = directory / "static"
    found = set()
    for parent, _names, files in os.walk(root):
        for name in files:
            path = os.path.join(parent, name)
            if HASHED.search(name) and not os.path.islink(path):
                found.add(os.path.relpath(path, root))
    return found


def publish_static(config: Config, directory: Path) -> None:
    """Copy hashed files beside those of other releases, additively: what is published is never overwritten."""
    for relative in sorted(hashed_files(directory)):
        target = config.static / relative
        if target.exists():
            continue
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary = target.with_name(temporary_name(target.name))
        shutil.copyfile(directory / "static" / relative, temporary, follow_symlinks=False)
        temporary.chmod(0o644)
        # First, so that a crash between the two leaves no file that is for ever without; of the copy, which is root's.
        if target.suffix in TEXTS and not temporary.is_symlink() and temporary.stat().st_size >= COMPRESSED_FROM:
            packed = target.with_name(f"{target.name}.gz")
            half = packed.with_name(temporary_name(packed.name))
            half.write_bytes(gzip.compress(temporary.read_bytes(), 9, mtime=0))
            half.chmod(0o644)
            half.rename(packed)
        temporary.rename(target)


def remove(config: Config, release: str) -> None:
    """Remove a release: its record first, so that a crash leaves litter for `sweep` and never a half release."""
    directory = config.release_dir(release)
    (directory / RECORD).unlink(missing_ok=True)
    remove_tree(directory)


def prune_static(config: Config, keep: list[str], older_than: float) -> int:
    """Remove published files that no kept release has and that are older than ``older_than`` seconds."""
    wanted: set[str] = set()
    for release in keep:
        wanted |= hashed_files(config.release_dir(release))
    removed = 0
    for parent, _names, files in os.walk(config.static):
        for name in files:
            path = os.path.join(parent, name)
            if (
                os.path.relpath(path, config.static).removesuffix(".gz") in wanted
                or time.time() - os.lstat(path).st_mtime < older_than
            ):
                continue
            os.unlink(path)
            removed += 1
    return removed
