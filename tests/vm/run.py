"""`make vm-test`: a lab host on a kernel of its own, for what a container cannot show.

The host is converged as a container, and becomes a machine then: to converge it under emulation would take an hour. In
the machine it is looked at after its first boot, after a reboot with the guard armed and the way in cut off, and after
patch.yml with a reboot; then it is audited. What was seen is judged by tests/vm/test_*.py, each fact by a case.

    bin/vm-test                 everything that only a machine can show
    bin/vm-test --full          and every control of the catalogue, and Lynis: half an hour under emulation
    bin/vm-test --keep          leave the machine running, and say how to get in
    bin/vm-test --down          remove what --keep left
    bin/vm-test --accel tcg     emulation even where KVM works
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from benchmarks.story import Ran, StepFailed, Story, end_on_signals
from lab import cli, tools
from lab.cargo import variants
from lab.hosts import free_port
from lab.state import ROOT, Lab, LabError
from lab.vm import disk, machine
from lab.vm.state import Guest
from plugins.auditing import catalogue
from tests.outside import https
from tests.tally import tally

HERE = Path(__file__).resolve().parent
LOOK = ROOT / "lab" / "vm" / "recipe" / "look.py"
STEPS = 13
PATIENCE = 1200  # seconds for a playbook
FULL_PATIENCE = 5400  # with Lynis in it
SERVES = 60  # seconds, once everything has started, for a user to be served
NAMED = 20  # cases that failed, on the terminal
# A login takes seconds under emulation, and QEMU takes every connection: also those to a machine that is not up, which
# are to be given up and tried again.
PATIENT = {
    "ANSIBLE_TIMEOUT": "40",
    "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s -o ServerAliveInterval=10",
}
# What an operator fears, twice: sshd lets nobody in any more, and neither does the firewall, now and after every boot.
CUT = r"""
set -eu
guard=/usr/local/libexec/slipway/guard
$guard arm --token vm-test --seconds 3600 --because 'a test cuts the operator off' --by vm-test
echo 'AllowGroups nobody-is-in-it' >/etc/ssh/sshd_config.d/00-cut.conf
if [ -e /etc/ufw/user.rules ]; then
  sed -i 's/-j ACCEPT$/-j DROP/' /etc/ufw/user.rules /etc/ufw/user6.rules
  iptables -I INPUT 1 -p tcp --dport 22 -m conntrack --ctstate NEW -j DROP
fi
systemctl reload ssh
# Nobody gets in any more who could say so.
systemd-run --quiet --on-active=40 systemctl reboot
"""


class Run:
    def __init__(self, lab: Lab, accelerator: str, processors: int, full: bool) -> None:
        self.lab = lab
        self.full = full
        self.accelerator = accelerator
        self.reports = lab.reports / "vm"
        shutil.rmtree(self.reports, ignore_errors=True)
        self.reports.mkdir(mode=0o700, parents=True)
        self.story = Story(STEPS, lab.reports / "vm-test.log")
        self.guest = Guest.of(lab, processors=processors)
        self.outcome: dict[str, Any] = {"full": full}

    # From nothing to a machine that is up.
    def make(self) -> None:
        story = self.story
        with story.step("Have QEMU"), self.ticking("apt"):
            tools.ensure("The VM", machine.PROGRAM, machine.PACKAGE, story.say)
        with story.step("Start two bare hosts: app1 and data1"):
            cli.down(self.lab)
            story.run(["lab/lab.py", "up"])
        with story.step("Bootstrap (bootstrap.yml)"):
            self.playbook("bootstrap")
        with story.step("Converge (site.yml)"):
            self.playbook("site", *self.variables())
        with story.step("Release the bookshop (deploy.yml)") as step:
            packed = variants(["good-1"], self.lab.name)["good-1"]
            self.outcome["release"] = step.note = packed["id"]
            self.playbook("deploy", "-e", f"release_artifact={packed['artifact']}")
        with story.step("Make a machine of app1"), self.ticking("its file system, a kernel, a disk"):
            disk.build(self.lab, self.guest, self.log)
        self.boot()

    def boot(self) -> None:
        with self.story.step("Boot it") as step:
            self.guest = replace(self.guest, ssh_port=free_port(2222), https_port=free_port(8643))
            self.outcome["accelerator"] = machine.start(self.guest, self.accelerator, self.story.say)
            cli.end_connections(self.lab)
            machine.point_ssh_at(self.lab, self.guest)
            self.wait(1)
            step.note = self.outcome["accelerator"]

    # What it shows.
    def show(self) -> None:
        story = self.story
        with story.step("Look at it"), self.ticking("one ssh session"):
            self.look("booted")
        with story.step("Cut the operator off with the guard armed, and reboot"):
            boot = machine.boots(self.guest) + 1
            self.ssh("sudo -n sh -s", given=CUT)
            refused = self.try_ssh("true", seconds=30)
            self.outcome["cut"] = {"code": refused.returncode, "said": refused.stderr.strip()}
            self.wait(boot)
        with story.step("Look at it again"), self.ticking("one ssh session"):
            self.look("rebooted")
        with story.step("Patch it, with a reboot (patch.yml)") as step:
            port = self.guest.https_port
            step.note = self.judged(
                "patch", patch_reboot="always", release_verify_addresses=["127.0.0.1"], release_verify_port=port
            )
        with story.step("Look at it once more"), self.ticking("one ssh session"):
            self.look("patched")
        with story.step("Audit it (audit_host.yml)") as step:
            asked = [] if self.full else of_the_kernel()
            given = {"audit_lynis": self.full, "audit_lynis_floor": 90, "audit_only": asked}
            step.note = self.judged("audit_host", audit_container_limits=False, **given)

    def judge(self) -> int:
        """Every fact by a case; the last line is the verdict."""
        report = self.lab.reports / "vm.xml"
        report.unlink(missing_ok=True)
        self.outcome["seconds"] = {step.title: round(step.seconds, 1) for step in self.story.steps}
        self.write("outcome", self.outcome)
        words = [sys.executable, "-m", "pytest", "--quiet", "--no-header", "--tb=line", "-rN", f"--junit-xml={report}"]
        ran = self.story.run([*words, HERE], {"SLIPWAY_LAB": self.lab.name}, check=False)
        result = tally([report]) if report.is_file() else None
        stopped = self.outcome.get("stopped")
        # Of a run that stopped, everything after it says the same; why was said there.
        if result is None or (result.failed and not stopped):
            self.story.say(ran.output[-12000:])
        log = self.story.log.relative_to(ROOT)
        self.story.say(f"What was seen is in {self.reports.relative_to(ROOT)}, what was run in {log}")
        passed, failed = (result.passed, result.failed) if result else (0, ["no report"])
        for name in failed[:NAMED]:
            self.story.say(f"FAILED {name}")
        if failed[NAMED:]:
            self.story.say(f"FAILED and {len(failed) - NAMED} more, named in {report.relative_to(ROOT)}")
        if stopped:
            self.story.say(f"It stopped early: {str(stopped).splitlines()[0]}")
        self.story.say(f"{passed} passed, {len(failed)} failed")
        return 1 if failed or not passed else 0

    def close(self, keep: bool) -> None:
        if keep and machine.runs(self.guest):
            ssh, console = (path.relative_to(ROOT) for path in (self.lab.ssh_config, self.guest.console))
            self.story.say(f"The machine stays up: ssh -F {ssh} ops@app1; its console is {console}.")
            self.story.say("Remove it: bin/vm-test --down")
            return
        cli.down(self.lab)

    # Means.
    def playbook(self, name: str, *more: str, check: bool = True) -> Ran:
        words = ["ansible-playbook", "-i", "inventories/lab", f"playbooks/{name}.yml", *more]
        return self.story.run(words, PATIENT, check=check, timeout=FULL_PATIENCE if self.full else PATIENCE)

    def variables(self, **given: Any) -> list[str]:
        """What is said differently of a host that becomes a machine."""
        words = ["-e", f"@{HERE.relative_to(ROOT)}/vars.yml"]
        return [*words, "-e", json.dumps(given)] if given else words

    def judged(self, name: str, **given: Any) -> str:
        """Run a playbook on the machine alone; how it ended is for a case to judge."""
        boots = machine.boots(self.guest)
        ran = self.playbook(name, "--limit", self.guest.host, *self.variables(**given), check=False)
        boots = machine.boots(self.guest) - boots
        self.outcome[name] = {"code": ran.code, "boots": boots, "said": ran.output[-4000:]}
        return "as it should" if ran.code == 0 else f"FAILED with code {ran.code}"

    def look(self, stage: str) -> None:
        seen = json.loads(self.ssh("sudo -n python3 -I -", given=LOOK.read_text()))
        self.write(stage, {**seen, "edge": self.ask()})

    def ask(self) -> dict[str, Any]:
        """What a user gets, once the app that has just started was asked for the first time."""
        deadline = time.monotonic() + SERVES
        while True:
            try:
                answer = https(self.lab.facts(), "/readyz", address="127.0.0.1", port=self.guest.https_port)
                seen = {"status": answer.status, "release": answer.headers.get("x-release")}
            except OSError as error:
                seen = {"status": 0, "release": repr(error)}
            if seen["status"] == HTTPStatus.OK or time.monotonic() > deadline:
                return seen
            time.sleep(2)

    def ssh(self, command: str, given: str = "") -> str:
        done = self.try_ssh(command, given)
        self.log(f"$ ssh ops@{self.guest.host} {command}\n{done.stderr}")
        if done.returncode:
            raise StepFailed(f"`{command}` on the machine ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def try_ssh(self, command: str, given: str = "", seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """One command over a connection of its own."""
        argv = ["ssh", "-F", str(self.lab.ssh_config), "-o", "ControlPath=none", "-o", "BatchMode=yes"]
        argv += ["-o", f"ConnectTimeout={min(60, int(seconds / 2))}", "-l", "ops", self.guest.host, command]
        try:
            return subprocess.run(argv, input=given, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(argv, 124, "", f"nothing within {seconds:.0f} s")

    def wait(self, boot: int) -> None:
        with self.ticking(f"boot {boot}"):
            machine.wait(self.guest, boot)

    def log(self, text: str) -> None:
        with self.story.log.open("a") as log:
            log.write(f"{text}\n")

    def write(self, name: str, content: dict[str, Any]) -> None:
        (self.reports / f"{name}.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")

    @contextmanager
    def ticking(self, doing: str) -> Iterator[None]:
        """Show that time passes, where nothing else does."""
        over = threading.Event()

        def tick() -> None:
            while not over.wait(1):
                self.story.progress(doing)

        thread = threading.Thread(target=tick)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def of_the_kernel() -> list[str]:
    """The controls that a container cannot answer; all others are asked of one by molecule/audit."""
    return [control.id for control in catalogue.load().controls if control.needs == "kernel"]


def perform(run: Run, keep: bool) -> int:
    code = 1
    try:
        try:
            run.make()
            run.show()
        except (StepFailed, LabError) as error:
            # What was not reached counts as failed: its cases find nothing to judge.
            run.story.failed(error)
            run.outcome["stopped"] = str(error)
        code = run.judge()
    except KeyboardInterrupt as error:
        run.story.failed(error)
    finally:
        run.close(keep)
    return code


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave the machine running")
    parser.add_argument("--down", action="store_true", help="remove what --keep left, and do nothing else")
    parser.add_argument("--accel", choices=machine.ACCELERATORS, default="auto", help="what the machine runs on")
    parser.add_argument("--full", action="store_true", help="ask every control of the catalogue, and Lynis")
    parser.add_argument("--processors", type=int, default=2, help="how many the machine has")
    options = parser.parse_args()
    os.environ.setdefault("SLIPWAY_LAB", "vm")
    os.chdir(ROOT)
    end_on_signals()
    try:
        lab = Lab.chosen()
        if options.down:
            cli.down(lab)
            return 0
        return perform(Run(lab, options.accel, options.processors, options.full), options.keep)
    except LabError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
