"""What an image says of itself, checked: its environment, where it starts, and its command. No image is run as it is.

What is found is kept in the release's directory as image.json, which makes it a release from an image.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from .errors import Refusal
from .files import write_json
from .names import shorten

RECORD = "image.json"
ROOTFS = "rootfs"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
WORKDIR = re.compile(r"/[A-Za-z0-9._/-]{0,199}")
LABEL_REVISION = "org.opencontainers.image.revision"
# What a container needs as its first process, and a service of systemd does not.
INITS = ("tini", "dumb-init")
# What releases say themselves, whatever an image has set.
OURS = ("RELEASE_ID", "RELEASE_GENERATION", "STATIC_ROOT", "HOME", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID")
# Where gunicorn listens is not the image's to say; how it serves is.
BIND = re.compile(r"(-b|--bind)(=.*)?|-b.+")
UNFIT = {
    "-D": "it would leave its service",
    "--daemon": "it would leave its service",
    "--reload": "a release never changes",
    "--certfile": "the edge speaks TLS, the release does not",
    "--keyfile": "the edge speaks TLS, the release does not",
    "--paste": "it would serve what no variable names",
}
# Those of gunicorn's options that no value follows.
FLAGS = {
    "-R", "--capture-output", "--casefold-http-method", "--check-config", "--disable-redirect-access-to-syslog",
    "--do-handshake-on-connect", "--enable-backlog-metric", "--enable-stdio-inheritance", "--initgroups",
    "--log-syslog", "--no-control-socket", "--no-sendfile", "--permit-obsolete-folding",
    "--permit-unconventional-http-method", "--permit-unconventional-http-version", "--preload", "--print-config",
    "--reuse-port", "--spew", "--strip-header-spaces", "--suppress-ragged-eofs",
}  # fmt: skip
APPLICATION = re.compile(r"[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*(\(\))?)?")
WORKER_CLASS = re.compile(r"(?:--worker-class=|-k)(.+)")
ASYNCHRONOUS = re.compile(r"uvicorn|asgi", re.IGNORECASE)
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}
LINKS = 40  # as many as the kernel follows
SET_COMMAND = 'set CMD ["gunicorn", "config.wsgi"] in the Dockerfile, or release_image_command in place of it'


@dataclass(frozen=True)
class Image:
    """An image as releases use it. ``command`` are gunicorn's own words, without where it listens."""

    reference: str
    identity: str  # of its configuration, by which the store knows it
    environment: dict[str, str]
    workdir: str
    command: list[str]
    python: str
    revision: str | None
    bytes: int
    layers: list[str]

    @property
    def path(self) -> str:
        return self.environment.get("PATH", PATH)

    @property
    def application(self) -> str:
        """What its command tells gunicorn to serve; empty when it leaves that open."""
        return next(iter(_apart(self.command)[0]), "")

    @property
    def options(self) -> list[str]:
        """The other words of its command."""
        return _apart(self.command)[1]

    @property
    def worker_class(self) -> str:
        """The class of gunicorn's workers, when its command names one."""
        found = ""
        for word, following in zip_longest(self.options, self.options[1:], fillvalue=""):
            if word in ("-k", "--worker-class"):
                found = following
            elif match := WORKER_CLASS.fullmatch(word):
                found = match[1]
        return found

    @property
    def interface(self) -> str:
        """How its command says that it is to be called: ``wsgi`` or ``asgi``."""
        if self.worker_class:
            return "asgi" if ASYNCHRONOUS.search(self.worker_class) else "wsgi"
        return "asgi" if self.application.partition(":")[0].rpartition(".")[2] == "asgi" else "wsgi"


def architecture_here() -> str:
    """This host's, as images call it."""
    return ARCHITECTURES.get(os.uname().machine, os.uname().machine)


def of(directory: Path) -> Image | None:
    """The image of a release, None when it was made of an artifact."""
    try:
        return Image(**json.loads((directory / RECORD).read_text()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError) as error:
        raise Refusal(
            f"{directory / RECORD} does not say what a release from an image has to ({error}): deploy it again."
        ) from None


def keep(directory: Path, found: Image) -> None:
    write_json(directory / RECORD, asdict(found), 0o644)


def understand(reference: str, said: Any, command: Sequence[str]) -> Image:
    """Read what `podman image inspect` prints; ``command`` stands in for the image's own when it is given."""
    try:
        config = said["Config"] or {}
        architecture, system = str(said["Architecture"]), str(said["Os"])
        identity, size = str(said["Id"]), int(said["Size"])
        layers = [str(layer) for layer in said["RootFS"]["Layers"]]
        labels = dict(config.get("Labels") or {})
        environment = _environment(list(config.get("Env") or []))
        words = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    except (KeyError, TypeError, ValueError) as error:
        raise Refusal(f"{reference} does not describe itself as an image has to ({error!r}): build it anew.") from None
    here = architecture_here()
    if (system, architecture) != ("linux", here):
        raise Refusal(
            f"{reference} is for {system}/{architecture}, this host is linux/{here}: build it for that"
            f" (docker buildx build --platform linux/{here})."
        )
    workdir = str(config.get("WorkingDir") or "/")
    if not WORKDIR.fullmatch(workdir) or ".." in workdir.split("/"):
        raise Refusal(f"{reference} starts in {shorten(workdir)}, which no unit can name: set WORKDIR to a plain path.")
    revision = labels.get(LABEL_REVISION)
    plain = isinstance(revision, str) and re.fullmatch(r"[A-Za-z0-9._-]{1,64}", revision)
    return Image(
        reference,
        identity,
        environment,
        os.path.normpath(workdir),
        web_command(reference, list(command) or words),
        "python",
        revision if plain else None,
        size,
        layers,
    )


def _environment(entries: list[str]) -> dict[str, str]:
    found = {}
    for entry in entries:
        name, _equals, value = entry.partition("=")
        if not NAME.fullmatch(name):
            raise Refusal(
                f"The image sets {shorten(name)} in its environment, which is no variable's name: take it out."
            )
        if any(ord(c) < 32 or ord(c) == 127 for c in value) or len(value) > 32_000:
            raise Refusal(
                f"The image sets {name} to what a unit cannot hand over (a control character, or more than 32,000"
                " characters): take it out, or put it into app_settings."
            )
        if name not in OURS:
            found[name] = value
    return found


def web_command(reference: str, words: Sequence[object]) -> list[str]:
    """The arguments of the image's gunicorn; what cannot be run by a unit is refused by word."""
    said = [str(word) for word in words]
    if not said:
        raise Refusal(f"{reference} has no command, so it does not say how it serves: {SET_COMMAND}.")
    told = shorten(" ".join(said))
    if os.path.basename(said[0]) in INITS:
        said = said[2:] if said[1:2] == ["--"] else said[1:]
    if not said or os.path.basename(said[0]) != "gunicorn":
        raise Refusal(
            f"{reference} starts with {told}, which is not gunicorn: a shell or another server does not tell when it is"
            f" ready, and does not finish its requests; {SET_COMMAND}."
        )
    rest: list[str] = []
    skip = False
    for word in said[1:]:
        if skip:
            skip = False
        elif BIND.fullmatch(word):
            skip = word in ("-b", "--bind")
        elif word.split("=", 1)[0] in UNFIT:
            option = word.split("=", 1)[0]
            raise Refusal(f"{reference} starts gunicorn with {option}: {UNFIT[option]}; {SET_COMMAND}.")
        elif any(ord(c) < 32 or ord(c) == 127 for c in word):
            raise Refusal(f"{reference} starts with {told}, a control character in it: {SET_COMMAND}.")
        else:
            rest.append(word)
    served = _apart(rest)[0]
    if len(served) > 1 or not all(APPLICATION.fullmatch(word) for word in served):
        raise Refusal(
            f"{reference} starts with {told}, of which {shorten(' '.join(served))} does not name one application as"
            f" module:name; {SET_COMMAND}."
        )
    return rest


def _apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Gunicorn's words: what it is told to serve, and its options with their values."""
    served: list[str] = []
    options: list[str] = []
    value = False
    for word in words:
        if value or word.startswith("-"):
            options.append(word)
            glued = "=" in word if word.startswith("--") else len(word) > 2
            value = not value and not glued and word not in FLAGS
        else:
            served.append(word)
    return served, options


# Looking into an image's root, where a link means what it means inside


def inside(root: Path, path: str) -> Path | None:
    """Where ``path`` of the image lies on the host, every link followed as it would be inside; None when nowhere."""
    waiting = [part for part in path.split("/") if part not in ("", ".")]
    here: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop(0)
        if part == "..":
            del here[-1:]
            continue
        place = root.joinpath(*here, part)
        try:
            kind = os.lstat(place).st_mode
        except (OSError, ValueError):
            return None
        if not stat.S_ISLNK(kind):
            here.append(part)
            continue
        links += 1
        if links > LINKS:
            return None
        target = os.readlink(place)
        if target.startswith("/"):
            here = []
        waiting = [*(part for part in target.split("/") if part not in ("", ".")), *waiting]
    return root.joinpath(*here)


def program(root: Path, path: str, name: str) -> str | None:
    """Where a program is by the image's PATH, as the image would write it."""
    for directory in path.split(":"):
        place = inside(root, f"{directory}/{name}") if directory.startswith("/") else None
        if place is not None and place.is_file() and os.stat(place).st_mode & 0o111:
            return f"{directory.rstrip('/')}/{name}"
    return None


def packages(found: Image, root: Path) -> list[Path]:
    """The directories of the Python packages beside the image's gunicorn, as the host sees them."""
    place = program(root, found.path, "gunicorn") or "/usr/bin/gunicorn"
    prefix = inside(root, os.path.dirname(os.path.dirname(place)))
    kinds = ("lib/python3*/site-packages", "lib/python3*/dist-packages")
    return [path for kind in kinds for path in prefix.glob(kind)] if prefix is not None else []


def settle(found: Image, root: Path, processes: Sequence[str], singles: Sequence[str] = ("celery-beat",)) -> Image:
    """Look whether everything is inside that its units will call; return it with what was found."""
    reference = found.reference
    if inside(root, "/bin/sh") is None:
        raise Refusal(f"{reference} has no /bin/sh, which starts its processes: build it on a base that has a shell.")
    python = next((name for name in ("python", "python3") if program(root, found.path, name)), None)
    wanted = {"python": python, "gunicorn": program(root, found.path, "gunicorn")}
    if any(process.startswith("celery-") for process in processes):
        wanted["celery"] = program(root, found.path, "celery")
    if not set(singles).isdisjoint(processes):
        wanted["flock"] = program(root, found.path, "flock")
    for name, place in wanted.items():
        if place is None:
            raise Refusal(
                f"{reference} has no {name} on its PATH ({shorten(found.path)}): install it into the image, or set ENV"
                " PATH to where it is."
            )
    workdir = inside(root, found.workdir)
    if workdir is None or not workdir.is_dir():
        raise Refusal(f"{reference} has no directory {found.workdir}, where its WORKDIR says that it starts.")
    plain = "/" + str(workdir.relative_to(root)) if workdir != root else "/"
    if not (workdir / "manage.py").is_file():
        raise Refusal(f"{reference} has no manage.py in {plain}: set WORKDIR to where it is.")
    return Image(**{**asdict(found), "python": str(python), "workdir": plain})
