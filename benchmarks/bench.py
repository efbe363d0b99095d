"""`make bench`: what a switch costs in lost requests, and what deploy, rollback and site cost in time.

Under one open-loop load, in one run: our switches, then the plan's literal stop, relink, start, which has to lose some
or the measurement is not to be believed, then our switch with the drain taken out. After that, without load: the
playbooks against a hand-written ssh script, and Capistrano, that do the same work on the same host.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

from benchmarks import anatomy, edge, fleet, switches
from benchmarks.baselines import Baseline, Capistrano, Script, install_capistrano
from benchmarks.loadgen import Load, LoadError
from benchmarks.site import Site, agreement, connections, load_average, machine, unproven
from benchmarks.story import ROOT, Ran, StepFailed, Story, end_on_signals, table
from lab.cargo import variants

INVENTORY = ("-i", "inventories/lab")
RELEASECTL_CONFIG = "/etc/slipway/releasectl.json"
PAUSE = 1.0  # seconds of plain load after each switch
STEPS = 7
# How many times as long as another way ours may take.
GOALS = {
    ("deploy", "script"): 1.75,
    ("deploy", "Capistrano"): 1.3,
    ("rollback", "script"): 2.5,
    ("rollback", "Capistrano"): 1.0,
}
DROP_IN = "/run/systemd/system/gunicorn@.service.d/bench.conf"


class Bench:
    def __init__(self, lab: str, switches: int, repeats: int, rate: float) -> None:
        self.lab = lab
        self.switches = switches
        self.others = max(3, switches // 5)
        self.repeats = repeats
        self.rate = rate
        self.reports = ROOT / ".lab" / lab / "reports"
        self.story = Story(STEPS, self.reports / "bench.log")
        self.switch_seconds: dict[str, list[float]] = {}
        self.times: dict[str, dict[str, list[Ran]]] = {}
        self.anatomies: dict[str, anatomy.Anatomy] = {}
        self.witnessed: dict[str, Any] = {}
        self.site_tasks = 0

    def run(self) -> int:
        site = None
        try:
            site = self.site = self.standing()
            with self.story.step("Prepare two releases"):
                self.two_releases()
            self.loss()
            with self.story.step(f"Times of {self.repeats} deploys, rollbacks and no-op sites"):
                self.timings()
        except (StepFailed, LoadError, KeyboardInterrupt) as error:
            self.story.failed(error)
            for phase in self.witnessed.get("result", {}).get("phases", []):
                self.story.say(
                    f"    {phase['name']}: {phase['sent']} sent, {phase['lost']} lost {phase['examples'][:2]}"
                )
            return 1
        finally:
            if site is not None:
                site.close()
        return self.summary()

    # The ground.
    def standing(self) -> Site:
        with self.story.step("Bring the lab up and converge it"):
            self.story.run(["lab/lab.py", "up"])
            site = Site.of_lab(self.lab)
            site.end_what_was_cut_short()
            self.playbook("bootstrap")
            self.playbook("site")
            return site

    def playbook(self, name: str, *more: str, environment: dict[str, str] | None = None) -> Ran:
        return self.story.run(["ansible-playbook", *INVENTORY, f"playbooks/{name}.yml", *more], environment)

    def deploy(self, artifact: str) -> Ran:
        return self.playbook("deploy", "-e", f"release_artifact={artifact}")

    def live(self) -> str:
        live = self.site.releasectl("status").get("live") or {}
        return str(live.get("release", ""))

    def two_releases(self) -> None:
        packed = variants(["good-1", "good-2"], self.lab)
        self.a, self.b = (packed[name]["id"] for name in ("good-1", "good-2"))
        for made in packed.values():
            have = {release["id"] for release in self.site.releasectl("status")["releases"]}
            if made["id"] not in have:
                self.deploy(made["artifact"])
        for release in (self.a, self.b):  # so that "the one before" is always the other of the two
            if self.live() != release:
                self.site.releasectl("activate", "--id", release)
        self.site.expect(self.b)

    def other(self) -> str:
        return self.a if self.live() == self.b else self.b

    # Requests lost.
    def loss(self) -> None:
        plan = self.site.plan(rate=self.rate, max_seconds=3600)
        with self.site.witness(self.witnessed), Load(plan) as load:

            def aside() -> str:
                state = load.snapshot()
                return f"{state['sent']} sent, {state['lost']} lost"

            self.story.aside = aside
            try:
                with self.story.step(f"{self.switches} switches under {self.rate:g} requests a second") as step:
                    self.phase(load, "ours", self.switches, self.ours)
                    step.note = aside()
                with self.story.step(f"{self.others} times the plan's stop, relink, start") as step:
                    self.phase(load, "plan", self.others, self.plan)
                    step.note = aside()
                with self.story.step(f"{self.others} switches without waiting for connections") as step:
                    with self.unwaiting():
                        self.phase(load, "unwaiting", self.others, self.ours)
                    step.note = aside()
                with self.story.step(f"{self.others} switches with the drain taken out") as step:
                    with self.unwaiting(), self.undrained():
                        self.phase(load, "undrained", self.others, self.ours)
                    step.note = aside()
            finally:
                self.story.aside = str
                self.witnessed["result"] = load.stop()

    def phase(self, load: Load, name: str, count: int, switch: Callable[[int], str]) -> None:
        load.mark(name)
        self.story.rest(PAUSE)
        for number in range(count):
            began = time.monotonic()
            release = switch(number)
            self.switch_seconds.setdefault(name, []).append(time.monotonic() - began)
            self.site.wait_for(release, 60)
            self.story.progress(f"{number + 1} of {count}")
            self.story.rest(PAUSE)
        # The last old generation drains behind the switch: what it would lose belongs to this phase.
        self.story.rest(4.0)
        load.mark(f"after-{name}")
        self.story.rest(1.0)

    def ours(self, number: int) -> str:
        """Every way of switching that there is, in turn."""
        other = self.other()
        if number % 10 == 9:
            self.playbook("rollback")
        elif number % 5 == 2:
            self.site.releasectl("rollback")
        elif number % 5 == 4:
            other = self.a if other == self.b else self.b
            self.site.releasectl("restart")
        else:
            self.site.releasectl("activate", "--id", other)
        return other

    def plan(self, _number: int) -> str:
        """The four manual steps, word for word; the fourth, the health check, is the caller's."""
        other = self.other()
        self.site.sudo(
            "systemctl stop app.service\n"
            f"ln -sfn /opt/app/releases/{other} /opt/app/current\n"
            "systemctl start app.service\n"
        )
        return other

    @contextmanager
    def undrained(self) -> Iterator[None]:
        """Old generations end at once, whatever they have in hand."""
        directory = DROP_IN.rpartition("/")[0]
        self.site.sudo(
            f"mkdir -p {directory}\nprintf '[Service]\\nKillSignal=SIGKILL\\n' > {DROP_IN}\nsystemctl daemon-reload\n"
        )
        try:
            yield
        finally:
            self.site.sudo(f"rm -f {DROP_IN}\nrmdir --ignore-fail-on-non-empty {directory}\nsystemctl daemon-reload\n")

    @contextmanager
    def unwaiting(self) -> Iterator[None]:
        """Old generations are told to stop without waiting until nobody is connected to them any more."""
        edit = (
            "python3 - <<'PYTHON'\n"
            "import json, pathlib\n"
            f"path = pathlib.Path('{RELEASECTL_CONFIG}')\n"
            "text = json.loads(path.read_text())\n"
            "text['drain'] = %s\n"
            "path.write_text(json.dumps(text))\n"
            "PYTHON"
        )
        self.site.sudo(f"cp -p {RELEASECTL_CONFIG} {RELEASECTL_CONFIG}.bench")
        try:
            self.site.sudo(edit % False)
            yield
        finally:
            self.site.sudo(f"mv {RELEASECTL_CONFIG}.bench {RELEASECTL_CONFIG}")

    # Times.
    def timings(self) -> None:
        if why_not := install_capistrano():
            self.story.say(f"Note: {why_not}.")
        script = Script(self.site, self.story)
        baselines: list[Baseline] = [script] if why_not else [script, Capistrano(self.site, self.story)]
        # Ids that this host has not seen, so that each deploy builds.
        first = int(time.time()) % 900_000 + 10
        fresh = variants([f"good-{first + place}" for place in range(self.repeats + 1)], self.lab)
        artifacts = [made["artifact"] for made in fresh.values()]
        recorder = anatomy.Recorder(self.site)
        with ExitStack() as standing:
            for baseline in baselines:
                standing.enter_context(baseline.ready())
            for place, artifact in enumerate(artifacts):
                ran = {"playbook": self.deploy(artifact)}
                on_host = recorder.seconds()
                ran |= {baseline.title: baseline.deploy(artifact) for baseline in baselines}
                if place == 0:
                    continue  # warms the caches
                self.note("deploy", ran, on_host)
                back = artifacts[place - 1]
                ran = {"playbook": self.playbook("rollback")}
                on_host = recorder.seconds()
                self.note("rollback", ran | {one.title: one.rollback(back) for one in baselines}, on_host)
        # Counting costs a little: these two are not timed.
        for name, words in (("deploy", ["-e", f"release_artifact={artifacts[-1]}"]), ("rollback", [])):
            with anatomy.counted() as trips:
                counted = self.playbook(name, *words, environment=trips.environment)
                self.anatomies[name].tasks, self.anatomies[name].trips = anatomy.tasks(counted), trips.count()
        # Not while another door is open: site.yml would close it.
        for _ in range(min(self.repeats, 3)):
            ours = self.playbook("site")
            self.expect_idle(ours)
            self.note("no-op site", {"playbook": ours, "script": script.run("site")})

    def note(self, name: str, ran: dict[str, Ran], on_host: float | None = None) -> None:
        for way, one in ran.items():
            self.times.setdefault(name, {}).setdefault(way, []).append(one)
        if on_host is not None:
            self.anatomies.setdefault(name, anatomy.Anatomy()).host_seconds.append(on_host)

    def expect_idle(self, ran: Ran) -> None:
        recap = [line for line in ran.output.splitlines() if " changed=" in line and " ok=" in line]
        changed = sum(int(line.split("changed=")[1].split()[0]) for line in recap)
        if not recap or changed:
            raise StepFailed(f"the no-op site changed {changed} things: its time says nothing", ran.log)
        self.site_tasks = anatomy.tasks(ran)

    # What came of it.
    def summary(self) -> int:
        result = self.witnessed["result"]
        phases = {phase["name"]: phase for phase in result["phases"]}
        titles = {
            "ours": "our switch",
            "plan": "stop, relink, start",
            "unwaiting": "ours, not waiting",
            "undrained": "ours, no drain",
        }
        rows = [("way", "switches", "sent", "lost", "a switch", "why", "p50 ms", "p99 ms", "switch s")]
        for name, title in titles.items():
            phase, seconds = phases[name], self.switch_seconds[name]
            rows.append(
                (
                    title,
                    str(len(seconds)),
                    str(phase["sent"]),
                    str(phase["lost"]),
                    f"{phase['lost'] / len(seconds):.1f}",
                    ", ".join(f"{count} {reason}" for reason, count in phase["lost_by_reason"].items()) or "-",
                    f"{phase['latency_ms']['p50']:.0f}",
                    f"{phase['latency_ms']['p99']:.0f}",
                    f"{statistics.median(seconds):.1f}",
                )
            )
        total, nginx = result["total"], self.witnessed["nginx"]
        self.story.say("\nRequests lost, one run, side by side:\n" + table(rows))
        self.story.say(f"Sent {total['sent']} of {total['scheduled']} due; {connections(total)}\n{agreement(nginx)}")
        times = self.time_rows()
        self.story.say(
            f"\nTimes, medians of {self.repeats} (no-op site: {min(self.repeats, 3)}), not under load:\n" + table(times)
        )
        for name, made in self.anatomies.items():
            self.story.say(made.sentence(name, [ran.seconds for ran in self.times[name]["playbook"]]))
        if self.site_tasks:
            site = statistics.median(ran.seconds for ran in self.times["no-op site"]["playbook"])
            self.story.say(
                f"The no-op site ran {self.site_tasks} tasks on its longest host, {site / self.site_tasks:.2f} s each."
            )
        self.story.say(machine(result))
        self.save(times)
        problems = self.problems(phases)
        for problem in problems:
            self.story.say(f"Failed: {problem}")
        for name in ("unwaiting", "undrained"):
            if not phases[name]["lost"]:
                self.story.say(f"Note: '{titles[name]}' lost nothing either, in this run and at this rate.")
        given = "" if self.lab == "lab" else f" LAB={self.lab}"
        self.story.say(f"The lab stays up: make lab-down{given} removes it. Numbers: {self.reports / 'bench.json'}")
        return 1 if problems else 0

    def problems(self, phases: dict[str, dict[str, Any]]) -> list[str]:
        total = self.witnessed["result"]["total"]
        problems = []
        if lost := phases["ours"]["lost"]:
            problems.append(f"our switch lost {lost} requests: {phases['ours']['examples']}")
        if not phases["plan"]["lost"]:
            problems.append(
                "stop, relink, start lost nothing: the measurement is broken, do not believe the zero above"
            )
        problems += unproven(total, self.witnessed["nginx"])
        for name in ("start", "after-ours"):
            if lost := phases[name]["lost"]:
                problems.append(f"{lost} requests were lost while nothing was switched ({name})")
        return problems

    def time_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("what", "way", "median s", "of ours", "goal", "CPU s", "seconds of each run")]
        for what, ways in self.times.items():
            ours = statistics.median(ran.seconds for ran in ways["playbook"])
            for way, runs in ways.items():
                wall = statistics.median(ran.seconds for ran in runs)
                goal = GOALS.get((what, way), 0.0)
                rows.append(
                    (
                        what if way == "playbook" else "",
                        way,
                        f"{wall:.1f}",
                        "" if way == "playbook" else f"{ours / wall:.2f}",
                        f"{goal}" + (" missed" if ours / wall > goal else "") if goal else "",
                        f"{statistics.median(ran.cpu_seconds for ran in runs):.1f}",
                        " ".join(f"{ran.seconds:.1f}" for ran in runs),
                    )
                )
        return rows

    def save(self, times: list[tuple[str, ...]]) -> None:
        data = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "cores": os.cpu_count(),
            "load_average": load_average(),
            "switch_seconds": self.switch_seconds,
            "load": self.witnessed["result"],
            "nginx": self.witnessed["nginx"],
            "times": {
                f"{what}: {way}": [
                    {"seconds": round(ran.seconds, 2), "cpu_seconds": round(ran.cpu_seconds, 2)} for ran in runs
                ]
                for what, ways in self.times.items()
                for way, runs in ways.items()
            },
            "times_table": times,
            "anatomy": {name: asdict(made) for name, made in self.anatomies.items()},
        }
        (self.reports / "bench.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="bin/bench", description=__doc__)
    parser.add_argument("--switches", type=int, help="how many of ours (default: 50, with --mixed 200)")
    parser.add_argument("--repeats", type=int, help="how often each time is taken (default: 5, or 3 below 20 switches)")
    parser.add_argument("--rate", type=float, help="requests a second (default: 100, with --mixed 200)")
    parser.add_argument(
        "--mixed", action="store_true", help="switches of every kind, as users feel them: benchmarks/switches.py"
    )
    parser.add_argument("--fleet", action="store_true", help="the cost over 1, 4 and 8 hosts: benchmarks/fleet.py")
    parser.add_argument("--edge", action="store_true", help="what the edge costs instead: benchmarks/edge.py")
    parser.add_argument(
        "--rounds", type=int, default=9, help="with --edge: how often each way is measured (default: 9)"
    )
    parser.add_argument("--seconds", type=int, default=2, help="with --edge: for how long (default: 2)")
    options = parser.parse_args()
    count = options.switches if options.switches is not None else 200 if options.mixed else 50
    rate = options.rate if options.rate is not None else 200.0 if options.mixed else 100.0
    if not (1 <= count <= 1000 and 0 < rate <= 2000):
        parser.error("--switches takes 1 to 1000, --rate more than 0 and at most 2000")
    lab = os.environ.get("SLIPWAY_LAB") or "lab"
    end_on_signals()
    if options.edge:
        if not (1 <= options.rounds <= 100 and 1 <= options.seconds <= 60):
            parser.error("--rounds takes 1 to 100, --seconds 1 to 60")
        return edge.main(lab, options.rounds, options.seconds)
    if options.fleet:
        return fleet.main(lab, options.repeats or 3)
    if options.mixed:
        return switches.main(lab, count, rate)
    return Bench(lab, count, options.repeats or (5 if count >= 20 else 3), rate).run()


if __name__ == "__main__":
    sys.exit(main())
