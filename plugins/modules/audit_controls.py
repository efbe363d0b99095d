#!/usr/bin/python
"""Run the checks of an audit's controls on a host, all of them in one round trip."""

from __future__ import annotations

DOCUMENTATION = r"""
module: audit_controls
short_description: Run the checks of controls on a host
description:
  - Runs each check with C(/bin/sh) as the user of the task, a few at a time, each with a time limit, and says which
    ended with 0. A check looks and changes nothing; so does this module.
  - Of what a failing check prints only the end is kept, and what looks like a secret is taken out of it.
options:
  checks:
    description: What to run.
    type: list
    elements: dict
    required: true
    suboptions:
      id:
        description: The control.
        type: str
        required: true
      check:
        description: A shell script that ends with 0 when all is as it should be.
        type: str
        required: true
  environment:
    description: Variables that the checks may use, beside C(PATH), C(HOME) and C(LC_ALL).
    type: dict
    default: {}
  seconds:
    description: How long one check may take.
    type: int
    default: 20
  jobs:
    description: How many run at a time.
    type: int
    default: 4
  applied_file:
    description: A file in which the host says what was last applied to it; its text is returned.
    type: path
"""

EXAMPLES = r"""
- name: See whether sshd refuses root
  audit_controls:
    checks:
      - {id: "5.2.7", check: "sshd -T -C user=root,host=h,addr=127.0.0.1 | grep -qx 'permitrootlogin no'"}
"""

RETURN = r"""
results:
  description: Each control's id, whether it is as it should be (ok), and of failing ones the exit code and output.
  type: list
  elements: dict
  returned: always
seconds: {description: How long all of them took., type: float, returned: always}
system: {description: The distribution and the kernel., type: str, returned: always}
applied: {description: The text of O(applied_file); empty where there is none., type: str, returned: always}
"""

import concurrent.futures
import contextlib
import os
import re
import signal
import subprocess
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LINES = 5
LINE_LENGTH = 200
TIMED_OUT = 124
HIDDEN = "[hidden]"
SECRETS = (
    # Password hashes of crypt(5), the credentials of a URL, key material, and whatever is named as a secret.
    (re.compile(r"\$[0-9a-z]{1,8}\$[^\s:]+"), HIDDEN),
    (re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"), HIDDEN),
    (re.compile(r"\b[A-Za-z0-9+/]{40,}={0,2}"), HIDDEN),
    (re.compile(r"(?i)([\w-]*(?:pass(?:word|phrase|wd)?|secret|token|api_?key)\s*[=:]\s*)\S+"), r"\1" + HIDDEN),
    (re.compile(r"(?i)((?:requirepass|masterauth)\s+)\S+"), r"\1" + HIDDEN),
)


def scrub(text: str) -> list[str]:
    """The end of what a check printed, without what looks like a secret."""
    text = re.sub(r"-----BEGIN [^-]*-----.*?(-----END [^-]*-----|\Z)", HIDDEN, text, flags=re.DOTALL)
    lines = [line.strip()[:LINE_LENGTH] for line in text.splitlines() if line.strip()]
    for pattern, instead in SECRETS:
        lines = [pattern.sub(instead, line) for line in lines]
    return lines[-LINES:]


def run_check(script: str, environment: dict[str, str], seconds: float) -> tuple[int, str]:
    """Run one check; whatever it started is gone afterwards."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", script],
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        return TIMED_OUT, f"gave no answer within {seconds:g} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run_all(
    checks: list[dict[str, str]], environment: dict[str, str], seconds: float, jobs: int
) -> list[dict[str, Any]]:
    def one(check: dict[str, str]) -> dict[str, Any]:
        code, output = run_check(check["check"], environment, seconds)
        if code == 0:
            return {"id": check["id"], "ok": True}
        return {"id": check["id"], "ok": False, "code": code, "output": scrub(output)}

    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        return list(pool.map(one, checks))


def read(path: str | None) -> str:
    if path:
        with contextlib.suppress(OSError), open(path, errors="replace") as stream:
            return stream.read(4096)
    return ""


def system() -> str:
    pretty = re.search(r'^PRETTY_NAME="?([^"\n]+)', read("/etc/os-release"), re.MULTILINE)
    kernel = os.uname()
    return f"{pretty[1] if pretty else 'unknown'}, {kernel.sysname} {kernel.release}"


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "checks": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {"id": {"type": "str", "required": True}, "check": {"type": "str", "required": True}},
            },
            "environment": {"type": "dict", "default": {}},
            "seconds": {"type": "int", "default": 20},
            "jobs": {"type": "int", "default": 4},
            "applied_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    given = {str(name): str(value) for name, value in module.params["environment"].items()}
    environment = {**given, "PATH": PATH, "HOME": "/root", "LC_ALL": "C"}
    begun = time.monotonic()
    results = run_all(module.params["checks"], environment, module.params["seconds"], module.params["jobs"])
    module.exit_json(
        changed=False,
        results=results,
        seconds=round(time.monotonic() - begun, 1),
        system=system(),
        applied=read(module.params["applied_file"]),
    )


if __name__ == "__main__":
    main()
