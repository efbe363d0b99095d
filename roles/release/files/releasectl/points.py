"""Restore points: a dump of the app's database, streamed to a place that is not on this host, and back again.

Three programs, each confined to what it needs: PostgreSQL's own, as the app with its settings and the network; age,
when there is a key, in this process's own sandbox; ssh, with the key of restore points and nothing else. Nothing is
written here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from . import app as apps
from . import image, sandbox
from .config import Config
from .errors import Refusal, UsageError
from .names import shorten
from .systemd import CONFINED, telling, transient

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,160}\.dump(\.age)?")
DATABASE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
TARGET = re.compile(r"(?P<user>[a-z_][a-z0-9_-]{0,31})@(?P<host>[A-Za-z0-9:][A-Za-z0-9.:-]{0,252})")
RECIPIENT = re.compile(r"age1[0-9a-z]{58}")
MARK = "@slipway "
POLICIES = ("auto", "always", "never")
CHUNK = 1 << 20
ANSWER_MOST = 4 << 20
RUNBOOK = "docs/ops/restore.md"

Say = Callable[[str], None]


def point_name(text: str) -> str:
    """Return ``text`` when it is the name of a restore point."""
    if not NAME.fullmatch(text) or ".." in text:
        raise UsageError(f"{shorten(text)} is not the name of a restore point: 'releasectl dumps' lists them.")
    return text


def database_name(text: str) -> str:
    """Return ``text`` when it is the name of a database."""
    if not DATABASE.fullmatch(text):
        raise UsageError(f"{shorten(text)} is not the name of a database: letters, digits, '_' and '-' are.")
    return text


@dataclass(frozen=True)
class Point:
    """A restore point, as the record has it; ``size`` in bytes."""

    name: str
    size: int
    sha256: str
    seconds: float
    encrypted: bool

    def public(self) -> dict[str, object]:
        """For the answer and the record."""
        return dict(vars(self))

    def told(self) -> str:
        """For a sentence."""
        return f"{self.name} ({-(-self.size // 2**10)} KiB, {'encrypted' if self.encrypted else 'not encrypted'})"


class Points:
    """The place where restore points are kept, as one release's code reaches the database."""

    def __init__(self, config: Config, say: Say = lambda _line: None) -> None:
        self.config, self.say = config, say

    # The place

    def _require(self) -> None:
        config = self.config
        if not config.restore_point_target:
            raise Refusal(
                "No place for restore points is set: set release_restore_point_target (docs/ops/restore.md says how to"
                " make one) and run site.yml; or, where the database's own backups are enough, deploy with -e"
                " release_restore_point=never."
            )
        if not TARGET.fullmatch(config.restore_point_target):
            raise Refusal(
                f"release_restore_point_target is {shorten(config.restore_point_target)}, not user@host: set it right"
                " and run site.yml."
            )
        if config.restore_point_recipient and not RECIPIENT.fullmatch(config.restore_point_recipient):
            raise Refusal("release_restore_point_recipient is no public key of age, age1…: set it right, run site.yml.")

    def _ssh(self, *words: str) -> list[str]:
        """The command that has the keeper at the other end do something, in a unit that may do nothing else."""
        config = self.config
        keys = config.restore_point_keys
        options = (
            "BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=yes",
            f"UserKnownHostsFile={keys}/known_hosts", "GlobalKnownHostsFile=/dev/null", "HostKeyAlias=restore-points",
            "ConnectTimeout=15", "ServerAliveInterval=15", "ServerAliveCountMax=4", "ControlPath=none",
            "LogLevel=ERROR",
        )  # fmt: skip
        hidden = (
            config.env.parent,
            config.private_run,
            config.run,
            config.incoming,
            config.state,
            config.events.parent,
        )
        properties = [
            *CONFINED,
            "ProtectSystem=strict",
            "CapabilityBoundingSet=",
            "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
            f"InaccessiblePaths={' '.join(f'-{path}' for path in hidden)}",
        ]
        command = transient(f"releasectl-point-{words[0]}", properties, {}, config.restore_point_timeout)
        target, port = config.restore_point_target, str(config.restore_point_port)
        ssh = ["/usr/bin/ssh", "-F", "none", "-T", "-i", f"{keys}/id_ed25519", "-p", port]
        return [*command, "--", *ssh, *(f"-o{option}" for option in options), target, " ".join(words)]

    def _ask(self, *words: str, given: IO[bytes] | None = None) -> dict[str, Any]:
        with tempfile.TemporaryFile() as errors:
            done = subprocess.run(
                self._ssh(*words), stdin=given or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, check=False
            )
            if done.returncode != 0:
                raise Refusal(f"{self.config.restore_point_target} did not {words[0]} it: {_last(errors)}.")
        return self._understood(done.stdout)

    def _understood(self, said: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(said[:ANSWER_MOST])
            if not isinstance(answer, dict):
                raise ValueError
        except ValueError:
            raise Refusal(
                f"{self.config.restore_point_target} answers something else than restore-points does: is it the forced"
                f" command of this host's key there? {RUNBOOK} has the line."
            ) from None
        return answer

    def listed(self) -> list[dict[str, Any]]:
        """All that are kept, oldest first."""
        self._require()
        found = []
        for point in self._ask("list").get("points", []):
            if NAME.fullmatch(str(point.get("name"))):
                found.append({key: point.get(key) for key in ("name", "size", "sha256", "at", "until")})
        return found

    # The database

    def _database(self, release: str, mode: str, database: str | None, environment_file: Path) -> list[str]:
        config = self.config
        directory = config.release_dir(release)
        words = json.dumps({"mode": mode, "database": database, "image": image.of(directory) is not None})
        command = transient(
            f"releasectl-{mode}-{release}",
            [*sandbox.app(config, directory, environment_file), "TasksMax=64"],
            {**sandbox.app_environment(config, release), "PATH": apps.path(config, release)},
            config.restore_point_timeout,
        )
        program = str(config.inside / "slipway_database.py")
        return [*command, "--", *sandbox.python(config, release), program, words]

    def make(self, release: str, environment_file: Path) -> Point:
        """Dump the database that ``release`` would migrate, to the place where points are kept; or refuse."""
        try:
            self._require()
            return self._make(release, environment_file)
        except OSError as error:
            raise Refusal(f"{error.strerror or error}") from error

    def _make(self, release: str, environment_file: Path) -> Point:
        config = self.config
        recipient = config.restore_point_recipient
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        name = point_name(f"{config.app}-{stamp}-{release}.dump" + (".age" if recipient else ""))
        self.say(f"making the restore point {name}")
        started = time.monotonic()
        dump = self._database(release, "dump", None, environment_file)
        stages = [dump, ["/usr/bin/age", "--encrypt", "--recipient", recipient]] if recipient else [dump]
        digest, size = hashlib.sha256(), 0
        with Pipeline(stages) as pipeline, tempfile.TemporaryFile() as errors:
            ship = subprocess.Popen(
                self._ssh("put", name), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
            )
            with ship:
                assert ship.stdin is not None
                assert ship.stdout is not None
                cut = False
                for chunk in pipeline.chunks():
                    digest.update(chunk)
                    size += len(chunk)
                    try:
                        ship.stdin.write(chunk)
                    except BrokenPipeError:
                        cut = True
                        break
                if not cut:
                    pipeline.require("The database could not be dumped")
                try:
                    ship.stdin.close()
                except BrokenPipeError:
                    cut = True
                said = ship.stdout.read(ANSWER_MOST)
            if ship.returncode != 0 or cut:
                raise Refusal(f"{config.restore_point_target} did not take it: {_last(errors)}")
        got = self._understood(said)
        if (got.get("sha256"), got.get("size")) != (digest.hexdigest(), size):
            raise Refusal(f"{config.restore_point_target} got something else than was sent")
        self._ask("keep", name, digest.hexdigest())
        return Point(name, size, digest.hexdigest(), round(time.monotonic() - started, 1), bool(recipient))

    def restore(
        self, release: str, point: str, database: str | None, identity: Path | None, environment_file: Path
    ) -> None:
        """Put a point into an empty database, all of it or nothing."""
        self._require()
        if point.endswith(".age") and identity is None:
            raise Refusal(f"{point} is encrypted: give the key, -e restore_point_identity=<file>.")
        stages = [self._ssh("get", point)]
        if identity is not None and point.endswith(".age"):
            stages.append(["/usr/bin/age", "--decrypt", "--identity", str(identity)])
        stages.append(self._database(release, "restore", database, environment_file))
        self.say(f"restoring {point}")
        with Pipeline(stages) as pipeline:
            for _chunk in pipeline.chunks():
                pass
            pipeline.require(f"{point} was not restored, and the database is as it was")


class Pipeline:
    """Programs, each reading what the one before it writes; none of them through a shell."""

    def __init__(self, stages: Sequence[Sequence[str]]) -> None:
        self.errors: list[IO[bytes]] = [tempfile.TemporaryFile() for _stage in stages]  # noqa: SIM115
        self.running: list[subprocess.Popen[bytes]] = []
        given: IO[bytes] | int = subprocess.DEVNULL
        for stage, errors in zip(stages, self.errors):  # noqa: B905 (Python 3.10 hosts, and both are of one length)
            started = subprocess.Popen(list(stage), stdin=given, stdout=subprocess.PIPE, stderr=errors)
            if not isinstance(given, int):
                given.close()  # so that one whose reader is gone learns it
            assert started.stdout is not None
            given = started.stdout
            self.running.append(started)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running:
            if process.stdout is not None:
                process.stdout.close()
            if process.poll() is None:
                process.kill()
            process.wait()
        for errors in self.errors:
            errors.close()

    def chunks(self) -> Iterator[bytes]:
        """What the last one writes, to its end."""
        last = self.running[-1].stdout
        assert last is not None
        while chunk := last.read(CHUNK):
            yield chunk

    def require(self, what: str) -> None:
        """Refuse unless all ended well, with the words of the one that refused or else of the first that failed."""
        codes = [process.wait() for process in self.running]
        if not any(codes):
            return
        failed = [errors for code, errors in zip(codes, self.errors) if code]  # noqa: B905
        said = [text for errors in failed if (text := _marked(errors))] or [
            t for errors in failed if (t := _last(errors, ""))
        ]
        raise Refusal(f"{what}: {said[0] if said else f'it ended with {next(filter(None, codes))} and said nothing'}.")


def _lines(errors: IO[bytes]) -> list[str]:
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - 64 * 1024))
    lines = (
        "".join(c if c.isprintable() else "?" for c in line)
        for line in errors.read().decode(errors="replace").splitlines()
    )
    return [line for line in lines if line.strip()]


def _marked(errors: IO[bytes]) -> str:
    """What our own program in the app's Python refused, if it did."""
    said = [line[len(MARK) :] for line in _lines(errors) if line.startswith(MARK)]
    return said[-1].rstrip(".")[:300] if said else ""


def _last(errors: IO[bytes], otherwise: str = "it said nothing") -> str:
    """Why a program failed, by its own words."""
    return _marked(errors) or (telling(_lines(errors)) or otherwise).rstrip(".")[:300]
