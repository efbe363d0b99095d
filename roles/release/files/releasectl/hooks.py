"""Programs that a release brings along at .slipway/hooks/<point>, run at fixed points of its life.

They are the app's code. Those of the build run as the build user, without settings; the others as the app, with its
settings. docs/ops/hooks.md says what each may do, and what its failure means.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import app as apps
from . import image, sandbox
from .config import Config
from .errors import Refusal
from .names import Generation, shorten
from .settings import Settings
from .systemd import Ended, confined, telling

DIRECTORY = Path(".slipway/hooks")
BUILD = ("before_build", "after_build")
FAILURE = "on_failure"
POINTS = (*BUILD, "before_migrate", "after_migrate", "before_activate", "after_activate", FAILURE)
# What is kept of what a hook says: the end of it.
KEPT_LINES = 200
KEPT_BYTES = 16 * 1024
SHOWN_LINES = 20
GRACE = 5  # seconds between the request to end and the end, for a hook that took too long
NOT_STARTED = 203  # EXIT_EXEC of systemd.exec(5)
SHELL_NOT_STARTED = (126, 127)


@dataclass(frozen=True)
class Ran:
    """One hook that ran: ``outcome`` is ok, failed or expired; ``exit`` is None when its time was over."""

    name: str
    outcome: str
    exit: int | None
    seconds: float
    output: str

    def public(self) -> dict[str, object]:
        """As the answer and the record have it."""
        return dict(vars(self))


def check(source: Path) -> None:
    """Refuse what would silently never run, or would run something else than it seems to."""
    for directory in (source / DIRECTORY.parent, source / DIRECTORY):
        if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
            raise Refusal(f"The artifact's {directory.relative_to(source)} is no directory: hooks are files inside it.")
    if not (source / DIRECTORY).is_dir():
        return
    for name in sorted(os.listdir(source / DIRECTORY)):
        status = os.lstat(source / DIRECTORY / name)
        if name not in POINTS:
            near = difflib.get_close_matches(name, POINTS, 1, 0.6)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(POINTS)}."
            raise Refusal(
                f"The artifact's {DIRECTORY} holds {shorten(name)}, which is no hook and would never run: {hint}"
            )
        if not stat.S_ISREG(status.st_mode):
            raise Refusal(f"The artifact's hook {name} is a link or no plain file: put the program itself there.")
        if not status.st_mode & 0o100:
            raise Refusal(
                f"The artifact's hook {name} is not executable: run 'git update-index --chmod=+x {DIRECTORY}/{name}'"
                " in the app's repository, commit and pack it anew."
            )


class Hooks:
    """The hooks of one release, as one verb runs them; ``ran`` and ``warnings`` are for the answer and the record."""

    def __init__(
        self, config: Config, verb: str, release: str, previous: str | None, say: Callable[[str], None]
    ) -> None:
        self.config = config
        self.verb = verb
        self.release = release
        self.previous = previous
        self.say = say
        self.directory = config.release_dir(release)
        self.image = image.of(self.directory) is not None
        self.ran: list[Ran] = []
        self.warnings: list[str] = []
        self.checked = False

    def check(self) -> None:
        """Refuse hooks of a release in the making that would silently never run, see `check`."""
        self.image = image.of(self.directory) is not None
        check(apps.code(self.config, self.release))
        self.checked = True

    def there(self, point: str) -> bool:
        """Whether the release has this hook and it may run; a pure edge runs nothing of the app."""
        if not self.config.hooks or not (self.config.processes or point in BUILD or self.verb == "prepare"):
            return False
        if self.image and point == BUILD[0]:
            return False  # what it would be before was done elsewhere
        return (apps.code(self.config, self.release) / DIRECTORY / point).is_file()

    # While a release is made

    def build(self, point: str, writable: list[Path], network: bool) -> None:
        """Run a hook of the build, as the build user; its failure is the build's."""
        ran = self._build(point, writable, network)
        self._must(ran, "nothing of the release was kept, and the live one was not touched")

    def build_failed(self, why: str) -> None:
        """on_failure of a release that could not be prepared: it may look and tell, and write nothing."""
        if self.checked:
            with self._best_effort():
                self._warn(self._build(FAILURE, [], network=True, failure=why))

    def _build(self, point: str, writable: list[Path], network: bool, failure: str = "") -> Ran | None:
        if not self.there(point):
            return None
        properties = sandbox.build(self.config, self.directory, writable)
        own = {
            "HOME": str(self.config.build_cache if self.config.build_cache in writable else "/nonexistent"),
            **self.config.build_environment,
            **self.config.build_settings,
        }
        return self._run(point, [*properties, *([] if network else ["PrivateNetwork=yes"])], own, failure)

    # With the app's settings

    @contextlib.contextmanager
    def migrating(self, settings: str | None) -> Iterator[None]:
        """Run the hooks around a migration, also where there turns out to be nothing to apply."""
        try:
            self._must(self._app("before_migrate", settings), "nothing was migrated, what is live goes on serving")
            yield
            self._must(
                self._app("after_migrate", settings), "the migrations are applied, what was live goes on serving"
            )
        except Refusal as refusal:
            self.failed(refusal.message, settings)
            raise

    def before_activate(self, generation: Generation, settings: str | None) -> None:
        """The new generation is healthy on its own socket, and nobody is sent to it yet. No rollback waits for it."""
        if self.verb != "rollback":
            try:
                ran = self._app("before_activate", settings, generation)
            except OSError as error:
                raise Refusal(f"The hook before_activate could not be run: {error.strerror or error}.") from error
            self._must(ran, "nothing was switched")

    def after_activate(self, generation: Generation, settings: str | None) -> None:
        """The new generation serves: a failure is told, and undoes nothing."""
        with self._best_effort():
            self._warn(self._app("after_activate", settings, generation))

    def failed(self, why: str, settings: str | None) -> None:
        """on_failure, after everything was put back. A rollback that fails is told at once."""
        if self.verb != "rollback":
            with self._best_effort():
                self._warn(self._app(FAILURE, settings, failure=why))

    def _app(
        self, point: str, settings: str | None, generation: Generation | None = None, failure: str = ""
    ) -> Ran | None:
        if not self.there(point):
            return None
        config = self.config
        path = Settings.of(config).write_environment(f"hook-{self.release}", settings)
        try:
            properties = [
                *sandbox.app(config, self.directory, path, apps.root(config, self.release)),
                "TasksMax=512",
                f"MemoryMax={config.build_memory_max}",
                # When memory is short, a hook goes before anything that serves.
                "OOMScoreAdjust=500",
            ]
            own = {"HOME": "/nonexistent"}
            if generation is not None:
                own["RELEASE_GENERATION"] = str(generation)
                if "gunicorn" in config.processes:
                    own["SLIPWAY_SOCKET"] = str(config.generation_socket(generation))
            return self._run(point, properties, own, failure)
        finally:
            path.unlink(missing_ok=True)

    # Running one

    def _run(self, point: str, properties: list[str], own: dict[str, str], failure: str) -> Ran:
        limit = self.config.hook_timeout
        self.say(f"running the hook {point}")
        environment = {
            **own,
            **sandbox.environment(self.config, self.release),
            "PATH": apps.path(self.config, self.release),
            "LANG": "C.UTF-8",
            "PREVIOUS_RELEASE_ID": self.previous or "",
            "SLIPWAY_HOOK": point,
            "SLIPWAY_VERB": self.verb,
            "SLIPWAY_DOMAIN": self.config.domain,
            "SLIPWAY_FAILURE": _printable(failure)[:500],
        }
        ended = confined(
            hook_unit(self.release),
            self._program(point),
            [*properties, f"TimeoutStopSec={GRACE}"],
            environment,
            limit,
            kept=KEPT_BYTES,
            together=True,
        )
        outcome = "ok" if ended.code == 0 else "expired" if ended.seconds >= limit else "failed"
        ran = Ran(point, outcome, None if outcome == "expired" else ended.code, round(ended.seconds, 2), _kept(ended))
        self.ran.append(ran)
        for line in ran.output.splitlines()[-SHOWN_LINES:]:
            self.say(f"  | {line}")
        return ran

    def _program(self, point: str) -> list[str]:
        place = apps.root(self.config, self.release) / DIRECTORY / point
        return sandbox.command(self.config, self.release, [str(place)])

    def _sentence(self, ran: Ran) -> str:
        if ran.outcome == "expired":
            why = f"it did not end within {self.config.hook_timeout} s (release_hook_timeout)"
        elif ran.exit == NOT_STARTED or (self.image and ran.exit in SHELL_NOT_STARTED):
            why = "it could not be started: does its first line name an interpreter that is there, as in #!/bin/sh?"
        else:
            why = f"exit status {ran.exit}"
            said = telling(ran.output.splitlines())
            why += f", {said}" if said else ", it said nothing"
        return f"the hook {ran.name} of {self.release} failed ({why})"

    def _must(self, ran: Ran | None, consequence: str) -> None:
        if ran is not None and ran.outcome != "ok":
            sentence = self._sentence(ran)
            journal = ran.output.splitlines()[-SHOWN_LINES:]
            raise Refusal(f"{sentence[0].upper()}{sentence[1:]}: {consequence}.", journal=journal)

    def _warn(self, ran: Ran | None) -> None:
        if ran is not None and ran.outcome != "ok":
            self._told(self._sentence(ran))

    def _told(self, warning: str) -> None:
        self.say(f"warning: {warning}")
        self.warnings.append(warning)

    @contextlib.contextmanager
    def _best_effort(self) -> Iterator[None]:
        """What is done is done, or what failed has failed: a hook in its wake changes nothing of it."""
        try:
            yield
        except (Refusal, OSError) as error:
            self._told(f"a hook of {self.release} could not be run ({error})")


def hook_unit(release: str) -> str:
    """The transient unit of a release's hook: one at a time, so that a later one ends what a killed verb left."""
    return f"releasectl-hook-{release}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " if c in "\t\n" else "?" for c in text)


def _kept(ended: Ended) -> str:
    """The last lines, as they can be shown on a terminal and kept in the record."""
    lines = [_printable(line.rstrip()) for line in ended.output.splitlines()]
    return "\n".join(lines[-KEPT_LINES:])
