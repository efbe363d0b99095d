"""Making a release: as a user of its own, in a sandbox that sees no settings, no running release and no other build."""

from __future__ import annotations

import gzip
import json
import os
import pwd
import re
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from . import artifact, budget, migrations, sandbox, store
from .config import Config
from .errors import Refusal
from .events import timestamp
from .files import remove_tree, sync_directory, temporary_name, write_json
from .hooks import Hooks, hook_unit
from .migrate import MARK, described, inside
from .systemd import run, sandboxed

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
    # What it takes on the disk, in bytes, and how many files and directories it has; 0 for those of before.
    disk: int = 0
    files: int = 0
    # The image that it was made of, with its digest, and where that says what it is made of; None for an artifact.
    image: str | None = None
    sbom: str | None = None


KNOWN = {field.name for field in fields(Release)}


def read(directory: Path) -> Release | None:
    """The record of a prepared release, None when the directory is none."""
    try:
        found = json.loads((directory / RECORD).read_text())
        # A later version of this program may have noted more.
        return Release(**{key: value for key, value in found.items() if key in KNOWN})
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, AttributeError):
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
    # No verb but this one runs, so a hook that does was started by one that died.
    run(["systemctl", "stop", f"{hook_unit('*')}.service"])
    for entry in os.scandir(config.releases):
        if entry.is_dir(follow_symlinks=False) and read(Path(entry.path)) is None:
            # The verb died, what it had started in a unit of its own may still be writing.
            run(["systemctl", "stop", *(f"releasectl-{step}-{entry.name}.service" for step in ("build", "static"))])
            clear(config, Path(entry.path))
            removed.append(entry.name)
    staging = config.state / "staging"
    for left in staging.iterdir() if staging.is_dir() else ():
        left.unlink()
    # Half-copied, of a release that nobody may ever prepare again.
    for left in config.static.rglob(temporary_name("*")):
        left.unlink()
    return removed


def prepare(
    config: Config, release: str, name: str, sha256: str, actor: str, say: Callable[[str], None], mine: Hooks
) -> Release:
    """Receive, unpack, build and collect one release, with its hooks; on any failure nothing of it is left."""
    directory = config.release_dir(release)
    staging = config.state / "staging"
    staging.mkdir(mode=0o700, exist_ok=True)
    archive = staging / f"{release}.tar.gz"
    # The next one will be much like the last one.
    newest = next((found for found in reversed(prepared(config).values()) if found.image is None), None)
    expected, files = (newest.disk or newest.bytes, newest.files) if newest else (0, 0)
    try:
        budget.require_disk(config, release, artifact.size(config.incoming, name), expected, files)
        say("receiving the artifact")
        artifact.receive(config.incoming, name, archive, sha256, config.artifact_max_bytes)
        say("unpacking")
        limits = artifact.Limits(
            config.artifact_max_bytes, config.unpacked_max_bytes, config.unpacked_max_entries, config.unpacked_max_depth
        )
        directory.mkdir(mode=0o755)

        def room(size: int) -> None:
            budget.require_disk(config, release, 0, max(size, expected), files)

        entries = artifact.unpack(archive, directory / "src", limits, room)
        made = _make(config, directory, release, say, mine)
        say("publishing hashed static files")
        publish_static(config, directory)
        migrations.keep(directory, made.migrations)
        record = Release(
            release, sha256, timestamp(), actor, entries, made.bytes, _revision(directory), made.disk, made.entries
        )
        write_json(directory / RECORD, asdict(record), 0o644)
        sync_directory(config.releases)
        return record
    except BaseException as error:
        if isinstance(error, (Refusal, OSError)):
            mine.build_failed(str(error))
        remove_tree(directory)
        if isinstance(error, OSError):
            raise Refusal(
                f"Preparing {release} failed: {error.strerror} ({error.filename or config.releases});"
                " nothing of it was kept and the live release was not touched."
            ) from error
        raise
    finally:
        archive.unlink(missing_ok=True)


@dataclass(frozen=True)
class Made:
    """What was made of the code: its migrations as the lint sees them, and what it is on the disk."""

    migrations: tuple[migrations.Record, ...] | None
    bytes: int
    disk: int
    entries: int


def _make(config: Config, directory: Path, release: str, say: Callable[[str], None], mine: Hooks) -> Made:
    """From code to a release that is root's."""
    mine.check()
    _build_hook(config, mine, "before_build", [config.build_cache], network=True)
    say("building the virtual environment")
    _build_environment(config, directory, release)
    say("collecting static files")
    known = collect_static(config, directory, release)
    _build_hook(config, mine, "after_build", [directory / "static"], network=False)
    measured = make_root_owned(directory)
    # Those that run later are as the build left them.
    mine.check()
    return Made(known, *measured)


def _build_hook(config: Config, mine: Hooks, point: str, writable: list[Path], network: bool) -> None:
    """Run a hook that may write the code, which is the build user's as long as that takes, and ``writable``."""
    if not mine.there(point):
        return
    source = mine.directory / "src"
    builder = pwd.getpwnam(config.build_user)
    for parent, names, files in os.walk(source):
        for name in [".", *names, *files]:
            os.lchown(os.path.join(parent, name), builder.pw_uid, builder.pw_gid)
    mine.build(point, [source, *writable], network)
    make_root_owned(source)


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
        sandbox.build(config, directory, [venv, config.build_cache]),
        environment,
        config.build_timeout,
        f"Installing {config.requirements}",
    )


def collect_static(config: Config, directory: Path, release: str) -> tuple[migrations.Record, ...] | None:
    """Collect the static files and, by the same start of Django, learn what each of the migrations does."""
    static = directory / "static"
    static.mkdir(mode=0o755, exist_ok=True)
    shutil.chown(static, config.build_user, config.build_user)
    environment = {
        "HOME": "/nonexistent",
        **sandbox.environment(config, release),
        **config.build_environment,
        **config.build_settings,
    }
    words = {"mode": "describe", "manage": ["collectstatic", "--noinput", "--verbosity", "0"]}
    said: list[str] = []
    sandboxed(
        f"releasectl-static-{release}",
        [*sandbox.python(config, release), inside(config), json.dumps(words)],
        [*sandbox.build(config, directory, [static]), "PrivateNetwork=yes"],
        environment,
        config.build_timeout,
        "Collecting static files",
        lambda line: said.append(line) if line.startswith(MARK) else None,
    )
    return described(said)


def make_root_owned(directory: Path) -> tuple[int, int, int]:
    """Give the release to root, readable by all and writable by nobody else; return the bytes in its files, the
    bytes that it takes on the disk, and how many entries it has.

    No process of the build user is left by now, so nothing changes underneath. Links are not followed.
    """
    size = disk = count = 0
    for parent, names, files in os.walk(directory):
        for name in [".", *names, *files]:
            path = os.path.join(parent, name)
            status = os.lstat(path)
            disk += status.st_blocks * 512
            count += 1
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
    return size, disk, count


def _revision(directory: Path) -> str | None:
    path = directory / "src" / "REVISION"
    if path.is_symlink() or not path.is_file():
        return None
    with path.open(errors="replace") as stream:  # which may be as long as a hook liked
        return stream.read(200).strip()[:64] or None


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
    clear(config, directory)


def clear(config: Config, directory: Path) -> None:
    """Remove what there is of a release, its image's root taken out of it first."""
    if store.mounted(config, directory.name):
        store.unmount(config, directory.name)
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
