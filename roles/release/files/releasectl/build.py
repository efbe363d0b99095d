"""Making a release: as a user of its own, in a sandbox that sees no settings, no running release and no other build."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from . import app as apps
from . import artifact, budget, health, migrations, needs, requirements, sandbox, static, store, venvs
from .config import Config
from .errors import Refusal
from .events import timestamp
from .files import remove_tree, sync_directory, temporary_name, write_json
from .hooks import Hooks, hook_unit
from .migrate import MARK, described, inside
from .ownership import give_to_build_user, make_root_owned
from .settings import Settings
from .systemd import run, sandboxed

RECORD = "release.json"


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
    # How it is run and what of that was guessed (app.py), how its requirements were given, and how many were installed.
    app: dict[str, object] = field(default_factory=dict)
    requirements: dict[str, object] = field(default_factory=dict)
    # The image that it was made of, with its digest, where that says what it is made of, and by which key it is signed
    # (its SHA-256); None for an artifact.
    image: str | None = None
    sbom: str | None = None
    signed_by: str | None = None
    # The names of the settings that it says it needs (needs.py).
    settings: list[str] = field(default_factory=list)


def sentence(release: Release) -> str:
    """What there is now, and what was taken for granted on the way."""
    said = f"{release.id} is prepared."
    guessed = release.app.get("guessed")
    if isinstance(guessed, dict) and guessed:
        said += " Guessed: " + "; ".join(f"app_{name} is {value}" for name, value in guessed.items()) + "."
    if not release.app.get("health_path"):
        said += f" No health path is known: it is taken for healthy by {health.asked('')}."
    if release.requirements.get("kind") == "listed":
        said += f" Its {release.requirements['installed']} requirements were installed without hashes."
    return said


def told(release: Release) -> dict[str, object]:
    """What `prepare` answers of how the app is run: what was guessed, and what has no hash."""
    app = release.app
    return {
        "guessed": app.get("guessed") or {},
        "health_path": app.get("health_path") or "",
        "requirements": release.requirements,
    }


KNOWN = {item.name for item in fields(Release)}


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


def expectation(config: Config) -> tuple[int, int]:
    """The bytes and the files that the next release of an artifact will take: it will be much like the last one."""
    newest = next((found for found in reversed(prepared(config).values()) if found.image is None), None)
    if newest is None:
        return 0, 0
    # With its virtual environment: whether that can be shared is known once the next one is unpacked.
    disk, files = venvs.size(config.release_dir(newest.id))
    return (newest.disk or newest.bytes) + disk, newest.files + files


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
    venvs.sweep(config)
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
    expected, files = expectation(config)
    with ExitStack() as after:
        after.callback(archive.unlink, missing_ok=True)
        after.enter_context(whole_or_nothing(config, release, mine, lambda _error: venvs.prune(config)))
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
        publish(config, directory, made.migrations, say)
        record = Release(
            release, sha256, timestamp(), actor, entries, made.bytes, _revision(directory), made.disk, made.entries,
            made.app.public(), made.requirements, settings=made.settings,
        )  # fmt: skip
        return finish(config, record)


@contextmanager
def whole_or_nothing(
    config: Config, release: str, mine: Hooks, forget: Callable[[BaseException], object]
) -> Iterator[None]:
    """On any failure nothing of a release that is made is left; ``forget`` removes what is not in its directory."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, (Refusal, OSError)):
            mine.build_failed(str(error))
        clear(config, config.release_dir(release))
        forget(error)
        if isinstance(error, OSError):
            raise Refusal(
                f"Preparing {release} failed: {error.strerror} ({error.filename or config.releases});"
                " nothing of it was kept and the live release was not touched."
            ) from error
        raise


def publish(
    config: Config, directory: Path, known: tuple[migrations.Record, ...] | None, say: Callable[[str], None]
) -> None:
    """What others than the release's own processes read of it: its hashed static files, and what its migrations do."""
    say("publishing hashed static files")
    static.publish_static(config, directory)
    migrations.keep(directory, known)


def finish(config: Config, record: Release) -> Release:
    """Write the record, which makes the directory a release."""
    write_json(config.release_dir(record.id) / RECORD, asdict(record), 0o644)
    sync_directory(config.releases)
    return record


@dataclass(frozen=True)
class Made:
    """What was made of the code: its migrations as the lint sees them, and what it is on the disk."""

    migrations: tuple[migrations.Record, ...] | None
    bytes: int
    disk: int
    entries: int
    app: apps.App
    requirements: dict[str, object]
    settings: list[str]


def _make(config: Config, directory: Path, release: str, say: Callable[[str], None], mine: Hooks) -> Made:
    """From code to a release that is root's."""
    mine.check()
    wanted = require_settings(config, release, directory / "src")
    _build_hook(config, mine, "before_build", [config.build_cache], network=True)
    app = apps.look(config, directory / "src")
    app.tell(say)
    say("providing the virtual environment")
    provided = venvs.provide(config, directory, release, app.requirements)
    if provided.there:
        say("that of the same requirements is there already")
    noted = {"file": app.requirements, "kind": provided.kind, "installed": requirements.note(directory)}
    apps.check(config, directory, app)
    say("collecting static files")
    known = collect_static(config, directory, release, app, say)
    _build_hook(config, mine, "after_build", [directory / "static"], network=False)
    measured = make_root_owned(directory)
    # Those that run later are as the build left them.
    mine.check()
    return Made(known, *measured, app, noted, wanted)


def require_settings(config: Config, release: str, source: Path) -> list[str]:
    """The settings that the code says it needs; refuse it where they are not in force and it would run."""
    wanted = needs.of(source)
    known = Settings.of(config)
    gone = needs.missing(wanted, known.names(known.current())) if config.processes else []
    if gone:
        raise Refusal(needs.sentence(release, gone))
    return wanted


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


def collect_static(
    config: Config, directory: Path, release: str, app: apps.App, say: Callable[[str], None]
) -> tuple[migrations.Record, ...] | None:
    """Collect the static files and, by the same start of Django, learn what each of the migrations does."""
    collected = directory / "static"
    give_to_build_user(config, collected)
    environment = {
        "HOME": "/nonexistent",
        **sandbox.environment(config, release, app),
        **config.build_environment,
        **config.build_settings,
    }
    words = {"mode": "describe", "manage": ["collectstatic", "--noinput", "--verbosity", "0"]}
    said: list[str] = []
    sandboxed(
        f"releasectl-static-{release}",
        [*sandbox.python(config, release), inside(config), json.dumps(words)],
        [*sandbox.build(config, directory, [collected], apps.working(config, release, app)), "PrivateNetwork=yes"],
        environment,
        config.build_timeout,
        "Collecting static files",
        lambda line: said.append(line) if line.startswith(MARK) else None,
    )
    there, root = static.said_root(said)
    if there:
        static.lead(directory, root)
    else:
        say("django.contrib.staticfiles is not among INSTALLED_APPS, so there are no static files")
    return described(said)


def _revision(directory: Path) -> str | None:
    path = directory / "src" / "REVISION"
    if path.is_symlink() or not path.is_file():
        return None
    with path.open(errors="replace") as stream:  # which may be as long as a hook liked
        return stream.read(200).strip()[:64] or None


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
