"""Runs what is tested: `make check`, then every Molecule scenario, in the order of a host's life, on one lab.

Each scenario is run by Molecule itself, as `molecule test -s NAME` runs it alone; what is shared is the hosts. The
first ones set them up from bare, so those after find their roles applied, and prove that to apply them again changes
nothing.

    bin/test                 everything
    bin/test nginx release   these scenarios, on a lab that `site` has set up
    bin/test --full          the long ones too
    bin/test --keep          leave the lab standing
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.tally import tally

ROOT = Path(__file__).resolve().parents[1]
LAB = os.environ.get("SLIPWAY_LAB") or "molecule"
REPORTS = ROOT / ".lab" / LAB / "reports"
# The order of a host's life. A scenario that is not named here comes last.
ORDER = (
    "bootstrap", "site",
    "base", "guard", "deployers", "hardening", "firewall",
    "postgresql", "redis",
    "tls", "nginx",
    "runtime", "envdir", "services", "release",
    "access", "patch", "audit", "alerts", "crash",
)  # fmt: skip
# The one that sets up what those after it stand on.
FOUNDATION = ("bootstrap", "site")
PATIENCE = 1500  # seconds for one scenario
FULL_PATIENCE = 4 * 3600  # with the long tests
LOG_LINES = 60  # of a failed step's log, on the terminal

started = time.monotonic()


def say(text: str) -> None:
    print(f"test: {time.monotonic() - started:6.1f} s  {text}", flush=True)


def scenarios() -> list[str]:
    found = {path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")} - {"default"}
    return [name for name in ORDER if name in found] + sorted(found - set(ORDER))


def run(command: list[str], log: Path, environment: dict[str, str]) -> int:
    """Run a command with its output in a log. Whatever ends us, it does not outlive us."""
    patience = FULL_PATIENCE if environment.get("SLIPWAY_TEST_FULL") else PATIENCE
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, **environment}, start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            output.write(f"\nnot done after {patience} s\n".encode())
            return 124
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


class Record:
    """A report of our own, beside those of pytest: one case for each step that is more than its tests."""

    def __init__(self) -> None:
        self.suite = ElementTree.Element("testsuite", name="slipway")

    def add(self, name: str, seconds: float, trouble: str) -> None:
        case = ElementTree.SubElement(self.suite, "testcase", classname="run", name=name, time=f"{seconds:.1f}")
        if trouble:
            ElementTree.SubElement(case, "failure", message=trouble)
        ElementTree.ElementTree(self.suite).write(REPORTS / "run.xml", encoding="unicode")


def step(record: Record, name: str, work: Callable[[Path], str]) -> None:
    say(f"{name} …")
    begun = time.monotonic()
    log = REPORTS / f"{name}.log"
    trouble = work(log)
    seconds = time.monotonic() - begun
    record.add(name, seconds, trouble)
    report = REPORTS / f"{name}.xml"
    counts = tally([report]) if report.is_file() else None
    numbers = f"{counts.passed} passed, {len(counts.failed)} failed" if counts else "no report"
    say(f"{name}: {trouble or 'ok'} ({numbers}, {seconds:.0f} s)")
    if trouble and log.is_file():
        lines = log.read_text(errors="replace").splitlines()
        print("\n".join(f"    {line}" for line in lines[-LOG_LINES:]), flush=True)
        say(f"{name}: the whole log is {log.relative_to(ROOT)}")


def check(log: Path) -> str:
    return "make check failed" if run(["bin/check", "--scenarios"], log, {"REPORTS": str(REPORTS)}) else ""


def scenario(name: str, full: bool) -> Callable[[Path], str]:
    def work(log: Path) -> str:
        environment = {
            "SLIPWAY_MOLECULE_SHARED": "1",
            "SLIPWAY_TEST_FULL": "1" if full else "",
            "ANSIBLE_NOCOLOR": "1",
            "NO_COLOR": "1",
            # What Molecule believes to have created and prepared goes with the lab.
            "MOLECULE_EPHEMERAL_DIRECTORY": str(ROOT / ".lab" / LAB / "molecule"),
        }
        code = run(["molecule", "test", "--scenario-name", name, "--destroy", "never"], log, environment)
        if code:
            return f"molecule ended with {code}"
        return judge(name, log)

    return work


def judge(name: str, log: Path) -> str:
    """Molecule is content with a scenario that did nothing; we are not."""
    recap = re.findall(r"\b(?:app1|data1)\s+: ok=(\d+)", log.read_text(errors="replace"))
    if not any(int(count) for count in recap):
        return "it ran on no host"
    report = REPORTS / f"{name}.xml"
    if not report.is_file() or not tally([report]).passed:
        return "it asserted nothing"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="only these")
    parser.add_argument("--full", action="store_true", help="the long tests too")
    parser.add_argument("--keep", action="store_true", help="leave the lab standing")
    parser.add_argument("--no-check", action="store_true", help="without `make check`")
    options = parser.parse_args()
    available = scenarios()
    unknown = sorted(set(options.scenarios) - set(available))
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(available)}")
    chosen = [
        name for name in available
        if not options.scenarios or name in options.scenarios or name in FOUNDATION
    ]  # fmt: skip

    os.environ["SLIPWAY_LAB"] = LAB
    REPORTS.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in REPORTS.iterdir():
        old.unlink()
    record = Record()
    try:
        if not options.no_check:
            step(record, "check", check)
        # From bare hosts, whatever an interrupted run left.
        subprocess.run(["lab/lab.py", "down"], cwd=ROOT, check=True)
        subprocess.run(["lab/lab.py", "up"], cwd=ROOT, check=True)
        for name in chosen:
            step(record, name, scenario(name, options.full))
    finally:
        if not options.keep:
            subprocess.run(["lab/lab.py", "down"], cwd=ROOT, check=False)

    result = tally(sorted(REPORTS.glob("*.xml")))
    for failure in result.failed:
        print(f"FAILED {failure}")
    if result.skipped:
        print(f"{result.skipped} skipped")
    say(f"reports are in {REPORTS.relative_to(ROOT)}")
    print(f"{result.passed} passed, {len(result.failed)} failed")
    return 1 if result.failed or not result.passed else 0


if __name__ == "__main__":
    sys.exit(main())
