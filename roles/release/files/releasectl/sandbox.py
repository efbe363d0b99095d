"""What a release's code may do while it serves nobody: properties of transient units; systemd.exec(5) for each."""

from __future__ import annotations

import os
from pathlib import Path

from . import app as apps
from .config import Config
from .systemd import CONFINED


def build(config: Config, directory: Path, writable: list[Path], working: Path | None = None) -> list[str]:
    """As the build user: no settings, no running release and no other build. ``directory`` and its virtual environment
    can be read, and only ``writable`` be written; ``working`` is where it starts, by default the release's code.
    """
    hidden = " ".join(
        f"-{path}"
        for path in (config.env.parent, config.private_run, config.run, config.incoming, config.state, config.events)
    )
    venv = directory / "venv"
    shared = [Path(os.readlink(venv))] if venv.is_symlink() else []
    return [
        f"User={config.build_user}",
        f"Group={config.build_user}",
        f"WorkingDirectory={working or directory / 'src'}",
        # A build may take what serving leaves over: on two cores it would otherwise slow every request down.
        "Nice=10",
        "IOSchedulingClass=idle",
        "ProtectSystem=strict",
        f"TemporaryFileSystem={config.releases}:ro",
        f"TemporaryFileSystem={config.venvs}:ro",
        *(f"BindReadOnlyPaths={path}" for path in shared),
        *(() if directory in writable else (f"BindReadOnlyPaths={directory}",)),
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


def app(config: Config, directory: Path, environment_file: Path, working: Path | None = None) -> list[str]:
    """As the app's user with the app's settings, which systemd alone reads from ``environment_file``; ``working`` is
    where it starts, by default where manage.py is.
    """
    release = directory.name
    return [
        f"User={config.app_user}",
        f"Group={config.app_group}",
        f"WorkingDirectory={working or apps.working(config, release, apps.of(config, release))}",
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


def environment(config: Config, release: str, found: apps.App | None = None) -> dict[str, str]:
    """What every command of a release finds in its environment, whoever it runs as; ``found`` while it is made."""
    app = found or apps.of(config, release)
    return {
        **apps.settings(config, app),
        "PYTHONPATH": apps.python_path(config, release, app),
        "RELEASE_ID": release,
        "STATIC_ROOT": str(config.release_dir(release) / "static"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def app_environment(config: Config, release: str) -> dict[str, str]:
    """What a command that runs as the app finds beside the app's settings: the app's user has no home."""
    return {"HOME": "/nonexistent", **environment(config, release)}
