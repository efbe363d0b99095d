"""What a new generation has to show before it may go live: the smoke tests on its socket, and the app's own command."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable

from . import app as apps
from . import sandbox, smoke
from .config import Config
from .errors import Refusal
from .health import UnixConnection, as_nginx
from .names import Generation, shorten
from .settings import Settings
from .systemd import sandboxed


def command_unit(release: str) -> str:
    """The transient unit of the app's own command."""
    return f"releasectl-smoke-{release}"


def verify(
    config: Config, settings: Settings, generation: Generation, version: str | None, say: Callable[[str], None]
) -> None:
    """Return when everything holds; refuse with what does not."""
    tests = tuple(test for test in smoke.parse(config.smoke_tests) if test.at != "edge")
    if tests:
        say(f"asking {len(tests)} smoke tests on its own socket")
        ask_socket(config, generation, tests)
    if config.smoke_command:
        say(f"running {shorten(' '.join(config.smoke_command))[1:-1]}")
        run_command(config, settings, generation, version)


def ask_socket(config: Config, generation: Generation, tests: tuple[smoke.SmokeTest, ...]) -> None:
    """Ask each test once, as nginx would, over a connection of its own."""
    headers = as_nginx(config.domain)
    for test in tests:
        try:
            answer = smoke.fetch(UnixConnection(config.generation_socket(generation), test.within), test, headers)
            wrong = smoke.judge(test, answer)
        except (OSError, http.client.HTTPException) as error:
            wrong = smoke.trouble(error, test)
        if wrong:
            failed = f"{generation.release} failed its smoke test {test.name}"
            raise Refusal(f"{failed}: it {wrong}.", failed)


def run_command(config: Config, settings: Settings, generation: Generation, version: str | None) -> None:
    """Run release_smoke_command as the app, with the settings that the generation runs with."""
    release = generation.release
    directory = config.release_dir(release)
    environment = {
        **sandbox.app_environment(config, release),
        "PATH": apps.path(config, release),
        "SLIPWAY_SOCKET": str(config.generation_socket(generation)),
    }
    called = f"The command {shorten(' '.join(config.smoke_command))[1:-1]} of {release}"
    path = settings.write_environment(command_unit(release), version)
    began = time.monotonic()
    try:
        sandboxed(
            command_unit(release),
            sandbox.command(config, release, config.smoke_command),
            sandbox.app(config, directory, path),
            environment,
            config.smoke_command_timeout,
            called,
        )
    except Refusal as refusal:
        if time.monotonic() - began >= config.smoke_command_timeout:
            raise Refusal(
                f"{called} did not end within {config.smoke_command_timeout} s (release_smoke_command_timeout).",
                f"{called} did not end within {config.smoke_command_timeout} s (release_smoke_command_timeout)",
                **refusal.details,
            ) from None
        refusal.discreet = f"{called} failed"
        raise
    finally:
        path.unlink(missing_ok=True)
