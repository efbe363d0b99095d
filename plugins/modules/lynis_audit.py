#!/usr/bin/python
"""Have Lynis audit a host with its profile unmodified, and read its report."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lynis_audit
short_description: Have Lynis audit a host with its profile unmodified
description:
  - Runs C(lynis audit system) with a time limit and returns the score, the warnings and the suggestions. It takes a
    minute or two. On the host it writes Lynis' own log and report and nothing else.
  - Says whether the profile is the package's own, since a score under another one means nothing.
options:
  seconds:
    description: How long Lynis may take.
    type: int
    default: 600
  log_file:
    description: Where Lynis logs what it did.
    type: path
    default: /var/log/lynis.log
  report_file:
    description: Where Lynis writes its report.
    type: path
    default: /var/log/lynis-report.dat
"""

EXAMPLES = r"""
- name: Let Lynis look at the host
  lynis_audit:
"""

RETURN = r"""
lynis:
  description: What Lynis says. In one piece, since C(warnings) by itself is a word of Ansible's.
  type: dict
  returned: always
  contains:
    score: {description: The hardening index., type: int}
    version: {description: Of Lynis., type: str}
    tests: {description: How many tests Lynis did., type: int}
    warnings: {description: "Each as {id, text, details}.", type: list, elements: dict}
    suggestions: {description: "Each as {id, text, details}.", type: list, elements: dict}
    profile: {description: The profile's path and its SHA-256., type: dict}
    altered: {description: What is not as the package has it., type: list, elements: str}
    seconds: {description: How long Lynis took., type: float}
"""

import contextlib
import hashlib
import os
import signal
import subprocess
import tempfile
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

PROFILE = "/etc/lynis/default.prf"
# Where Lynis looks for profiles, in its order; what lies in the first ones wins.
PROFILE_DIRECTORIES = ("/usr/local/etc/lynis", "/etc/lynis", "/usr/local/lynis")
PID_FILE = "/run/lynis.pid"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def finding(value: str) -> dict[str, str]:
    """`TEST-1234|what|details|solution|`, where `-` stands for nothing."""
    parts = [part.strip() for part in value.split("|")] + [""] * 3
    return {"id": parts[0], "text": parts[1], "details": "" if parts[2] == "-" else parts[2]}


def parse(text: str) -> dict[str, Any]:
    """What a report says, as far as an audit needs it."""
    found: dict[str, Any] = {"score": None, "version": "", "tests": 0, "warnings": [], "suggestions": []}
    for line in text.splitlines():
        name, separator, value = line.partition("=")
        if not separator:
            continue
        if name == "hardening_index" and value.isdigit():
            found["score"] = int(value)
        elif name == "lynis_version":
            found["version"] = value
        elif name == "lynis_tests_done" and value.isdigit():
            found["tests"] = int(value)
        elif name in ("warning[]", "suggestion[]"):
            found[name[:-2] + "s"].append(finding(value))
    return found


def package_digest(conffiles: str, path: str) -> str:
    """The MD5 that dpkg knows of a configuration file: of the file as its package brought it."""
    for line in conffiles.splitlines():
        parts = line.split()
        if len(parts) >= 2 and parts[0] == path:
            return parts[1]
    return ""


def alterations(
    conffiles: str, profile: str = PROFILE, directories: tuple[str, ...] = PROFILE_DIRECTORIES
) -> list[str]:
    """What makes the run another one than that of the package: an altered profile, or further ones."""
    found = []
    with open(profile, "rb") as stream:
        if hashlib.md5(stream.read()).hexdigest() != package_digest(conffiles, profile):  # noqa: S324 it is dpkg's
            found.append(profile + " is not the package's own")
    for directory in directories:
        for name in ("default.prf", "custom.prf"):
            path = os.path.join(directory, name)
            if path != profile and os.path.exists(path):
                found.append(path + " is read as well")
    return found


def running(pid_file: str = PID_FILE) -> int:
    """The process of a Lynis that runs already; 0 when there is none, whatever a killed one left behind."""
    with contextlib.suppress(OSError, ValueError):
        with open(pid_file) as stream:
            pid = int(stream.read())
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            if b"lynis" in stream.read():
                return pid
    return 0


def run(module: AnsibleModule, report: str) -> None:
    command = ["/usr/sbin/lynis", "audit", "system", "--quick", "--no-colors", "--quiet"]
    command += ["--logfile", module.params["log_file"], "--report-file", report]
    environment = {"PATH": PATH, "HOME": "/root", "LC_ALL": "C", "TERM": "dumb"}
    # Lynis looks for profiles and process ids in the directory that it is called from: an empty one.
    with tempfile.TemporaryDirectory() as empty:
        process = subprocess.Popen(
            command,
            cwd=empty,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=module.params["seconds"])
        except subprocess.TimeoutExpired:
            module.fail_json(
                msg=f"Lynis was not done after {module.params['seconds']} s; see {module.params['log_file']}."
            )
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if not os.path.exists(report):
        module.fail_json(msg=f"Lynis wrote no report (exit code {process.returncode}).", output=output[-2000:])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "seconds": {"type": "int", "default": 600},
            "log_file": {"type": "path", "default": "/var/log/lynis.log"},
            "report_file": {"type": "path", "default": "/var/log/lynis-report.dat"},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, skipped=True, msg="Lynis writes a log, and so is not run in check mode.")
    if not os.access("/usr/sbin/lynis", os.X_OK) or not os.path.exists(PROFILE):
        module.fail_json(msg="Lynis is not installed: run playbooks/site.yml (--tags audit) first.")
    pid = running()
    if pid:
        module.fail_json(msg=f"Lynis runs on this host already (process {pid}): wait for it, then audit again.")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(PID_FILE)
    _, conffiles, _ = module.run_command(["dpkg-query", "-W", "-f=${Conffiles}", "lynis"])
    altered = alterations(conffiles)
    report = module.params["report_file"]
    # What an earlier run left must not pass for this one's.
    with contextlib.suppress(FileNotFoundError):
        os.unlink(report)
    begun = time.monotonic()
    run(module, report)
    with open(report, errors="replace") as stream:
        found = parse(stream.read())
    if found["score"] is None:
        module.fail_json(msg=f"Lynis gave no score; see {module.params['log_file']}.")
    with open(PROFILE, "rb") as stream:
        profile = {"path": PROFILE, "sha256": hashlib.sha256(stream.read()).hexdigest()}
    found.update(profile=profile, altered=altered, seconds=round(time.monotonic() - begun, 1))
    module.exit_json(changed=False, lynis=found)


if __name__ == "__main__":
    main()
