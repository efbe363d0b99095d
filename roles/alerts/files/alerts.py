#!/usr/bin/python3 -I
"""Tells a person when something is wrong with this host, by a webhook, and when it is over.

    alerts status [--json]     what is wrong now, and whether the webhook takes messages
    alerts test                send a message, to see that it arrives
    alerts notice              what those who log in shall know; nothing when all is well

These are the units' verbs: `look` (slipway-alerts.timer, every few minutes), `failed UNIT` (slipway-alert@.service,
which every service that fails starts), `booted` and `stopping` (slipway-alerts-boot.service).

A look compares what it finds with what it has told: what is new is told, what lasts is told again once a day, what
stayed away for a while is told to be over. What comes back before that is still the same problem, and what keeps coming
back has to stay away for longer each time, so a unit that flaps fills nobody's channel. Messages wait in the state
until the webhook has taken them. All of them are in the journal as well: journalctl -t slipway-alerts.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import fnmatch
import glob
import json
import math
import os
import pwd
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What tells of releases uses it as well; the role installs it there.
sys.path.insert(0, "/usr/local/lib/slipway")

import webhooks

CONFIGURATION = Path("/etc/slipway/alerts.json")
WEBHOOK = Path("/etc/slipway/alerts.webhook")
AUTHORITY = Path("/etc/slipway/alerts-ca.pem")
STATE = Path("/var/lib/slipway-alerts")
MEANWHILE = Path("/run/slipway-alerts")  # in memory: the lock, and the state while the disk takes nothing
MEMORY = Path("/proc/meminfo")
MOUNTS = Path("/proc/self/mountinfo")
BOOT = Path("/proc/sys/kernel/random/boot_id")
REBOOT_FLAG = Path("/run/reboot-required")
ACCOUNT = "slipway-alerts"
UTC = {"LC_ALL": "C.UTF-8", "TZ": "UTC", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}

PATIENCE = 20  # seconds for each program that is run
POST_PATIENCE = 10  # seconds for the webhook to connect, and to say a word
ANSWER_PATIENCE = 20  # seconds for its whole answer, however many words it says
DELIVERY_PATIENCE = 60  # seconds for all that waits; others wait for the state meanwhile
BATCH = 20  # messages in one post
KEPT_SECONDS = 7 * 86400  # how long a message waits for the webhook
AGAIN_SECONDS = 60  # after a failed post, how long `failed` leaves the next try to the timer
TIMES_AT_MOST = 5  # how often the quiet time doubles
REMEMBERED_SECONDS = 86400  # how long a problem that is over counts as one that came back
SILENT_SECONDS = 3600  # without a look for so long, those who log in are told
# File systems that hold somebody's data. What is not listed is the kernel's, read-only by nature, or another host's.
FILE_SYSTEMS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "vfat", "overlay", "tmpfs"}
# Answers that speak of the message, not of the webhook: others may still be taken.
REFUSED = {400, 413, 422}
# What a disk says that takes nothing: it is full, or was made read-only after an error.
UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


@dataclass(frozen=True)
class Finding:
    """Something that is wrong at this moment."""

    key: str
    what: str  # a clause: "the disk / is 97 % full"
    do: str  # what to type
    since: float | None = None  # when it began, where that is known
    hold: float = 0  # seconds that it has to last before anybody is told


Messages = list[dict[str, Any]]


def run(*command: str, given: bytes | None = None) -> tuple[int, str]:
    """A program's exit code and what it wrote; one that is not there has failed."""
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=PATIENCE, check=False, env=UTC)
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, (done.stdout or done.stderr).decode(errors="replace")


def say(text: str, level: int = 6) -> None:
    """To the journal, with the level that syslog has for it."""
    print(f"<{level}>{text}", file=sys.stderr, flush=True)


def clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))


def span(seconds: float) -> str:
    """How long, as a person says it."""
    minutes = round(max(seconds, 0) / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 120:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{hours} hours" if hours < 48 else f"{round(hours / 24)} days"


# What is looked at. Each gives its findings, and fails only by an exception that is itself told.


def properties(unit: str | None, *names: str) -> dict[str, str]:
    wanted = [f"--property={name}" for name in names]
    _, said = run("systemctl", "show", *wanted, *([unit] if unit else []))
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


def unit_finding(unit: str, now: float) -> Finding:
    found = properties(unit, "Result", "StateChangeTimestampMonotonic")
    result = found.get("Result", "")
    why = "" if result in ("", "success") else f" ({result})"
    since = now
    with contextlib.suppress(ValueError):
        if ticks := int(found.get("StateChangeTimestampMonotonic", "0")):
            since = now - max(0.0, time.clock_gettime(time.CLOCK_MONOTONIC) - ticks / 1e6)
    return Finding(
        f"unit:{unit}", f"{unit} has failed{why}", f"systemctl status {unit}; journalctl -u {unit} -n 50", since
    )


def ignored(unit: str, settings: dict[str, Any]) -> bool:
    return any(fnmatch.fnmatchcase(unit, pattern) for pattern in settings["ignored_units"])


def units(settings: dict[str, Any], now: float) -> Iterator[Finding]:
    code, said = run("systemctl", "list-units", "--state=failed", "--all", "--full", "--plain", "--no-legend")
    if code:
        raise OSError(f"systemctl did not answer: {said.strip()}")
    for line in said.splitlines():
        if line.strip() and not ignored(unit := line.split()[0], settings):
            yield unit_finding(unit, now)


def expiry(form: str, content: bytes) -> float:
    code, said = run("openssl", "x509", "-inform", form, "-noout", "-enddate", given=content)
    if code or "=" not in said:
        raise OSError("openssl does not read it as a certificate")
    return float(ssl.cert_time_to_seconds(said.strip().split("=", 1)[1]))


def ends(what: str, end: float, now: float) -> str:
    if end <= now:
        return f"{what} has expired, at {clock(end)}"
    return f"{what} expires in {math.floor((end - now) / 86400)} days, at {clock(end)}"


def served(name: str) -> bytes:
    """The certificate that this host's edge shows for a name. Whether it is to be trusted is not asked here."""
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", 443), timeout=5) as plain,
        careless.wrap_socket(plain, server_hostname=name) as encrypted,
    ):
        return encrypted.getpeercert(binary_form=True) or b""


def certificates(settings: dict[str, Any], now: float) -> Iterator[Finding]:
    limit = now + settings["certificate_days"] * 86400
    on_disk = set()
    for path in settings["certificate_files"]:
        key, renew = (
            f"certificate:{path}",
            f"openssl x509 -noout -dates -in {path}; then docs/ops/alerts.md, Certificates",
        )
        try:
            end = expiry("PEM", Path(path).read_bytes())
        except OSError as error:
            yield Finding(key, f"the certificate {path} cannot be read: {error}", renew)
            continue
        on_disk.add(end)
        if end <= limit:
            yield Finding(key, ends(f"the certificate {path}", end, now), renew)
    for name in settings["edges"]:
        try:
            end = expiry("DER", served(name))
        except OSError as error:
            what = f"the edge shows no certificate for {name} on port 443: {error}"
            yield Finding(f"edge:{name}", what, "systemctl status nginx; nginx -t", hold=120)
            continue
        # The file's own end is told above.
        if end <= limit and end not in on_disk:
            what = ends(f"the certificate that the edge shows for {name}, which is not the one on disk,", end, now)
            yield Finding(f"served:{name}", what, "nginx -t && systemctl reload nginx")


def mounts() -> dict[str, str]:
    """Mount point -> type, one for each device, the shortest path of it."""
    found: dict[str, tuple[str, str]] = {}
    for line in MOUNTS.read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()[0]
        if kind not in FILE_SYSTEMS:
            continue
        device, place = fields[2], re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        if device not in found or len(place) < len(found[device][0]):
            found[device] = (place, kind)
    return dict(found.values())


def disks(settings: dict[str, Any], _now: float) -> Iterator[Finding]:
    for place in mounts():
        if any(fnmatch.fnmatchcase(place, pattern) for pattern in settings["disk_ignore"]):
            continue
        try:
            seen = os.statvfs(place)
        except OSError:
            # Inside a directory that is closed to this account: no volume of the host is mounted in such a place.
            continue
        usable = seen.f_blocks - seen.f_bfree + seen.f_bavail
        counts = (("disk", seen.f_blocks - seen.f_bfree, usable), ("inodes", seen.f_files - seen.f_ffree, seen.f_files))
        for kind, used, whole in counts:
            share = 100 * used / whole if whole else 0
            if share < settings["disk_percent"]:
                continue
            if kind == "disk":
                left = seen.f_bavail * seen.f_frsize / 1048576
                what, do = (
                    f"the disk {place} is {share:.0f} % full, {left:.0f} MiB left",
                    f"du -xh -d 2 {place} | sort -h | tail",
                )
            else:
                what, do = (
                    f"the disk {place} has {share:.0f} % of its inodes in use",
                    f"du -x --inodes -d 2 {place} | sort -n | tail",
                )
            yield Finding(f"{kind}:{place}", what, do)


def memory(settings: dict[str, Any], _now: float) -> Iterator[Finding]:
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in MEMORY.read_text().splitlines() if ":" in line}
    free = 100 * sizes["MemAvailable"] / sizes["MemTotal"]
    do = "ps -eo pid,user,rss,comm --sort=-rss | head"
    # One look is a moment, and memory is there to be used: it has to last.
    if free < settings["memory_percent"]:
        yield Finding("memory", f"memory is nearly used up: {free:.0f} % are available", do, hold=240)
    if total := sizes.get("SwapTotal"):
        used = 100 * (total - sizes["SwapFree"]) / total
        if used >= settings["swap_percent"]:
            yield Finding("swap", f"swap is {used:.0f} % used", do, hold=240)


def files(settings: dict[str, Any], now: float) -> Iterator[Finding]:
    for entry in settings["files"]:
        path, most = entry["path"], entry["hours"] * 3600
        key, do = f"file:{path}", entry.get("do") or f"ls -l --time-style=full-iso {path}"
        try:
            times = []
            for match in glob.glob(path):
                # An old one may be taken away while we look.
                with contextlib.suppress(FileNotFoundError):
                    times.append(os.stat(match).st_mtime)
            times = times or [os.stat(path).st_mtime]
        except FileNotFoundError:
            yield Finding(key, f"{entry['purpose']} is overdue: {path} is not there", do)
            continue
        except PermissionError:
            what = f"whether {entry['purpose']} is overdue cannot be seen: the account {ACCOUNT} may not look at {path}"
            yield Finding(key, what, "have what makes it touch a file that everybody may see, and list that")
            continue
        age = now - max(times)
        if age > most:
            what = f"{entry['purpose']} is overdue: {path} is {span(age)} old, {entry['hours']} hours at most are right"
            yield Finding(key, what, do)


def clocks(settings: dict[str, Any], _now: float) -> Iterator[Finding]:
    if not settings["clock"]:
        return
    code, said = run("timedatectl", "show", "--property=NTPSynchronized", "--value")
    if code:
        raise OSError(f"timedatectl did not answer: {said.strip()}")
    if said.strip() != "yes":
        yield Finding("clock", "the clock is not synchronised", "timedatectl; chronyc sources", hold=3600)


def reboots(settings: dict[str, Any], now: float) -> Iterator[Finding]:
    with contextlib.suppress(FileNotFoundError):
        since = REBOOT_FLAG.stat().st_mtime
        if now - since > settings["reboot_days"] * 86400:
            what = "an upgrade waits for a reboot"
            yield Finding("reboot", what, "ansible-playbook playbooks/patch.yml, from your machine", since)


Look = Callable[[dict[str, Any], float], Iterator[Finding]]
LOOKS: dict[str, Look] = {
    "units": units, "certificates": certificates, "disks": disks, "memory": memory, "files": files, "clock": clocks,
    "reboots": reboots,
}  # fmt: skip


def look_at_all(settings: dict[str, Any], now: float) -> list[Finding]:
    found = []
    for name, look in LOOKS.items():
        try:
            found += list(look(settings, now))
        except (OSError, ValueError, KeyError, IndexError) as error:
            # To be blind is told like everything else.
            found.append(Finding(f"look:{name}", f"alerts cannot look at {name}: {error}", "alerts status", hold=120))
    return found


def boot_identity() -> str:
    """Another one after each boot, of a server and of a container; nothing while systemd does not answer."""
    started = properties(None, "UserspaceTimestampMonotonic").get("UserspaceTimestampMonotonic", "")
    return f"{BOOT.read_text().strip()}:{started}" if started else ""


# What is told


def message(kind: str, at: float, key: str, text: str, do: str = "") -> dict[str, Any]:
    return {"kind": kind, "at": at, "key": key, "text": text, "do": do}


def compare(state: dict[str, Any], found: list[Finding], settings: dict[str, Any], now: float, whole: bool) -> Messages:
    """What is to be told of these findings. `whole`: they are all there is, so what is not among them is gone."""
    told: Messages = []
    problems = state["problems"]
    for finding in found:
        problem = problems.get(finding.key)
        if problem is None:
            problem = problems[finding.key] = {
                "since": finding.since or now, "first": now, "told": 0, "times": 1, "fine": 0,
                "back": _back(state, finding.key, now),
            }  # fmt: skip
        elif problem["fine"]:
            problem["fine"] = 0
            problem["times"] += 1
        problem |= {"what": finding.what, "do": finding.do}
        often = f", {problem['times']} times by now" if problem["times"] > 1 else ""
        if not problem["told"]:
            if now - problem["first"] >= finding.hold:
                problem["told"] = now
                text = f"{finding.what}, since {clock(problem['since'])}"
                told.append(message("problem", now, finding.key, text, finding.do))
        elif now - problem["told"] >= settings["repeat_seconds"]:
            problem["told"] = now
            text = f"still, for {span(now - problem['since'])}{often}: {finding.what}"
            told.append(message("still", now, finding.key, text, finding.do))
    if not whole:
        return told
    here = {finding.key for finding in found}
    for key in [key for key in problems if key not in here]:
        problem = problems[key]
        problem["fine"] = problem["fine"] or now
        quiet = settings["settle_seconds"] * 2 ** min(problem["back"] + problem["times"] - 1, TIMES_AT_MOST)
        if problem["told"] and now - problem["fine"] < quiet:
            continue
        del problems[key]
        if problem["told"]:
            lasted = span(problem["fine"] - problem["since"])
            often = f", and came {problem['times']} times" if problem["times"] > 1 else ""
            text = f"over: {problem['what']}. It lasted {lasted}, until {clock(problem['fine'])}{often}"
            told.append(message("over", now, key, text))
            state["past"][key] = {"at": now, "back": problem["back"] + problem["times"]}
    state["past"] = {key: past for key, past in state["past"].items() if now - past["at"] < REMEMBERED_SECONDS}
    return told


def _back(state: dict[str, Any], key: str, now: float) -> int:
    """How often it was over and came back, lately."""
    past = state["past"].get(key)
    return int(past["back"]) if past and now - past["at"] < REMEMBERED_SECONDS else 0


def rebooted(state: dict[str, Any], identity: str, now: float) -> Messages:
    if not identity:
        # What is not known is no reboot. The next look sees it.
        return []
    known, state["boot"] = state["boot"], identity
    stopped, state["stopped"] = state["stopped"], 0
    if not known or known == identity:
        # A unit that somebody stopped by hand says nothing about a later boot; the shutdown in progress does.
        if known and stopped and now - stopped < 600:
            state["stopped"] = stopped
        return []
    if stopped:
        text = f"the host has rebooted: it was shut down in order at {clock(stopped)} and is back since {clock(now)}"
        return [message("event", now, "rebooted", text, "last -x reboot shutdown | head")]
    seen = f"; it was last seen well at {clock(state['looked'])}" if state["looked"] else ""
    how = f"without having been shut down (power, reset, or a panic){seen}"
    text = f"the host has rebooted {how}, and is back since {clock(now)}"
    return [message("event", now, "rebooted", text, "journalctl -b -1 -n 50; last -x reboot shutdown | head")]


# What it remembers


def fresh_state() -> dict[str, Any]:
    return {
        "problems": {}, "past": {}, "spool": [], "dropped": 0, "boot": "", "stopped": 0, "looked": 0,
        "delivered": 0, "failing": 0, "tried": 0, "trouble": "",
    }  # fmt: skip


def read_state() -> dict[str, Any]:
    state = fresh_state()
    for place in (MEANWHILE, STATE):
        try:
            return state | json.loads((place / "state.json").read_text())
        except FileNotFoundError:
            pass
        except ValueError as error:
            # What was told is told again rather than never.
            say(f"{place}/state.json cannot be read and is begun anew: {error}", 3)
    return state


def write_state(state: dict[str, Any]) -> None:
    """On the disk. While that takes nothing, in memory: just then there is something to tell."""
    try:
        write_whole(STATE / "state.json", state)
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        write_whole(MEANWHILE / "state.json", state)
    else:
        (MEANWHILE / "state.json").unlink(missing_ok=True)


def write_whole(path: Path, state: dict[str, Any]) -> None:
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("w") as file:
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def remembered() -> Iterator[dict[str, Any]]:
    """The state, for one process at a time; it is kept when the block ends well."""
    with (MEANWHILE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = read_state()
        yield state
        write_state(state)


def spool(state: dict[str, Any], told: Messages, settings: dict[str, Any], now: float) -> None:
    """Into the journal, and to where messages wait for the webhook. The oldest give way."""
    for one in told:
        say(
            f"{one['text']}{'. Type: ' + one['do'] if one['do'] else ''}",
            4 if one["kind"] in ("problem", "still") else 5,
        )
    if not webhook():
        return
    waiting = [*state["spool"], *told]
    kept = [one for one in waiting if now - one["at"] < KEPT_SECONDS][-settings["spool_max"] :]
    state["dropped"] += len(waiting) - len(kept)
    state["spool"] = kept


# The webhook


def webhook() -> str:
    """Its address, which is a secret. Root reads it; the units have it from systemd, as their standard input."""
    if os.access(WEBHOOK, os.R_OK):
        return WEBHOOK.read_text().strip()
    try:
        return os.pread(0, 65536, 0).decode().strip()
    except OSError:
        raise PermissionError(f"{WEBHOOK} is root's alone") from None


def lines(settings: dict[str, Any], told: Messages, mark: Callable[[str], str]) -> list[str]:
    found = []
    for one in told:
        do = f" Type: {mark(one['do'])}" if one["do"] else ""
        # A problem begins with the name of what is wrong, which stays as it is; the others with a word of ours.
        text = f"Wrong: {one['text']}" if one["kind"] == "problem" else one["text"][0].upper() + one["text"][1:]
        found.append(f"[{settings['app']} {settings['host']}] {text}.{do}")
    return found


def slack(settings: dict[str, Any], told: Messages) -> dict[str, Any]:
    escaped = [{**one, "text": webhooks.escaped(one["text"]), "do": webhooks.escaped(one["do"])} for one in told]
    return webhooks.slack(lines(settings, escaped, lambda do: f"`{do}`"))


def teams(settings: dict[str, Any], told: Messages) -> dict[str, Any]:
    return webhooks.teams(lines(settings, told, str))


def plain_json(settings: dict[str, Any], told: Messages) -> dict[str, Any]:
    messages = [{**one, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(one["at"]))} for one in told]
    return {
        "app": settings["app"],
        "host": settings["host"],
        "messages": messages,
        "text": "\n".join(lines(settings, told, str)),
    }


FORMATS = {"slack": slack, "teams": teams, "json": plain_json}


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Give up after so long, whatever the other side does: a limit for each word lets it speak for ever."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"no whole answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def post(url: str, body: dict[str, Any]) -> tuple[int, str]:
    """As `webhooks.post` does it, and in a time that is bounded as a whole."""
    try:
        context = webhooks.trust(str(AUTHORITY) if AUTHORITY.exists() else None)
        with within(ANSWER_PATIENCE):
            return webhooks.post(url, body, "slipway-alerts", POST_PATIENCE, context)
    except OSError as error:
        return 0, f"the authority {AUTHORITY} cannot be used: {error}"


def deliver(state: dict[str, Any], settings: dict[str, Any], now: float) -> None:
    """Send what waits, the oldest first. What is not taken stays."""
    url = webhook()
    if not url:
        return
    deadline = time.monotonic() + DELIVERY_PATIENCE
    # The rest is for the next look.
    while state["spool"] and time.monotonic() < deadline:
        batch = state["spool"][:BATCH]
        status, said = send(url, settings, _with_preface(state, batch, now))
        if status in REFUSED and len(batch) > 1:
            # One that it cannot take does not keep the others back.
            for one in batch:
                if time.monotonic() < deadline and 200 <= send(url, settings, [one])[0] < 300:
                    state["spool"].remove(one)
                    write_state(state)
        if not 200 <= status < 300:
            state["failing"] = state["failing"] or now
            state["tried"], state["trouble"] = now, said
            say(f"{len(state['spool'])} messages wait: {said}", 3)
            return
        state["spool"] = state["spool"][len(batch) :]
        state |= {"delivered": now, "failing": 0, "trouble": "", "dropped": 0}
        # Whatever ends a long delivery, what has been taken is not sent again.
        write_state(state)


def send(url: str, settings: dict[str, Any], told: Messages) -> tuple[int, str]:
    return post(url, FORMATS[settings["format"]](settings, told))


def _with_preface(state: dict[str, Any], batch: Messages, now: float) -> Messages:
    if not state["failing"] and not state["dropped"]:
        return batch
    lost = f", and the {state['dropped']} oldest messages were given up" if state["dropped"] else ""
    since = clock(state["failing"] or now)
    text = f"the webhook could not be told anything since {since}{lost}; what happened meanwhile follows"
    return [message("event", now, "webhook", text), *batch]


# The verbs


def look(settings: dict[str, Any]) -> None:
    with remembered() as state:
        now = time.time()
        told = rebooted(state, boot_identity(), now)
        told += compare(state, look_at_all(settings, now), settings, now, whole=True)
        state["looked"] = now
        spool(state, told, settings, now)
        # Kept before it is sent: a message may come twice, and never not at all.
        write_state(state)
        deliver(state, settings, now)


def failed(settings: dict[str, Any], unit: str) -> None:
    """A unit has failed just now, and may be well again at the next look."""
    if ignored(unit, settings):
        return
    with remembered() as state:
        now = time.time()
        spool(state, compare(state, [unit_finding(unit, now)], settings, now, whole=False), settings, now)
        write_state(state)
        # Many may fail at once: they do not all wait for a webhook that is down.
        if not state["failing"] or now - state["tried"] > AGAIN_SECONDS:
            deliver(state, settings, now)


def booted(settings: dict[str, Any]) -> None:
    """Note the boot. There may be no network yet: telling it is left to the timer."""
    with remembered() as state:
        now = time.time()
        spool(state, rebooted(state, boot_identity(), now), settings, now)


def stopping() -> None:
    with remembered() as state:
        state["stopped"] = time.time()


def become_account() -> None:
    """Root has read the secret; the rest needs none of its rights."""
    account = pwd.getpwnam(ACCOUNT)
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


def test(settings: dict[str, Any]) -> int:
    url = webhook()
    if not url:
        print("There is no webhook to send to: set alerts_webhook, and run playbooks/site.yml --tags alerts.")
        return 1
    if os.getuid() == 0:
        become_account()
    text = f"this is a test, sent at {clock(time.time())}. Nothing is wrong"
    status, said = send(url, settings, [message("test", time.time(), "test", text)])
    if 200 <= status < 300:
        print(f"Sent: {said}. See that it has arrived.")
        return 0
    print(f"Not sent: {said}. docs/ops/alerts.md says what to look at.")
    return 1


def summary(settings: dict[str, Any]) -> dict[str, Any]:
    state = read_state()
    return {
        "webhook": bool(webhook()), "format": settings["format"], "looked": state["looked"],
        "delivered": state["delivered"], "waiting": len(state["spool"]), "dropped": state["dropped"],
        "failing": state["failing"], "trouble": state["trouble"],
        "problems": {key: {**problem, "fine": bool(problem["fine"])} for key, problem in state["problems"].items()},
    }  # fmt: skip


def silence(seen: dict[str, Any], now: float) -> Iterator[str]:
    """Why nobody would hear of a problem."""
    if not seen["webhook"]:
        yield "Nobody is told when something is wrong with this host: set alerts_webhook (docs/ops/alerts.md)."
    if seen["failing"]:
        waiting = f"{seen['waiting']} messages wait: {seen['trouble']}"
        yield f"Nobody was told anything since {clock(seen['failing'])}, {waiting}."
    if now - seen["looked"] > SILENT_SECONDS:
        last = f"since {clock(seen['looked'])}" if seen["looked"] else "ever"
        yield f"Nothing has looked at this host {last}: systemctl status slipway-alerts.timer slipway-alerts.service."


def wrong(seen: dict[str, Any]) -> Iterator[str]:
    for problem in seen["problems"].values():
        if problem["told"] and not problem["fine"]:
            yield f"Wrong since {clock(problem['since'])}: {problem['what']}. Type: {problem['do']}"


def notice(settings: dict[str, Any]) -> None:
    seen = summary(settings)
    for line in [*silence(seen, time.time()), *wrong(seen)]:
        print(line)


def status(settings: dict[str, Any], as_json: bool) -> None:
    seen = summary(settings)
    if as_json:
        print(json.dumps(seen))
        return
    texts = [*silence(seen, time.time()), *wrong(seen)] or ["Nothing is wrong."]
    if seen["looked"]:
        texts.append(f"Last look: {clock(seen['looked'])}.")
    if seen["delivered"]:
        texts.append(f"Last message taken by the webhook: {clock(seen['delivered'])}.")
    print("\n".join(texts))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="alerts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("test", "notice", "look", "booted", "stopping"):
        verbs.add_parser(name)
    verbs.add_parser("status").add_argument("--json", action="store_true")
    verbs.add_parser("failed").add_argument("unit")
    options = parser.parse_args()
    try:
        settings = json.loads(CONFIGURATION.read_text())
        if options.verb == "test":
            return test(settings)
        if options.verb == "status":
            status(settings, options.json)
        elif options.verb == "failed":
            failed(settings, options.unit)
        elif options.verb == "stopping":
            stopping()
        else:
            {"notice": notice, "look": look, "booted": booted}[options.verb](settings)
    except PermissionError as error:
        print(f"alerts {options.verb} is for root: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
