"""What a release's code may do while it serves nobody: properties of transient units; systemd.exec(5) for each."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from . import app as apps
from . import image, store
from .config import Config
from .systemd import CONFINED, SPARING

# Finds a program by the PATH of whatever root it runs in: systemd-run looks for it on the host.
BY_PATH = ["/bin/sh", "-c", 'exec "$@"', "sh"]


def build(config: Config, directory: Path, writable: list[Path], working: Path | None = None) -> list[str]:
    """As the build user: no settings, no running release and no other build. ``directory`` and its virtual environment
    can be read, and only ``writable`` be written; ``working`` is where it starts, by default where the code begins.
    """
    hidden = " ".join(
        f"-{path}"
        for path in (config.env.parent, config.private_run, config.run, config.incoming, config.state, config.events)
    )
    # A directory of another kind may be the build user's own, and what lies in it says nothing.
    found = image.of(directory) if directory.parent == config.releases else None
    if found is not None:
        root = _inside(config, directory, working or Path(found.workdir), writable)
    else:
        venv = directory / "venv"
        shared = [Path(os.readlink(venv))] if venv.is_symlink() else []
        root = [
            f"WorkingDirectory={working or directory / 'src'}",
            f"TemporaryFileSystem={config.releases}:ro",
            f"TemporaryFileSystem={config.venvs}:ro",
            *(f"BindReadOnlyPaths={path}" for path in shared),
            *(() if directory in writable else (f"BindReadOnlyPaths={directory}",)),
            *(f"BindPaths={path}" for path in writable),
        ]
    return [
        f"User={config.build_user}",
        f"Group={config.build_user}",
        *root,
        *SPARING,
        "ProtectSystem=strict",
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


def app(config: Config, directory: Path, environment_file: Path, working: Path | None = None) -> list[str]:
    """As the app's user with the app's settings, which systemd alone reads from ``environment_file``; ``working`` is
    where it starts, by default where manage.py is.
    """
    release = directory.name
    start = working or apps.working(config, release, apps.of(config, release))
    writable = [Path(path) for path in config.writable]
    return [
        f"User={config.app_user}",
        f"Group={config.app_group}",
        *(
            [f"WorkingDirectory={start}"]
            if image.of(directory) is None
            else _inside(config, directory, start, writable)
        ),
        f"EnvironmentFile={environment_file}",
        "ProtectSystem=strict",
        *(f"ReadWritePaths={path}" for path in config.writable),
        *CONFINED,
        "ProtectProc=invisible",
        "ProcSubset=pid",
        "PrivateUsers=yes",
        "CapabilityBoundingSet=",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "SystemCallFilter=~@privileged @resources",
        f"InaccessiblePaths=-{config.private_run} -{config.incoming} -{config.events.parent}",
    ]


def _inside(config: Config, directory: Path, working: Path, writable: Iterable[Path]) -> list[str]:
    """Inside the image of a release, of the host only what is shown there; sockets can be connected to."""
    mine = set(writable)
    return [
        f"RootDirectory={directory / image.ROOTFS}",
        "MountAPIVFS=yes",
        f"WorkingDirectory={working}",
        *(f"BindReadOnlyPaths=-{path}" for path in store.shown(config, directory.name) if path not in mine),
        f"BindReadOnlyPaths=-{config.run}",
        *(f"BindPaths={path}" for path in mine),
    ]


def python(config: Config, release: str) -> list[str]:
    """The first words of a command that the release's own Python runs."""
    directory = config.release_dir(release)
    found = image.of(directory)
    return [str(directory / "venv" / "bin" / "python")] if found is None else [*BY_PATH, found.python]


def command(config: Config, release: str, words: Iterable[str]) -> list[str]:
    """Words of which the first is a program of the release's own, if there is such, or of what is around it."""
    first, *rest = words
    directory = config.release_dir(release)
    if image.of(directory) is not None:
        return [*BY_PATH, first, *rest]
    own = directory / "venv" / "bin" / first
    return [str(own) if "/" not in first and own.exists() else first, *rest]


def environment(config: Config, release: str, found: apps.App | None = None) -> dict[str, str]:
    """What every command of a release finds in its environment, whoever it runs as; ``found`` while it is made."""
    app = found or apps.of(config, release)
    whole = image.of(config.release_dir(release))
    said = whole.environment if whole is not None else {}
    return {
        **({**said, "PATH": whole.path} if whole is not None else {}),
        **apps.settings(config, app),
        "PYTHONPATH": ":".join(filter(None, (apps.python_path(config, release, app), said.get("PYTHONPATH")))),
        "RELEASE_ID": release,
        "STATIC_ROOT": str(config.release_dir(release) / "static"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def app_environment(config: Config, release: str) -> dict[str, str]:
    """What a command that runs as the app finds beside the app's settings: the app's user has no home."""
    return {"HOME": "/nonexistent", **environment(config, release)}
