"""Looks at the host from within, once, and prints what it saw as JSON: python3 -I -, as root.

Under emulation a login costs seconds and each process a tenth of one: so everything is looked at in one session, by as
few programs as it takes. What is seen is judged by tests/vm.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BOOTED = 300  # seconds for what starts at boot to have started
PROGRAM = 120  # seconds for each program
UNIT = ("Id", "LoadState", "ActiveState", "SubState", "Result", "UnitFileState", "Type", "ConditionResult")
# Units of packages, without which a host is not what the roles made it.
DAEMONS = (
    "ssh", "nginx", "ufw", "auditd", "apparmor", "fail2ban", "chrony", "cron", "systemd-journald", "systemd-sysctl",
    "systemd-modules-load", "unattended-upgrades",
)  # fmt: skip
INSTALL = re.compile(r"^\s*install\s+(\S+)\s+/(?:usr/)?bin/(?:false|true)\b", re.MULTILINE)
NAMES = re.compile(r'\("([^"]+)"')
SYSCTL = re.compile(r"^\s*-?([a-z][\w./-]*)\s*=\s*(.*?)\s*$", re.MULTILINE)


def run(*command: str) -> tuple[int, str]:
    """A program's exit code and what it wrote."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            errors="replace", timeout=PROGRAM, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout


def text(path: str) -> str:
    """A file's text; nothing where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def firsts(listing: str) -> list[str]:
    return [line.split()[0] for line in listing.splitlines() if line.split()]


def state() -> str:
    """The system's state once everything that starts at boot has done so."""
    deadline = time.monotonic() + BOOTED
    found = ""
    while time.monotonic() < deadline and found not in ("running", "degraded", "maintenance"):
        found = run("systemctl", "is-system-running", "--wait")[1].strip()
    return found


def system() -> dict[str, Any]:
    mounts = {line.split()[1]: line.split()[::2] + line.split()[3:4] for line in text("/proc/mounts").splitlines()}
    return {
        "boot_id": text("/proc/sys/kernel/random/boot_id").strip(),
        "kernel": os.uname().release,
        "virtualization": run("systemd-detect-virt")[1].strip(),
        "mounts": {place: mounts.get(place) for place in ("/", "/tmp", "/var/tmp", "/dev/shm")},  # noqa: S108
        "traces_of_a_container": [path for path in ("/.dockerenv", "/run/.containerenv") if Path(path).exists()],
        "failed": firsts(run("systemctl", "list-units", "--failed", "--plain", "--no-legend")[1]),
        "data1": run("getent", "ahostsv4", "data1")[1].split()[:1],
    }


def units() -> dict[str, dict[str, str]]:
    """What the roles installed into /etc, what runs of its templates, and the daemons."""
    directory = "/etc/systemd/system"
    files = {e.name for e in os.scandir(directory) if e.is_file(follow_symlinks=False) and "." in e.name}
    templates = {name for name in files if "@." in name}
    running = [name.replace("@.", "@*.") for name in sorted(templates)]
    names = files - templates | {f"{daemon}.service" for daemon in DAEMONS}
    names |= set(firsts(run("systemctl", "list-units", "--all", "--plain", "--no-legend", *running)[1]))
    shown = run("systemctl", "show", f"--property={','.join(UNIT)}", "--", *sorted(names))[1]
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in shown.split("\n\n")]
    return {unit["Id"]: unit for unit in blocks if unit}


def sysctls() -> dict[str, list[str | None]]:
    """What our files ask for beside what the kernel has; of two files that name a key the last wins (sysctl.d(5))."""
    wanted: dict[str, str] = {}
    for path in sorted(Path("/etc/sysctl.d").glob("*.conf")):
        for key, value in SYSCTL.findall(text(str(path))):
            wanted[key.replace(".", "/")] = value
    found: dict[str, list[str | None]] = {}
    for key, value in wanted.items():
        if "*" not in key:
            place = Path("/proc/sys") / key
            found[key] = [value, " ".join(text(str(place)).split()) if place.exists() else None]
    return found


def modules() -> dict[str, dict[str, Any]]:
    """Each module that may not be loaded: whether this kernel has it, and what an attempt to load it comes to."""
    files = Path("/etc/modprobe.d").glob("*.conf")
    blocked = sorted({name for path in files for name in INSTALL.findall(text(str(path)))})
    tree = text(f"/lib/modules/{os.uname().release}/modules.dep")
    known = {re.split(r"[/:]", line.partition(".ko")[0])[-1].replace("-", "_") for line in tree.splitlines()}
    found: dict[str, dict[str, Any]] = {}
    for module in blocked:
        exists = module.replace("-", "_") in known
        found[module] = {"exists": exists, "code": run("modprobe", module)[0] if exists else None}
    loaded = set(firsts(text("/proc/modules")))
    return {module: {**facts, "loaded": module.replace("-", "_") in loaded} for module, facts in found.items()}


def apparmor() -> dict[str, Any]:
    modes: dict[str, list[str]] = {}
    for line in text("/sys/kernel/security/apparmor/profiles").splitlines():
        name, _, mode = line.rpartition(" ")
        modes.setdefault(mode.strip("()"), []).append(name)
    return {"enabled": text("/sys/module/apparmor/parameters/enabled").strip(), **modes}


def audit() -> dict[str, Any]:
    """The kernel's rules, the daemon, and whether what must not happen unseen is seen: here, another right for sudo."""
    status = dict(line.split(None, 1) for line in run("auditctl", "-s")[1].splitlines() if len(line.split()) > 1)
    planted = Path(f"/etc/sudoers.d/planted-{os.getpid()}")
    planted.touch(0o440)
    planted.unlink()
    keys: set[str] = set()
    deadline = time.monotonic() + 20
    while not keys and time.monotonic() < deadline:
        time.sleep(1)  # auditd writes what it got a moment later
        seen = run("ausearch", "--input-logs", "--raw", "--start", "recent", "--file", str(planted))[1]
        keys = set(re.findall(r'\bkey="([^"]+)"', seen))
    return {"status": status, "rules": run("auditctl", "-l")[1].splitlines(), "planted": sorted(keys)}


def firewall() -> dict[str, Any]:
    saved = {family: run(f"{family}-save")[1].splitlines() for family in ("iptables", "ip6tables")}
    chains = {f: [line[1:].split() for line in lines if line.startswith(":")] for f, lines in saved.items()}
    return {
        "status": run("ufw", "status", "verbose")[1],
        "policies": {f: {name: policy for name, policy, *_ in found if policy != "-"} for f, found in chains.items()},
        "rules": {family: sum(line.startswith("-A") for line in lines) for family, lines in saved.items()},
        "sets": {
            block.splitlines()[0]: re.findall(r"^([0-9a-f.:/]+)", block.partition("Members:")[2], re.MULTILINE)
            for block in run("ipset", "list")[1].split("Name: ")[1:]
        },
    }


def listens() -> list[str]:
    """Ports that are open to others, with who listens."""
    found = set()
    for line in run("ss", "-H", "-t", "-l", "-n", "-p")[1].splitlines():
        address, _, port = line.split()[3].rpartition(":")
        if not address.startswith(("127.", "[::1]")):
            found.add(f"{port} {' '.join(sorted(set(re.findall(NAMES, line))))}")
    return sorted(found)


def answer(*command: str) -> dict[str, Any]:
    """The JSON object that a program of ours says."""
    with contextlib.suppress(ValueError, IndexError):
        return dict(json.loads(run(*command)[1].strip().splitlines()[-1]))
    return {}


def ways_in() -> dict[str, str]:
    """A fingerprint of each file that decides who gets in, with its owner and mode: what the guard looks after."""
    found = {}
    for place in ("/etc/ssh", "/etc/pam.d", "/etc/security", "/etc/sudoers.d", "/etc/ufw", "/etc/slipway", "/home"):
        for path in sorted(Path(place).rglob("*")):
            if path.is_file() and (place != "/home" or path.parent.name == ".ssh"):
                kind = path.stat()
                digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
                found[str(path)] = f"{digest} {kind.st_mode:o} {kind.st_uid} {kind.st_gid}"
    return found


LOOKS: dict[str, Callable[[], Any]] = {
    "state": state,
    "system": system,
    "units": units,
    "sysctls": sysctls,
    "modules": modules,
    "apparmor": apparmor,
    "audit": audit,
    "firewall": firewall,
    "listens": listens,
    "guard": lambda: answer("/usr/local/libexec/slipway/guard", "status"),
    "release": lambda: answer("/usr/local/sbin/releasectl", "status", "--json"),
    "sshd": lambda: run("sshd", "-T", "-C", "user=root,host=h,addr=127.0.0.1")[1].splitlines(),
    "ways_in": ways_in,
    "ssh_files": lambda: sorted(path.name for path in Path("/etc/ssh/sshd_config.d").iterdir()),
}


def main() -> None:
    seen: dict[str, Any] = {"seconds": {}}
    for name, look in LOOKS.items():
        begun = time.monotonic()
        try:
            seen[name] = look()
        except Exception as error:  # one look that fails does not cost the others: whoever judges it finds nothing
            seen.setdefault("errors", {})[name] = repr(error)
        seen["seconds"][name] = round(time.monotonic() - begun, 1)
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
