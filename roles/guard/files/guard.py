#!/usr/bin/python3 -I
"""The way back: puts everything that lets people in as it was, unless they prove in time that they still get in.

    guard arm --token TOKEN --seconds 60 --because "sshd gets another configuration"
    guard disarm --token TOKEN          it is proven: what was changed stays
    guard fire [--token TOKEN]          put it back now
    guard status

What is put back (/etc/slipway/guard.json names it): files with their owners and modes, the packet filter's live rules,
and which of the units that people get in by were running. A timer of systemd fires it. Timers of that kind end with a
reboot, the record of what was armed does not: slipway-guard.service puts things back at the next boot, before sshd and
the firewall start.

While it is armed a second `arm` keeps the first one's snapshot, the last state that was known to be good, and begins
the time anew. `disarm` fails when nothing is armed any more, and says what became of it. Each verb answers with one
JSON object; exit code 1 goes with "ok": false.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import glob
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CONFIGURATION = Path("/etc/slipway/guard.json")
STATE = Path("/var/lib/slipway/guard")
PROGRAM = "/usr/local/libexec/slipway/guard"
UNIT = "slipway-guard-timer"
# Rules of these tables are a filter's; nat is left alone unless it was there before, for containers' names hang on it.
TABLES = ("filter", "mangle", "raw")
FAMILIES = ("iptables", "ip6tables")
PATIENCE = 30  # seconds for each program that is run


class Refused(Exception):
    """What was asked cannot be; the text is one sentence that says why."""


def run(*command: str, given: bytes | None = None) -> tuple[int, bytes]:
    """A program's exit code and what it wrote; one that is not there has failed."""
    try:
        done = subprocess.run(
            command, input=given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return 127, str(error).encode()
    return done.returncode, done.stdout


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# What is kept


def paths(patterns: list[str]) -> list[str]:
    """What the patterns stand for on this host now."""
    found = {path for pattern in patterns for path in (glob.glob(pattern) if glob.has_magic(pattern) else [pattern])}
    return sorted(found)


def everything_below(path: str) -> Iterator[str]:
    """A path and all below it, parents first; links are not followed."""
    if not os.path.lexists(path):
        return
    yield path
    if os.path.isdir(path) and not os.path.islink(path):
        for name in sorted(os.listdir(path)):
            yield from everything_below(os.path.join(path, name))


def attributes(path: str) -> tuple[int, int, int]:
    found = os.lstat(path)
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


class Snapshot:
    """A directory with all that is needed to go back."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def take(self, configuration: dict[str, Any]) -> None:
        names = paths(configuration["paths"])
        with tarfile.open(self.place / "files.tar", "w", format=tarfile.PAX_FORMAT) as archive:
            for path in (below for name in names for below in everything_below(name)):
                archive.add(path, recursive=False)
        rules = {}
        for family in FAMILIES:
            code, said = run(f"{family}-save")
            if code == 0:
                rules[family] = said.decode()
        code, said = run("ipset", "save")
        if code == 0:
            rules["ipset"] = said.decode()
        units = {unit: run("systemctl", "is-active", "--quiet", unit)[0] == 0 for unit in configuration["units"]}
        kept = {"patterns": configuration["paths"], "paths": names, "rules": rules, "units": units}
        write_json(self.place / "kept.json", kept)

    @property
    def kept(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.place / "kept.json").read_text())
        return found

    # Going back

    def put_files_back(self) -> list[str]:
        """Every path that had to be changed to be as it was."""
        kept = self.kept
        changed = []
        with tarfile.open(self.place / "files.tar") as archive:
            members = {"/" + member.name: member for member in archive.getmembers()}
            # What came since goes, deepest first.
            for name in sorted({*kept["paths"], *paths(kept["patterns"])}):
                for path in sorted(everything_below(name), reverse=True):
                    if path not in members:
                        remove(path)
                        changed.append(path)
            for path, member in members.items():
                if self._put_back(path, member, archive):
                    changed.append(path)
        return changed

    def _put_back(self, path: str, member: tarfile.TarInfo, archive: tarfile.TarFile) -> bool:
        wanted = (member.mode, member.uid, member.gid)
        if member.isdir():
            if os.path.islink(path) or (os.path.lexists(path) and not os.path.isdir(path)):
                remove(path)
            made = not os.path.isdir(path)
            if made:
                os.makedirs(path, 0o700)
            return set_attributes(path, wanted) or made
        if member.issym():
            if os.path.islink(path) and os.readlink(path) == member.linkname:
                return False
            new = beside(path)
            remove(new)
            os.symlink(member.linkname, new)
            os.lchown(new, member.uid, member.gid)
            if os.path.isdir(path) and not os.path.islink(path):
                remove(path)
            os.rename(new, path)
            return True
        stream = archive.extractfile(member)
        if stream is None:
            return False  # a socket or a device: not what lets people in
        content = stream.read()
        if os.path.isfile(path) and not os.path.islink(path) and Path(path).read_bytes() == content:
            return set_attributes(path, wanted)
        if os.path.isdir(path) and not os.path.islink(path):
            remove(path)
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        replace(path, content, wanted)
        return True

    def put_rules_back(self) -> list[str]:
        """The packet filter's rules; which families were put back."""
        rules = self.kept["rules"]
        if rules.get("ipset"):
            run("ipset", "restore", "-exist", given=rules["ipset"].encode())
        done = []
        for family in FAMILIES:
            if run(f"{family}-save")[0]:
                continue
            text = rules.get(family, "")
            # A table that was not there when they were kept is emptied: restoring would leave it as it is.
            for table in TABLES:
                if f"*{table}" not in text.splitlines():
                    text += empty_table(table)
            code, said = run(f"{family}-restore", given=text.encode())
            if code == 0:
                done.append(family)
            else:
                say(f"{family}-restore failed: {said.decode(errors='replace').strip()}")
        return done

    def put_units_back(self) -> None:
        run("systemctl", "daemon-reload")
        for unit, active in self.kept["units"].items():
            # A restart of sshd leaves the sessions that are open alone.
            code, said = run("systemctl", "restart" if active else "stop", unit)
            if code and active:
                say(f"{unit} does not start: {said.decode(errors='replace').strip()}")


def empty_table(table: str) -> str:
    chains = {"filter": "INPUT FORWARD OUTPUT", "mangle": "PREROUTING INPUT FORWARD OUTPUT POSTROUTING"}
    names = chains.get(table, "PREROUTING OUTPUT").split()
    return f"*{table}\n" + "".join(f":{name} ACCEPT [0:0]\n" for name in names) + "COMMIT\n"


def remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def beside(path: str) -> str:
    return os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.guard")


def set_attributes(path: str, wanted: tuple[int, int, int]) -> bool:
    if attributes(path) == wanted:
        return False
    os.chown(path, wanted[1], wanted[2])
    os.chmod(path, wanted[0])
    return True


def replace(path: str, content: bytes, wanted: tuple[int, int, int]) -> None:
    """In one step; no reader sees half of it, nor a mode that is too wide."""
    new = beside(path)
    remove(new)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    set_attributes(new, wanted)
    os.rename(new, path)


def write_json(path: Path, value: Any) -> None:
    replace(str(path), (json.dumps(value, indent=2) + "\n").encode(), (0o600, os.geteuid(), os.getegid()))


def sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# The verbs


class Guard:
    def __init__(self, state: Path = STATE) -> None:
        self.state = state
        self.armed = state / "armed"
        self.last = state / "last.json"

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.state / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def present(self) -> dict[str, Any] | None:
        """What is armed now."""
        try:
            found: dict[str, Any] = json.loads((self.armed / "armed.json").read_text())
        except FileNotFoundError:
            return None
        return found

    def former(self) -> dict[str, Any] | None:
        """What became of the last one."""
        try:
            found: dict[str, Any] = json.loads(self.last.read_text())
        except FileNotFoundError:
            return None
        return found

    def arm(self, token: str, seconds: int, because: str, by: str) -> dict[str, Any]:
        with self.alone():
            standing = self.present()
            record = {"token": token, "because": because, "by": by, "seconds": seconds, "armed_at": now()}
            if standing is None:
                new = Path(tempfile.mkdtemp(prefix="new.", dir=self.state))
                try:
                    Snapshot(new).take(json.loads(CONFIGURATION.read_text()))
                    write_json(new / "armed.json", record)
                    sync(new)
                    self._start_timer(token, seconds)
                    new.rename(self.armed)
                    sync(self.state)
                except BaseException:
                    shutil.rmtree(new)
                    raise
            else:
                record["because"] = f"{standing['because']}; {because}"
                self._start_timer(token, seconds)
                write_json(self.armed / "armed.json", record)
                if standing["token"] != token:
                    self._stop_timer(standing["token"])
            self._clean_up()
        return {"ok": True, "armed": record, "kept_snapshot": standing is not None}

    def disarm(self, token: str) -> dict[str, Any]:
        with self.alone():
            standing = self.present()
            if standing is None:
                raise Refused(f"Nothing is armed any more: {self.tell(self.former())}")
            if standing["token"] != token:
                raise Refused(
                    f"It was armed again, by {standing['by']} at {standing['armed_at']}: {standing['because']}."
                )
            self._end({**standing, "outcome": "disarmed", "at": now()})
            self._stop_timer(token)
        return {"ok": True, "was": standing}

    def fire(self, token: str | None, why: str) -> dict[str, Any]:
        """Put everything back. At boot nothing runs yet, and what is about to start reads the files."""
        with self.alone():
            standing = self.present()
            if standing is None or (token and token != standing["token"]):
                return {"ok": True, "fired": False, "last": self.former()}
            say(f"puts back what lets people in ({why}): {standing['because']}")
            snapshot = Snapshot(self.armed)
            changed = snapshot.put_files_back()
            rules = []
            if why != "boot":
                rules = snapshot.put_rules_back()
                snapshot.put_units_back()
            outcome = {**standing, "outcome": "fired", "why": why, "at": now(), "paths": changed, "rules": rules}
            self._end(outcome)
            say(f"put back {len(changed)} paths: {' '.join(changed[:20])}")
            if why != "timer":
                self._stop_timer(standing["token"])
        return {"ok": True, "fired": True, "last": outcome}

    def status(self) -> dict[str, Any]:
        return {"ok": True, "armed": self.present(), "last": self.former()}

    def tell(self, last: dict[str, Any] | None) -> str:
        if last is None:
            return "nothing ever was."
        if last["outcome"] == "disarmed":
            return f"it was disarmed at {last['at']}."
        return (
            f"everything was put back at {last['at']} ({last['why']}), {len(last['paths'])} paths; {last['because']}."
        )

    def _end(self, outcome: dict[str, Any]) -> None:
        """Whatever was armed is so no longer; dying in here leaves it armed, or over."""
        write_json(self.last, outcome)
        over = Path(tempfile.mkdtemp(prefix="over.", dir=self.state))
        self.armed.rename(over / "armed")
        sync(self.state)
        shutil.rmtree(over)

    def _clean_up(self) -> None:
        """What a crash left half-made or half-removed."""
        for pattern in ("new.*", "over.*"):
            for path in self.state.glob(pattern):
                shutil.rmtree(path)

    def _start_timer(self, token: str, seconds: int) -> None:
        # Armed again by the same run: the time begins anew.
        self._stop_timer(token)
        code, said = run(
            "systemd-run", "--quiet", "--collect", f"--unit={UNIT}-{token}", f"--on-active={seconds}",
            "--timer-property=AccuracySec=100ms",
            "--description=Puts back what lets people in", "--property=Restart=on-failure", "--property=RestartSec=2",
            PROGRAM, "fire", "--token", token, "--why", "timer",
        )  # fmt: skip
        if code:
            raise Refused(f"systemd took no timer, so nothing was armed: {said.decode(errors='replace').strip()}")

    def _stop_timer(self, token: str) -> None:
        run("systemctl", "stop", f"{UNIT}-{token}.timer")


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="guard", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = made.add_subparsers(dest="verb", required=True)
    arm = verbs.add_parser("arm")
    arm.add_argument("--token", required=True)
    arm.add_argument("--seconds", type=int, required=True)
    arm.add_argument("--because", required=True)
    arm.add_argument("--by", default="somebody")
    disarm = verbs.add_parser("disarm")
    disarm.add_argument("--token", required=True)
    fire = verbs.add_parser("fire")
    fire.add_argument("--token")
    fire.add_argument("--why", default="asked", choices=["asked", "timer", "boot"])
    verbs.add_parser("status")
    return made


def main() -> int:
    given = parser().parse_args()
    guard = Guard()
    os.umask(0o077)
    try:
        if given.verb == "arm":
            answer = guard.arm(given.token, given.seconds, given.because, given.by)
        elif given.verb == "disarm":
            answer = guard.disarm(given.token)
        elif given.verb == "fire":
            answer = guard.fire(given.token, given.why)
        else:
            answer = guard.status()
    except Refused as refusal:
        answer = {"ok": False, "message": str(refusal), "last": guard.former()}
    print(json.dumps(answer))
    return 0 if answer["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
