"""A management command, typed by an operator: in the live release, as the app, with its settings and in its sandbox."""

from __future__ import annotations

import os
import subprocess
import sys

from . import app as apps
from . import sandbox
from .config import Config
from .errors import Refusal, UsageError
from .settings import Settings

LONGEST = 24 * 3600  # seconds


def run(config: Config, words: list[str]) -> int:
    """Run ``manage.py words`` on this terminal; return what it ended with."""
    if not words:
        raise UsageError("Say which command: sudo app-manage createsuperuser, or help for all that there are.")
    if os.geteuid() != 0:
        raise UsageError("app-manage needs root: run it with sudo.")
    release = config.current.resolve().name
    directory = config.release_dir(release)
    if not config.current.is_symlink() or not (directory / "release.json").is_file():
        raise Refusal("No release is live yet: deploy one first (playbooks/deploy.yml).")
    name = f"app-manage-{os.getpid()}"
    settings = Settings.of(config)
    path = settings.write_environment(name, settings.current())
    app = apps.of(config, release)
    manage = apps.code(config, release) / app.directory / "manage.py"
    command = ["systemd-run", "--quiet", "--collect", "--wait", f"--unit={name}"]
    command.append("--pty" if sys.stdin.isatty() and sys.stdout.isatty() else "--pipe")
    for item in (*sandbox.app(config, directory, path), f"RuntimeMaxSec={LONGEST}", "UMask=0027"):
        command += ["--property", item]
    environment = {**sandbox.app_environment(config, release), "PATH": apps.path(config, release)}
    command += [f"--setenv={key}={value}" for key, value in environment.items()]
    own = [str(apps.working(config, release, app) / "manage.py")] if manage.is_file() else ["-m", "django"]
    program = [*sandbox.python(config, release), *own]
    try:
        return subprocess.run([*command, "--", *program, *words], check=False).returncode
    finally:
        path.unlink(missing_ok=True)
