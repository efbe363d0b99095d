#!/usr/bin/python3 -I
"""Who may get into this host, as the host itself sees it. Written by Slipway; its source is roles/deployers/files.

    access expire              what the timer runs every minute: whoever's time is up is shut out
    access shut-out NAME       now: keys gone, account locked, sessions ended; stays so until a new ticket
    access show NAME           what one account can do, as JSON
    access report              what every account can do, as JSON; changes nothing
    access note                from standard input, JSON: what the role puts on record, and into the access log
    access run                 what sshd runs for an identity of automation: one of its commands, and nothing else

Python 3.10, standard library only. All but `run` need root.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime
import fcntl
import grp
import hashlib
import json
import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RECORD = Path("/etc/slipway/people.json")
KEYS = Path("/etc/slipway/authorized_keys")
AUTOMATION = Path("/etc/slipway/automation.json")
LOG = Path("/var/log/slipway")
KEPT = Path("/var/lib/slipway/left")
CRONTABS = Path("/var/spool/cron/crontabs")
JOBS = Path("/var/spool/cron/atjobs")
LINGER = Path("/var/lib/systemd/linger")
SUDO_TICKETS = (Path("/run/sudo/ts"), Path("/var/run/sudo/ts"))
NOLOGIN = "/usr/sbin/nologin"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# How long processes may take to end when they are asked to, and how long it may take until the last one is gone.
GRACE, PATIENCE = 2.0, 15.0
APPEND_ONLY = 0x20
GET_FLAGS, SET_FLAGS = 0x80086601, 0x40086602
NOT_A_USER = 4294967295


class Trouble(Exception):
    """What the command ends with; the text is a sentence."""


def run(*argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=60,
        env={"PATH": PATH, "LC_ALL": "C"},
    )  # fmt: skip
    if check and done.returncode != 0:
        raise Trouble(f"{shlex.join(argv)} ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-300:]}")
    return done


# The record


def moment(text: str) -> datetime.datetime:
    """A time such as 2026-11-24T05:00:00Z."""
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(datetime.timezone.utc)


def stamp(when: datetime.datetime) -> str:
    return when.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_record() -> dict[str, Any]:
    try:
        people: dict[str, Any] = json.loads(RECORD.read_text())["people"]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise Trouble(
            f"{RECORD} cannot be read ({error}): remove it, and run site.yml, which writes it anew"
        ) from error
    return people


def write_record(people: dict[str, Any]) -> None:
    text = json.dumps({"people": people}, indent=2, sort_keys=True) + "\n"
    new = RECORD.with_name(f".{RECORD.name}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(new, RECORD)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """One of us at a time: the timer does not get between the steps of a run of the role, nor the other way round."""
    with open("/run/slipway-access.lock", "w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


# The log: a file a month, since what can only be appended to cannot be renamed by logrotate.


def log(entry: dict[str, Any], now: datetime.datetime | None = None) -> None:
    now = now or datetime.datetime.now(datetime.timezone.utc)
    LOG.mkdir(mode=0o750, parents=True, exist_ok=True)
    path = LOG / f"access-{now:%Y-%m}.jsonl"
    line = json.dumps({"time": stamp(now), "host": socket.gethostname(), **entry}, ensure_ascii=False) + "\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.write(descriptor, line.encode())
        os.fsync(descriptor)
        append_only(descriptor)
    finally:
        os.close(descriptor)


def append_only(descriptor: int) -> bool:
    """As `chattr +a`. Not every file system can; then the log is only as safe as root is honest."""
    flags = bytearray(8)
    try:
        fcntl.ioctl(descriptor, GET_FLAGS, flags)
        now = struct.unpack("l", flags)[0]
        if not now & APPEND_ONLY:
            fcntl.ioctl(descriptor, SET_FLAGS, struct.pack("l", now | APPEND_ONLY))
    except OSError:
        return False
    return True


# Processes


def processes() -> dict[int, dict[str, Any]]:
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        base = Path("/proc") / name
        # A process may end while we look.
        with contextlib.suppress(OSError, ValueError, KeyError):
            status = dict(
                line.split(":", 1) for line in base.joinpath("status").read_text().splitlines() if ":" in line
            )
            login = NOT_A_USER
            with contextlib.suppress(OSError, ValueError):
                login = int(base.joinpath("loginuid").read_text())
            found[int(name)] = {
                "parent": int(status["PPid"]),
                "uids": {int(uid) for uid in status["Uid"].split()},
                "login": login,
                "cgroup": base.joinpath("cgroup").read_text(),
                "zombie": status["State"].split()[0] == "Z",
                "what": status["Name"].strip(),
            }
    return found


def belonging(seen: dict[int, dict[str, Any]], uid: int, spared: set[int]) -> set[int]:
    """The processes of a person: by uid, by the login that they came from, and whatever those started, as root too."""
    slice_of = re.compile(rf"/user-{uid}\.slice(/|$)", re.MULTILINE)
    mine = {
        pid
        for pid, process in seen.items()
        if uid in process["uids"] or process["login"] == uid or slice_of.search(process["cgroup"])
    }
    grown = True
    while grown:
        more = {pid for pid, process in seen.items() if process["parent"] in mine} - mine
        mine |= more
        grown = bool(more)
    return {pid for pid in mine if not seen[pid]["zombie"]} - spared


def ourselves(seen: dict[int, dict[str, Any]]) -> set[int]:
    """This process and all above it."""
    found, pid = {0, 1}, os.getpid()
    while pid in seen and pid not in found:
        found.add(pid)
        pid = seen[pid]["parent"]
    return found


def end_processes(uid: int) -> int:
    """End all that a person runs here, and what that starts meanwhile; how many there were."""
    begun = time.monotonic()
    asked: dict[int, float] = {}
    while True:
        seen = processes()
        left = belonging(seen, uid, ourselves(seen))
        if not left:
            return len(asked)
        now = time.monotonic()
        if now - begun > PATIENCE:
            raise Trouble(f"processes of uid {uid} do not end: {', '.join(map(str, sorted(left)))}")
        for pid in left:
            first = asked.setdefault(pid, now)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if first == now else signal.SIGKILL if now - first > GRACE else 0)
        time.sleep(0.1)


# Shutting out


def account(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def shadow(name: str) -> list[str]:
    """The fields of an account's line in /etc/shadow: name, password, changed, min, max, warn, inactive, expire, -."""
    for line in Path("/etc/shadow").read_text().splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return fields
    return [name, "", "", "", "", "", "", "", ""]


def groups_of(entry: pwd.struct_passwd) -> list[str]:
    return sorted(
        {group.gr_name for group in grp.getgrall() if entry.pw_name in group.gr_mem or group.gr_gid == entry.pw_gid}
    )


def is_shut(name: str) -> bool:
    """Whether nothing is left to do: no key, no shell, no password, expired."""
    entry = account(name)
    if entry is None:
        return not (KEYS / name).exists()
    fields = shadow(name)
    return (
        not (KEYS / name).exists()
        and not (CRONTABS / name).exists()
        and entry.pw_shell == NOLOGIN
        and fields[1] == "*"
        and fields[7] == "1"
        and not any(name in group.gr_mem for group in grp.getgrall())
    )


def put_away(name: str, uid: int, home: str, when: datetime.datetime) -> list[str]:
    """Move what would still act for a person out of the way, and keep it for whoever wants to look."""
    kept = KEPT / name / f"{when:%Y%m%dT%H%M%SZ}"
    found = [CRONTABS / name, *(Path(home) / ".ssh" / each for each in ("authorized_keys", "authorized_keys2"))]
    with contextlib.suppress(OSError):
        found += [path for path in JOBS.iterdir() if path.is_file() and path.lstat().st_uid == uid]
    done = []
    for path in found:
        if not (path.is_file() or path.is_symlink()):
            continue
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()
        else:
            shutil.move(str(path), str(kept / f"{path.parent.name}-{path.name}"))
        done.append(f"{path} is kept in {kept}")
    for path in (
        LINGER / name,
        *(place / name for place in SUDO_TICKETS),
        *(place / str(uid) for place in SUDO_TICKETS),
    ):
        if path.exists():
            path.unlink()
            done.append(f"{path} is removed")
    return done


def shut_out(name: str, why: str, ticket: str, actor: str, now: datetime.datetime) -> dict[str, Any]:
    """Whatever ends us half-way, the record says it already, and the timer goes on with it within a minute."""
    people = read_record()
    entry = account(name)
    before = people.get(name)
    if before is None and entry is None:
        raise Trouble(f"there is no {name} on this host, neither in {RECORD} nor as an account")
    if entry is not None and entry.pw_uid == 0:
        raise Trouble(f"{name} is root")
    again = before is not None and before.get("state") != "present"
    noted = dict(before or {})
    tickets = sorted({*noted.get("tickets", []), *([ticket] if ticket else [])})
    if not again or why not in ("again", noted["why"]):
        noted.update(why=why, ended=stamp(now))
    noted.update(state="ended", tickets=tickets)
    people[name] = noted
    write_record(people)

    done = []
    if (KEYS / name).exists():
        (KEYS / name).unlink()
        done.append("its keys are gone")
    if entry is not None:
        was_shut = is_shut(name)
        run("usermod", "--expiredate", "1", "--shell", NOLOGIN, "--password", "*", "--groups", "", name)
        if not was_shut:
            done.append("the account is locked")
        done += put_away(name, entry.pw_uid, entry.pw_dir, now)
        if shutil.which("loginctl", path=PATH) and run("loginctl", "show-user", name, check=False).returncode == 0:
            run("loginctl", "terminate-user", name, check=False)
        ended = end_processes(entry.pw_uid)
        # What may have been put there until a moment ago.
        done += put_away(name, entry.pw_uid, entry.pw_dir, now)
        if ended:
            done.append(f"{ended} processes are ended")
        home = Path(entry.pw_dir)
        if home.is_dir() and not home.is_symlink() and home.parent == Path("/home") and home.stat().st_uid != 0:
            os.chown(home, 0, 0)
            home.chmod(0o700)
            done.append(f"{home} is root's")
    if done or not again:
        log({"action": "shut-out", "person": name, "why": noted["why"], "ticket": ticket, "actor": actor, "done": done})
    return {"name": name, "changed": bool(done) or not again, "done": done, "record": noted}


def note(said: dict[str, Any], now: datetime.datetime) -> None:
    """The role's side of the record: who is in force. What has ended stays on record, and so do the tickets used up."""
    people = read_record()
    for name, entry in said["record"].items():
        tickets = {*people.get(name, {}).get("tickets", []), *entry.pop("tickets", [])} | ({entry["ticket"]} - {""})
        ended = {} if entry["state"] == "present" else {"ended": stamp(now)}
        people[name] = {**entry, **ended, "tickets": sorted(tickets)}
    write_record(people)
    for line in said["log"]:
        log(line, now)


def expire(now: datetime.datetime) -> list[dict[str, Any]]:
    answers = []
    for path in LOG.glob("access-*.jsonl"):
        with open(path, "rb") as stream:
            append_only(stream.fileno())
    for name, noted in sorted(read_record().items()):
        over = noted.get("state") == "present" and noted.get("until") and moment(noted["until"]) <= now
        entry = account(name)
        if over:
            answers.append(shut_out(name, "expired", "", "the host's own timer", now))
        elif noted.get("state") != "present":
            seen = processes()
            running = entry is not None and belonging(seen, entry.pw_uid, ourselves(seen))
            if not is_shut(name) or running:
                answers.append(shut_out(name, "again", "", "the host's own timer", now))
    return answers


# Looking


def fingerprint(blob: str) -> str:
    digest = hashlib.sha256(base64.b64decode(blob)).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


KEY = re.compile(
    r"(?:^|(?<=\s))((?:sk-)?(?:ssh|ecdsa)-[a-z0-9-]+(?:@openssh\.com)?) (AAAA[A-Za-z0-9+/]+={0,2})(?:\s+(.*))?$"
)


def keys_in(path: Path) -> list[dict[str, Any]]:
    """The keys of an authorized_keys file: what each may do, until when, and which it is."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        line = line.strip()
        match = KEY.search(line) if line and not line.startswith("#") else None
        if match is None:
            continue
        options = line[: match.start(1)].strip()
        limit = re.search(r'expiry-time="(\d+)(Z?)"', options)
        found.append(
            {
                "file": str(path),
                "type": match[1],
                "fingerprint": fingerprint(match[2]),
                "options": options,
                "expired": limit is not None and key_is_over(limit[1], bool(limit[2])),
            }
        )
    return found


def key_is_over(text: str, utc: bool) -> bool:
    when = datetime.datetime.strptime(text.ljust(14, "0"), "%Y%m%d%H%M%S")
    when = when.replace(tzinfo=datetime.timezone.utc) if utc else when.astimezone()
    return when <= datetime.datetime.now(datetime.timezone.utc)


def sshd(name: str) -> dict[str, list[str]]:
    """What sshd makes of all its files for this account."""
    done = run("sshd", "-T", "-C", f"user={name},host=anywhere,addr=192.0.2.1")
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        word, _, value = line.partition(" ")
        found.setdefault(word, []).extend(value.split())
    return found


def key_files(settings: dict[str, list[str]], entry: pwd.struct_passwd) -> list[Path]:
    files = []
    for pattern in settings.get("authorizedkeysfile", []):
        if pattern != "none":
            text = pattern.replace("%h", entry.pw_dir).replace("%u", entry.pw_name).replace("%U", str(entry.pw_uid))
            files.append(Path(entry.pw_dir) / text)
    return files


def matches(name: str, groups: list[str], settings: dict[str, list[str]]) -> bool:
    """Whether AllowUsers, DenyUsers and their like let an account through, by names (addresses are left aside)."""

    def named(option: str, own: list[str]) -> bool | None:
        patterns = [pattern.split("@")[0] for pattern in settings.get(option, [])]
        if not patterns:
            return None
        expressions = [re.escape(p).replace(r"\*", ".*").replace(r"\?", ".") for p in patterns]
        return any(re.fullmatch(expression, mine) for expression in expressions for mine in own)

    return not (
        named("denyusers", [name])
        or named("allowusers", [name]) is False
        or named("denygroups", groups)
        or named("allowgroups", groups) is False
    )


def rights(name: str) -> list[str]:
    """What `sudo -l` says that an account may run, as it says it."""
    said = run("sudo", "-n", "-l", "-U", name, check=False).stdout
    lines = said.partition("may run the following commands")[2].splitlines()[1:]
    # The same from two rules, for the account and for its group, is one right.
    return list(dict.fromkeys(" ".join(line.split()) for line in lines if line.strip()))


ACCEPTED = re.compile(r"^(\S+) \S+ \S+ Accepted \S+ for (\S+) from (\S+) ")


def last_logins() -> dict[str, dict[str, str]]:
    """When and from where each account came in last, as far as the journal goes back."""
    found: dict[str, dict[str, str]] = {}
    asked = ("--identifier=sshd", "--grep=^Accepted ", "--reverse", "--lines=5000", "--output=short-iso", "--quiet")
    for line in run("journalctl", "--utc", "--no-pager", *asked, check=False).stdout.splitlines():
        match = ACCEPTED.match(line)
        if match:
            found.setdefault(match[2], {"time": match[1], "from": match[3]})
    return found


def look(entry: pwd.struct_passwd, seen: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """All that matters about an account, and whether there is a way in."""
    fields = shadow(entry.pw_name)
    groups = groups_of(entry)
    settings = sshd(entry.pw_name)
    effective = key_files(settings, entry)
    homely = [Path(entry.pw_dir) / ".ssh" / each for each in ("authorized_keys", "authorized_keys2")]
    keys = [key for path in effective for key in keys_in(path)]
    expire_day = int(fields[7]) if fields[7].isdigit() else None
    shell = entry.pw_shell or "/bin/sh"
    password = bool(fields[1]) and not fields[1].startswith(("!", "*"))
    locked = (expire_day is not None and expire_day <= int(time.time() // 86400)) or shell.endswith(
        ("nologin", "/false")
    )
    root_may = settings.get("permitrootlogin", ["no"])[0]
    by_key = any(not key["expired"] for key in keys) and settings.get("pubkeyauthentication") == ["yes"]
    by_password = (password or not fields[1]) and "yes" in (
        settings.get("passwordauthentication", []) + settings.get("kbdinteractiveauthentication", [])
    )
    if entry.pw_uid == 0:
        by_key = by_key and root_may != "no"
        by_password = by_password and root_may == "yes"
    return {
        "name": entry.pw_name,
        "uid": entry.pw_uid,
        "comment": entry.pw_gecos.rstrip(","),
        "home": entry.pw_dir,
        "shell": shell,
        "groups": groups,
        "password": password,
        "expires": expire_day,
        "max_days": fields[4],
        "locked": locked,
        "allowed": matches(entry.pw_name, groups, settings),
        "keys": keys,
        "keys_elsewhere": [key for path in homely if path not in effective for key in keys_in(path)],
        "keys_managed": all(path.parent == KEYS for path in effective),
        "forced_command": " ".join(settings.get("forcecommand", ["none"])),
        "sudo": rights(entry.pw_name),
        "crontab": (CRONTABS / entry.pw_name).exists(),
        "processes": len(belonging(seen, entry.pw_uid, ourselves(seen))) if entry.pw_uid else 0,
        "way_in": not locked and matches(entry.pw_name, groups, settings) and (by_key or by_password),
    }


def interesting(entry: pwd.struct_passwd, record: dict[str, Any]) -> bool:
    """System accounts that have neither a shell nor a key are left aside: there is nothing to tell of them."""
    homely = (Path(entry.pw_dir) / ".ssh" / each for each in ("authorized_keys", "authorized_keys2"))
    return (
        entry.pw_uid == 0
        or entry.pw_name in record
        or not (entry.pw_shell or "/bin/sh").endswith(("nologin", "/false", "/sync"))
        or (KEYS / entry.pw_name).exists()
        or any(path.exists() for path in homely)
    )


PRIVILEGED = ("sudo", "wheel", "admin", "docker", "lxd", "libvirt", "disk", "shadow", "root", "kmem")


def report() -> dict[str, Any]:
    record = read_record()
    seen = processes()
    accounts = {entry.pw_name: look(entry, seen) for entry in pwd.getpwall() if interesting(entry, record)}
    key_names = sorted(path.name for path in KEYS.iterdir()) if KEYS.is_dir() else []
    sudoers = sorted(str(path) for path in Path("/etc/sudoers.d").iterdir() if path.name != "README")
    return {
        "host": socket.gethostname(),
        "time": stamp(datetime.datetime.now(datetime.timezone.utc)),
        "accounts": accounts,
        "record": record,
        "key_files": key_names,
        "sudoers": sudoers,
        "groups": {group.gr_name: sorted(group.gr_mem) for group in grp.getgrall()},
        "privileged": {group.gr_name: sorted(group.gr_mem) for group in grp.getgrall() if group.gr_name in PRIVILEGED},
        "last_logins": last_logins(),
        "timer": run("systemctl", "is-active", "slipway-access.timer", check=False).stdout.strip(),
    }


def show(name: str) -> dict[str, Any]:
    entry = account(name)
    noted = read_record().get(name)
    if entry is None:
        return {"name": name, "there": False, "record": noted, "key_file": (KEYS / name).exists()}
    return {**look(entry, processes()), "there": True, "record": noted, "key_file": (KEYS / name).exists()}


# Automation


def run_for_automation() -> None:
    """One of the commands of this identity: the only one, or the one that was asked for by its name."""
    name = pwd.getpwuid(os.getuid()).pw_name
    commands: dict[str, str] = json.loads(AUTOMATION.read_text()).get(name, {})
    asked = os.environ.get("SSH_ORIGINAL_COMMAND", "").strip()
    if not commands:
        raise Trouble(f"{name} has no command on this host")
    # By its name, or as a whole in whatever shell Ansible wraps it into. Nothing but a command of the list is ever run.
    whole = sorted((command for command in commands.values() if command in asked), key=len)
    if asked in commands:
        chosen = commands[asked]
    elif whole:
        chosen = whole[-1]
    else:
        raise Trouble(f"ask for one of {', '.join(sorted(commands))}")
    os.execve("/usr/bin/sudo", ["sudo", "-n", *shlex.split(chosen)], {"PATH": PATH, "LC_ALL": "C.UTF-8"})  # noqa: S606


def main() -> int:
    parser = argparse.ArgumentParser(prog="access", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    timed = verbs.add_parser("expire")
    timed.add_argument("--now", type=moment, help="what time it shall be taken for (for tests)")
    out = verbs.add_parser("shut-out")
    out.add_argument("name")
    out.add_argument("--why", default="shut out")
    out.add_argument("--ticket", required=True)
    out.add_argument("--actor", default=os.environ.get("SUDO_USER") or "root")
    verbs.add_parser("show").add_argument("name")
    for name in ("report", "note", "run"):
        verbs.add_parser(name)
    options = parser.parse_args()
    os.umask(0o027)
    now = datetime.datetime.now(datetime.timezone.utc)
    answer: Any = None
    try:
        if options.verb == "run":
            run_for_automation()
        elif options.verb == "expire":
            with held():
                answer = expire(options.now or now) or None
        elif options.verb == "shut-out":
            with held():
                answer = shut_out(options.name, options.why, options.ticket, options.actor, now)
        elif options.verb == "show":
            answer = show(options.name)
        elif options.verb == "report":
            answer = report()
        else:
            with held():
                note(json.load(sys.stdin), now)
    except (Trouble, OSError, subprocess.TimeoutExpired, ValueError) as error:
        print(f"access {options.verb}: {error}", file=sys.stderr)
        return 1
    if answer is not None:
        print(json.dumps(answer, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
