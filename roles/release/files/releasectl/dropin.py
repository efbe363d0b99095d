"""What makes the same units run a release from an image: a drop-in for each generation, on tmpfs as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from . import build, image, store
from .config import Config
from .errors import Refusal
from .files import remove_tree, write_atomically
from .image import ROOTFS, Image
from .names import GENERATION, Generation
from .state import State
from .systemd import OWN, PROCESSES, run, unit_name

NAME = "image.conf"


def quoted(text: str, command: bool = False) -> str:
    """A word for a unit file, in the syntax of systemd.syntax(7); ``$`` stands for a variable in a command alone."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + (escaped.replace("$", "$$") if command else escaped) + '"'


def content(config: Config, found: Image, process: str, generation: Generation) -> str:
    """The drop-in of one process of a generation."""
    release = generation.release
    rootfs = config.release_dir(release) / ROOTFS
    # Of its command gunicorn gets the options: what is served is among what the launcher knows.
    options = "".join(f" {quoted(word, command=True)}" for word in found.options) if process == "gunicorn" else ""
    lines = [
        "[Service]",
        f"RootDirectory={rootfs}",
        # What is called before and after belongs to the host.
        "RootDirectoryStartOnly=yes",
        "MountAPIVFS=yes",
        f"WorkingDirectory={found.workdir}",
        *(f"BindReadOnlyPaths=-{path}" for path in store.shown(config, release)),
        *(f"BindPaths=-{path}" for path in store.writable(config, process)),
        *(f"Environment={quoted(f'{name}={value}')}" for name, value in found.environment.items()),
        *(("ExecStart=", f"ExecStart={config.launcher} {process} %i{options}") if options else ()),
    ]
    return "\n".join(lines) + "\n"


def ready(config: Config, generation: Generation, anew: bool = True) -> bool:
    """Have everything in place that a generation of a release from an image starts with; return whether it was not.

    A generation of another release needs nothing. What is there already stays as it is unless ``anew``.
    """
    found = image.of(config.release_dir(generation.release))
    if found is None:
        return False
    changed = store.require_mounted(config, generation.release)
    wrote = False
    for process in (*config.processes, *config.jobs):
        path = _directory(config, process, generation) / NAME
        text = content(config, found, process, generation).encode()
        if not path.is_file() or (anew and path.read_bytes() != text):
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_atomically(path, text, 0o644)
            wrote = True
    if wrote:
        reload()
    return changed or wrote


def restore(config: Config, state: State, live: str, everything: bool, say: Callable[[str], None]) -> list[str]:
    """Put back what a reboot, or a hand, took from generations that may be started; ``everything`` mounts what could be
    gone back to as well. Returns what was done. What cannot be put back is said, and refused where it is started.
    """
    done = []
    begun = [one.generation for one in (state.live, state.intent) if one is not None]
    try:
        done += [f"what {one} has of its image was put back" for one in begun if ready(config, one, anew=False)]
        releases = build.prepared(config) if everything else [live]
        done += [f"the image of {one} was mounted again" for one in releases if store.require_mounted(config, one)]
    except (Refusal, OSError) as error:
        say(f"not put back: {error}")
    return done


def reload() -> None:
    """Let systemd read what was written; it answers when it has."""
    done = run(["systemctl", "daemon-reload"])
    if done.returncode != 0:
        raise Refusal(f"systemd did not read its units again: {done.stderr.strip()[:300]}")


def forget_all_but(config: Config, wanted: Iterable[str]) -> None:
    """Drop those of generations that are gone; systemd forgets them with the next reload."""
    keep = set(wanted)
    for place in config.dropins.glob("*@*.service.d"):
        process, _at, instance = place.name.removesuffix(".service.d").partition("@")
        ours = process in PROCESSES or process.startswith(OWN)
        if ours and GENERATION.fullmatch(instance) and instance not in keep and (place / NAME).exists():
            remove_tree(place)


def _directory(config: Config, process: str, generation: Generation) -> Path:
    return config.dropins / f"{unit_name(process, generation)}.d"
