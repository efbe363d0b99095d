"""People with keys of their own, and the reviewed file that says who of them has access, as the story goes on."""

from __future__ import annotations

import datetime
import json
import secrets
import subprocess
from pathlib import Path
from typing import Any

from tests.outside import ROOT, play, ssh


def utc(seconds: float = 0) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)


class Crew:
    """The file of people, and what they can do with their keys."""

    def __init__(self, lab: dict[str, Any]) -> None:
        self.lab = lab
        self.directory = ROOT / ".lab" / lab["name"] / "people"
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self.log = self.directory / "access-log.jsonl"
        self.log.unlink(missing_ok=True)
        # Names and tickets are for once: hosts remember them.
        self.run = secrets.token_hex(3)
        self.people: dict[str, dict[str, Any]] = {}
        self.automation: dict[str, dict[str, Any]] = {}

    def name(self, who: str) -> str:
        return f"{who}-{self.run}"

    def ticket(self, number: int) -> str:
        return f"OPS-{self.run}-{number}"

    def key(self, who: str) -> Path:
        path = self.directory / self.name(who)
        if not path.exists():
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name(who), "-f", path], check=True
            )
        return path

    def person(self, who: str, number: int, **fields: Any) -> None:
        self.people[who] = {
            "name": self.name(who),
            "full_name": f"{who.title()} Example",
            "role": "deployer",
            "keys": [self.key(who).with_suffix(".pub").read_text().strip()],
            "ticket": self.ticket(number),
            "approved_by": "the-tests",
            "since": f"{utc():%Y-%m-%d}",
            **fields,
        }

    def leave(self, who: str, number: int) -> None:
        self.people[who] |= {"state": "left", "left": f"{utc():%Y-%m-%d}", "left_ticket": self.ticket(number)}

    def identity(self, who: str, number: int, **commands: str) -> None:
        self.automation[who] = {
            "name": self.name(who),
            "purpose": "reads who can get in",
            "keys": [self.key(who).with_suffix(".pub").read_text().strip()],
            "commands": commands,
            "ticket": self.ticket(number),
            "approved_by": "the-tests",
            "since": f"{utc():%Y-%m-%d}",
        }

    def play(self, playbook: str, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        variables = {
            "deployers_people": list(self.people.values()),
            "deployers_automation": list(self.automation.values()),
            "deployers_access_log": str(self.log),
            "deployers_report_dir": str(self.directory / "reports"),
            # A machine that runs tests may be busy; what the guard does in time is the guard's own scenario's matter.
            "guard_seconds": 300,
            **variables,
        }
        return play(self.lab, f"playbooks/{playbook}.yml", *arguments, **variables)

    def apply(self, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """What a site run does about people, on app1."""
        return self.play("site", "--tags", "deployers", "--limit", "app1", *arguments, **variables)

    def ssh(self, who: str, host: str, command: str, *options: str) -> subprocess.CompletedProcess[str]:
        return ssh(self.lab, self.name(who), host, command, "-i", str(self.key(who)), *options)

    def session(self, who: str, command: str = "sleep 900") -> subprocess.Popen[bytes]:
        """A login that stays."""
        argv = ["ssh", "-F", self.lab["ssh_config"], "-o", "ControlPath=none", "-i", str(self.key(who))]
        return subprocess.Popen(
            [*argv, "-l", self.name(who), "app1", command],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def forget(host: Any, run: str) -> None:
    program = (
        "import json, pathlib\n"
        "path = pathlib.Path('/etc/slipway/people.json')\n"
        "people = json.loads(path.read_text())['people']\n"
        f"kept = {{name: entry for name, entry in people.items() if not name.endswith('-{run}')}}\n"
        "path.write_text(json.dumps({'people': kept}))\n"
    )
    host.check_output(f"systemctl stop slipway-access.timer && python3 -c '{program.replace(chr(39), chr(34))}'")
    names = host.check_output(f"getent passwd | cut -d: -f1 | grep -e -{run}$; true").split()
    for name in names:
        host.check_output(
            f"rm -f /etc/slipway/authorized_keys/{name}; pkill -9 -u {name}; "
            f"if [ -d /opt/app/incoming ]; then find /opt/app/incoming -user {name} -delete; fi; "
            f"userdel -rf {name} 2>&1; true"
        )
    host.check_output("systemctl start slipway-access.timer")


def shows(host: Any, name: str) -> dict[str, Any]:
    """What the host's own program says about an account."""
    answer: dict[str, Any] = json.loads(host.check_output(f"/usr/local/libexec/slipway/access show {name}"))
    return answer
