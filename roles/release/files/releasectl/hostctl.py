"""What systemd runs for us, never a deployer: one word each, called from unit files; and what app-manage calls."""

from __future__ import annotations

import os
import sys
import time

from . import app as apps
from . import drain, manage, record, store, warm
from .cli import ENVIRONMENT, execute
from .config import Config
from .door import Door
from .errors import Refusal
from .job import Job
from .lifecycle import APP_SERVICE, Lifecycle
from .lock import Locks
from .names import Generation, release_id
from .settings import Settings
from .state import Store
from .systemd import JOB, RUNNING, Systemd, telling, unit_name

LAST = 19  # the lowest priority there is, setpriority(2)
BOOT_WAIT = 300.0  # seconds that app.service waits for a running verb


def write_environment(config: Config, generation: str) -> int:
    """ExecStartPre=+ of every process: the settings of the pinned version, and how the app is run, for systemd alone
    to read.
    """
    parsed = Generation.parse(generation)
    settings = Settings.of(config)
    more = apps.launch(config, parsed.release)
    if _tried(config, parsed) and warm.can_be_given_back():
        more["SLIPWAY_NICE"] = str(warm.NICE)
    settings.write_environment(str(parsed), settings.pinned(parsed), more)
    return 0


def _tried(config: Config, generation: Generation) -> bool:
    """Whether it starts beside the one that serves. A state that cannot be read keeps no process from starting."""
    try:
        intent = Store(config.state).read().intent
    except Refusal:
        return False
    return intent is not None and intent.generation == generation


def run_manage(config: Config, *words: str) -> int:
    """app-manage: a management command of the live release."""
    return manage.run(config, list(words))


def tick(config: Config, job: str) -> int:
    """ExecStart of a timer's service: run its job in the live generation, to its end."""
    systemd = Systemd()
    live = Lifecycle(config, systemd).store.read().live
    if live is None or systemd.active(APP_SERVICE) not in RUNNING:
        print(f"{job} is not run: the app does not run here")
        return 0
    unit = unit_name(f"{JOB}{job}", live.generation)
    if not systemd.start(unit):
        raise Refusal(f"{unit} failed: {telling(systemd.journal(unit, 60)) or 'it wrote nothing to the journal'}")
    return 0


def drain_generation(config: Config, generation: str) -> int:
    """ExecStop=+ of gunicorn: wait until nobody is connected, unless it is stopped while it is the live one."""
    if os.environ.get("SERVICE_RESULT", "success") != "success" or not config.drain:
        return 0
    socket = config.generation_socket(Generation.parse(generation))
    if config.socket.is_symlink() and str(config.socket.readlink()) == str(socket):
        return 0  # nothing took its place, so there is nothing to wait for
    if not drain.wait(socket, config.drain_timeout):
        print(f"still connected after {config.drain_timeout} s: stopping gracefully all the same")
        return 0
    # Nobody waits for it any more, and what has to be put away when it ends takes processors from those that serve.
    main = int(os.environ.get("MAINPID", "0"))
    warm.give_priority(main, LAST)
    return 0


def boot(config: Config) -> int:
    """ExecStart of app.service: bring up what `current` points to, and record it."""
    with Locks(config.private_run, config.state).verb("start", "app.service", BOOT_WAIT):
        lifecycle = Lifecycle(config, Systemd(), print)
        started, before = time.monotonic(), record.recorded(lifecycle)
        outcome, message = "ok", ""
        try:
            message = "; ".join(lifecycle.reconcile("app.service", boot=True))
        except Refusal as refusal:
            outcome, message = "failed", refusal.message
            print("\n".join(str(line) for line in refusal.details.get("journal", ())))  # type: ignore[attr-defined]
            raise
        finally:
            if message:
                record.write_start(lifecycle, before, outcome, message, started)
        print(message or "Nothing to bring up.")
    return 0


def stop(_config: Config) -> int:
    """ExecStop of app.service: every process of every generation."""
    systemd = Systemd()
    systemd.stop(unit.name for unit in systemd.units())
    return 0


def may_open(config: Config) -> int:
    """ExecCondition of app-door.service: whether there is something to serve, and nobody took the host out."""
    systemd = Systemd()
    live = Lifecycle(config, systemd).live_release()
    return 0 if live is not None and Door(config, systemd).drained() is None else 1


def healthy(config: Config) -> int:
    """ExecStartPre of app-door.service: whether the live release answers as it should."""
    Door(config, Systemd()).healthy()
    return 0


def mount_image(config: Config, release: str) -> int:
    """Outside of every sandbox: what a release from an image runs in."""
    store.mount(config, release_id(release))
    return 0


def unmount_image(config: Config, release: str) -> int:
    """Before the directory of a release from an image is removed."""
    store.detach(config, release_id(release))
    return 0


def job(config: Config, key: str) -> int:
    """The inside of a transient unit: run the verb that was asked for and leave the answer."""
    mine = Job(config.private_run, key)
    try:
        answer = execute(config, mine.request(), mine.say)
    except Exception as error:
        text = f"{type(error).__name__}: {error}; the traceback is in 'journalctl -u {mine.unit}'."
        mine.finish({"ok": False, "changed": False, "message": text, "exit": 1})
        raise
    mine.finish(answer)
    return int(str(answer["exit"]))


WORDS = {
    "environment": write_environment,
    "drain": drain_generation,
    "boot": boot,
    "stop": stop,
    "may-open": may_open,
    "healthy": healthy,
    "mount": mount_image,
    "unmount": unmount_image,
    "job": job,
    "tick": tick,
    "manage": run_manage,
}


def main(argv: list[str]) -> int:
    """Entry point of /usr/local/libexec/slipway/hostctl."""
    # What systemd says of a unit that stops, systemd.exec(5).
    told = {name: os.environ[name] for name in ("SERVICE_RESULT", "MAINPID") if name in os.environ}
    os.environ.clear()
    os.environ.update(ENVIRONMENT | told)
    os.umask(0o022)
    word, *rest = argv or [""]
    if word not in WORDS:
        print(f"hostctl knows {', '.join(WORDS)}: it is called by systemd units only", file=sys.stderr)
        return 2
    try:
        config = Config.load()
        config.make_directories()
        return WORDS[word](config, *rest)  # type: ignore[operator]
    except Refusal as refusal:
        print(refusal.message, file=sys.stderr)
        return refusal.exit_status
