"""Runs what is tested: `make check`, whole programs on this machine alone (tests/local), then every Molecule scenario,
in the order of a host's life.

Each scenario is run by Molecule itself, as `molecule test -s NAME` runs it alone; what is shared is the hosts. There
are labs, worked on side by side. On the first, scenarios set hosts up from bare, and show that to apply every role
again changes nothing; the second is set up as an operator would, and so is the third, where the app has more than one
host. So those after find their roles applied, and look at what they do.

    bin/test                 everything
    bin/test nginx release   these scenarios, on labs that are whole
    bin/test first-host      a newcomer's way from a bare host to their app; with --full of itself
    bin/test foreign         apps from PyPI that were not made for this; with --full of itself
    bin/test --full          the long ones too
    bin/test --keep          leave the labs standing
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.story import end_on_signals
from lab.state import TOPOLOGIES
from tests.tally import tally, told

ROOT = Path(__file__).resolve().parents[1]
LAB = os.environ.get("SLIPWAY_LAB") or "molecule"
REPORTS = ROOT / ".lab" / LAB / "reports"
# The one that makes whole hosts of bare ones, by scenarios of their own.
FOUNDATION = ("bootstrap", "site")
# What is done on each lab, in the order of a host's life: the host itself, and what it is there for. Each takes about
# as long as the others. A scenario that is not named here comes last on the second. The third has hosts of its own
# kind, and is done first: so it also has what asks for no more than a host.
LANES = {
    "host": (*FOUNDATION, "deployers", "hardening", "firewall", "audit", "access", "alerts", "crash"),
    "app": (
        "postgresql", "redis", "tls", "nginx", "acme", "edge", "runtime", "envdir", "services", "release", "patch",
    ),
    "fleet": ("fleet", "base", "guard"),
    # No scenario of Molecule's: bare hosts, and what a newcomer types (tests/first_host).
    "newcomer": ("first-host",),
    # As little: bare hosts, and apps that were not made for them (tests/foreign).
    "foreign": ("foreign",),
}  # fmt: skip
REST = "app"
# What is done by the long tests, or when it is named.
LONG = (*LANES["newcomer"], *LANES["foreign"])
# On a whole lab all roles are applied. That to apply them again changes nothing is shown by the scenario `site` for all
# of them, and by the fleet's for what they do differently there; by each scenario only with the long tests.
SEQUENCE = "[verify]"
FULL_SEQUENCE = "[converge, verify]"
PATIENCE = 1500  # seconds for one scenario
FULL_PATIENCE = 4 * 3600  # with the long tests
LOG_LINES = 60  # of a failed step's log, on the terminal
# What draws the parameters of tests that have many: a run with the same one is the same.
SEED = os.environ.get("SLIPWAY_TEST_SEED") or str(random.randrange(1_000_000))
# Of a play that ran on a host: how much it changed.
RECAP = re.compile(r"\b((?:edge|app|worker|data)[12])\s+: ok=[1-9]\d*\s+changed=(\d+)")
# At the end, after what passed and failed.
LEFT_OUT = re.compile(r"(?:passed|failed|skipped|error|errors), (\d+) deselected")

started = time.monotonic()
printing = threading.Lock()


def say(text: str) -> None:
    with printing:
        print(f"test: {time.monotonic() - started:6.1f} s  {text}", flush=True)


def scenarios() -> list[str]:
    found = {path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")} - {"default"}
    named = [name for names in LANES.values() for name in names]
    return [name for name in named if name in found or name in LONG] + sorted(found - set(named))


class Commands:
    """Commands with their output in a log. Whatever ends us, they do not outlive us."""

    def __init__(self) -> None:
        self.running: set[subprocess.Popen[bytes]] = set()
        self.over = False

    def run(self, command: list[str], log: Path, environment: dict[str, str]) -> int:
        patience = FULL_PATIENCE if environment.get("SLIPWAY_TEST_FULL") else PATIENCE
        with log.open("wb") as output:
            if self.over:
                return 130
            process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env={**os.environ, **environment}, start_new_session=True,
            )  # fmt: skip
            self.running.add(process)
            try:
                return process.wait(timeout=patience)
            except subprocess.TimeoutExpired:
                output.write(f"\nnot done after {patience} s\n".encode())
                return 124
            finally:
                end(process)
                self.running.discard(process)

    @contextmanager
    def ended(self) -> Iterator[None]:
        """At the end of this none of them runs, and none begins any more."""
        try:
            yield
        finally:
            self.over = True
            for process in list(self.running):
                end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


commands = Commands()


class Record:
    """A report of our own, beside those of pytest: one case for each step that is more than its tests."""

    def __init__(self) -> None:
        self.suite = ElementTree.Element("testsuite", name="slipway")
        self.writing = threading.Lock()

    def add(self, name: str, seconds: float, trouble: str) -> None:
        with self.writing:
            case = ElementTree.SubElement(self.suite, "testcase", classname="run", name=name, time=f"{seconds:.1f}")
            if trouble:
                ElementTree.SubElement(case, "failure", message=trouble)
            ElementTree.ElementTree(self.suite).write(REPORTS / "run.xml", encoding="unicode")


def step(record: Record, name: str, work: Callable[[Path], str]) -> str:
    """Do it, and tell how it went; give the trouble."""
    say(f"{name} …")
    begun = time.monotonic()
    log = REPORTS / f"{name}.log"
    trouble = work(log)
    seconds = time.monotonic() - begun
    record.add(name, seconds, trouble)
    report = REPORTS / f"{name}.xml"
    counts = tally([report]) if report.is_file() else None
    numbers = f"{counts.passed} passed, {len(counts.failed)} failed, " if counts else ""
    say(f"{name}: {trouble or 'ok'} ({numbers}{seconds:.0f} s)")
    if trouble and log.is_file():
        lines = log.read_text(errors="replace").splitlines()
        with printing:
            print("\n".join(f"    {line}" for line in lines[-LOG_LINES:]), flush=True)
        say(f"{name}: the whole log is {log.relative_to(ROOT)}")
    return trouble


def check(full: bool) -> Callable[[Path], str]:
    words = ["bin/check", "--scenarios"] if full else ["bin/check"]
    return lambda log: "make check failed" if commands.run(words, log, {"REPORTS": str(REPORTS)}) else ""


def local(log: Path) -> str:
    """Whole plays over a controller that is all the hosts there are, and a worker without a broker."""
    report = REPORTS / "local.xml"
    words = ["pytest", "--quiet", "-p", "no:cacheprovider", "--numprocesses", "2", "--dist", "worksteal"]
    code = commands.run([*words, f"--junit-xml={report}", "tests/local"], log, {})
    return f"pytest ended with {code}" if code else "" if tally([report]).passed else "it asserted nothing"


class Lane:
    """One lab, and what is done on it, one after the other."""

    def __init__(self, name: str, chosen: list[str]) -> None:
        self.name = name
        self.lab = LAB if name == "host" else f"{LAB}-{name}"
        # Hosts are made whole by the scenarios that are about it, or in the same way without their tests.
        self.set_up = name not in ("host", "newcomer", "foreign")
        before = FOUNDATION if name == "host" else ()
        self.scenarios = [*before, *(one for one in chosen if one not in FOUNDATION)]
        self.ours = False
        self.topology = name if name in TOPOLOGIES else "host"
        self.environment = {
            "SLIPWAY_LAB": self.lab,
            "SLIPWAY_TOPOLOGY": self.topology,
            "ANSIBLE_NOCOLOR": "1",
            "NO_COLOR": "1",
        }

    def make(self) -> None:
        """From bare hosts, whatever an interrupted run left."""
        for command in ("down", "up"):
            if code := self.call(command):
                # It has said why.
                sys.exit(f"test: lab.py {command} of the lab {self.lab} ended with {code}")
            self.ours = True

    def remove(self) -> None:
        if self.ours:
            self.ours = bool(self.call("down"))

    def call(self, command: str) -> int:
        return subprocess.run(
            ["lab/lab.py", command], cwd=ROOT, check=False, env={**os.environ, **self.environment}
        ).returncode

    def run(self, record: Record, full: bool, keep: bool) -> None:
        try:
            self.work(record, full)
        finally:
            if not keep:
                self.remove()

    def work(self, record: Record, full: bool) -> None:
        if self.set_up and step(record, f"set-up-{self.name}", self.operator):
            # On hosts that are not whole, everything else would be red for no reason of its own.
            return
        for name in self.scenarios:
            if commands.over:
                return
            step(record, name, self.story(name) if name in LONG else self.scenario(name, full))

    def operator(self, log: Path) -> str:
        inventory = TOPOLOGIES[self.topology][1]
        for playbook in ("bootstrap", "site"):
            words = ["ansible-playbook", f"--inventory={inventory}", f"playbooks/{playbook}.yml"]
            if playbook == "site" and self.topology == "fleet":
                # What other hosts of these tests show already.
                words.append("--skip-tags=hardening,audit,alerts")
            code = commands.run(words, log, self.environment)
            if code:
                return f"{playbook}.yml ended with {code}"
        return ""

    def story(self, name: str) -> Callable[[Path], str]:
        """What is told by pytest alone, from bare hosts on."""

        def work(log: Path) -> str:
            report = REPORTS / f"{name}.xml"
            place = f"tests/{name.replace('-', '_')}"
            words = ["pytest", "-p", "no:cacheprovider", "--exitfirst", f"--junit-xml={report}", place]
            code = commands.run(words, log, {**self.environment, "SLIPWAY_TEST_FULL": "1"})
            return f"pytest ended with {code}" if code else "" if tally([report]).passed else "it asserted nothing"

        return work

    def scenario(self, name: str, full: bool) -> Callable[[Path], str]:
        own = ROOT / ".lab" / self.lab
        environment = {
            **self.environment,
            "SLIPWAY_MOLECULE_SHARED": "1",
            "SLIPWAY_TEST_FULL": "1" if full else "",
            "SLIPWAY_TEST_SEED": SEED,
            # What Molecule believes to have created and prepared goes with the lab.
            "MOLECULE_EPHEMERAL_DIRECTORY": str(own / "molecule"),
        }
        if name not in FOUNDATION:
            applied = full or name == self.topology
            environment["SLIPWAY_MOLECULE_SEQUENCE"] = FULL_SEQUENCE if applied else SEQUENCE

        def work(log: Path) -> str:
            report = own / "reports" / f"{name}.xml"
            report.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            code = commands.run(["molecule", "test", "--scenario-name", name, "--destroy", "never"], log, environment)
            if report.is_file():
                report.replace(REPORTS / report.name)
            return f"molecule ended with {code}" if code else judge(name, log)

        return work


def judge(name: str, log: Path) -> str:
    """Molecule is content with a scenario that did nothing; we are not."""
    report = REPORTS / f"{name}.xml"
    if not report.is_file() or not tally([report]).passed:
        return "it asserted nothing"
    text = log.read_text(errors="replace")
    converge = text.partition(f"[{name} > converge] Executing")[2].partition(f"[{name} > converge] Executed")[0]
    if not converge and name not in FOUNDATION:
        return ""
    changed = {host: int(count) for host, count in RECAP.findall(converge)}
    if not changed:
        return "it ran on no host"
    if name not in FOUNDATION and any(changed.values()):
        return f"to apply its roles again was to change something: {changed}"
    return ""


def left_out(logs: Iterable[Path]) -> int:
    """How many tests were not chosen, by what pytest says at the end of each scenario."""
    return sum(int(number) for log in logs for number in LEFT_OUT.findall(log.read_text(errors="replace")))


def lanes(chosen: list[str]) -> list[Lane]:
    """Those that have something to do."""
    rest = [name for name in chosen if not any(name in names for names in LANES.values())]
    found = []
    for lane, names in LANES.items():
        own = [name for name in names if name in chosen] + (rest if lane == REST else [])
        if own:
            found.append(Lane(lane, own))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="only these")
    parser.add_argument("--full", action="store_true", help="the long tests too")
    parser.add_argument("--keep", action="store_true", help="leave the labs standing")
    parser.add_argument("--no-check", action="store_true", help="without `make check` and tests/local")
    options = parser.parse_args()
    available = scenarios()
    unknown = sorted(set(options.scenarios) - set(available))
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(available)}")
    end_on_signals()
    chosen = options.scenarios or [name for name in available if options.full or name not in LONG]
    working = lanes([name for name in available if name in chosen])

    REPORTS.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in REPORTS.iterdir():
        old.unlink()
    record = Record()
    say(f"what is drawn is drawn by SLIPWAY_TEST_SEED={SEED}")
    try:
        with commands.ended():
            if not options.no_check:
                step(record, "check", check(options.full))
                step(record, "local", local)
            # One after the other, as they look for free ports.
            for lane in working:
                lane.make()
            # Whatever stops us stops what the lanes wait for, and so the lanes, before the pool waits for them.
            with ThreadPoolExecutor(max_workers=len(working)) as pool, commands.ended():
                futures = [pool.submit(lane.run, record, options.full, options.keep) for lane in working]
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
    finally:
        if not options.keep:
            for lane in working:
                lane.remove()

    result = tally(sorted(REPORTS.glob("*.xml")))
    for line in told(sorted(REPORTS.glob("*.xml"))):
        print(line)
    for failure in result.failed:
        print(f"FAILED {failure}")
    if result.skipped:
        print(f"{result.skipped} skipped")
    if left := left_out(REPORTS.glob("*.log")):
        print(f"{left} that take long are left to make test-full")
    say(f"reports are in {REPORTS.relative_to(ROOT)}")
    print(f"{result.passed} passed, {len(result.failed)} failed")
    return 1 if result.failed or not result.passed else 0


if __name__ == "__main__":
    sys.exit(main())
