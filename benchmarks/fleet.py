"""`make bench-fleet`: how the cost of a deploy and of a rollback grows with the app's hosts: 1, 4 and 8 small ones.

One lab of eight is set up once. For fewer, the others are drained, as an operator does who takes hosts out, and left
out by --limit. The release is a featherweight, for what is asked is what the controller and the way to the hosts cost:
eight hosts that build Django at once on the processors of one machine say nothing of eight that have their own. All of
them run on this machine, so what fills its processors is said beside each time.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks import anatomy
from benchmarks.cores import Cores
from benchmarks.site import Site, load_average
from benchmarks.story import ROOT, StepFailed, Story, table
from lab.cargo import variants
from lab.state import TOPOLOGIES

TOPOLOGY = "eight"
INVENTORY = TOPOLOGIES[TOPOLOGY][1]
EDGE = "edge1"
COUNTS = (1, 4, 8)
GOAL = 2.0  # how many times as long as with one host a playbook may take with the most
STEPS = 5
PREPARING = "release : Build the release"
# What makes a host small; and what a lab of many hosts would take long for, and no deploy meets.
SMALL = ("-e", json.dumps({"services_gunicorn_workers": 1, "services_gunicorn_threads": 4}))
SKIPPED = "--skip-tags=hardening,audit,alerts"
# Ansible's own clock beside the callbacks of ansible.cfg.
TIMED = {"ANSIBLE_CALLBACKS_ENABLED": "kept_modules, release_notices, ansible.posix.profile_tasks",
         "PROFILE_TASKS_TASK_OUTPUT_LIMIT": "all"}  # fmt: skip
_TASK_SECONDS = re.compile(r"^(\S.*?) -{2,} +([0-9.]+)s$", re.MULTILINE)


def task_seconds(output: str) -> dict[str, float]:
    """How long each task took over all hosts, from the end of a playbook's output; of one name all together."""
    found: dict[str, float] = {}
    for name, seconds in _TASK_SECONDS.findall(output):
        found[name] = found.get(name, 0.0) + float(seconds)
    return found


@dataclass
class Cost:
    """What a playbook cost over so many hosts of the app, run by run; seconds, and of processors."""

    hosts: int
    seconds: list[float] = field(default_factory=list)
    controller: list[float] = field(default_factory=list)  # processor seconds of the controller
    machine: list[float] = field(default_factory=list)  # and of the whole machine, the hosts included
    shares: list[float] = field(default_factory=list)  # of what all processors had to give
    by_task: list[dict[str, float]] = field(default_factory=list)
    tasks: int = 0
    trips: int = 0

    def task(self, name: str) -> float:
        return statistics.median(run.get(name, 0.0) for run in self.by_task)

    @property
    def wall(self) -> float:
        return statistics.median(self.seconds)

    @property
    def but_preparing(self) -> float:
        return statistics.median(
            seconds - run.get(PREPARING, 0.0) for seconds, run in zip(self.seconds, self.by_task, strict=True)
        )


class Fleet:
    def __init__(self, lab: str, repeats: int) -> None:
        self.lab, self.repeats = lab, repeats
        self.reports = ROOT / ".lab" / lab / "reports"
        self.story = Story(STEPS, self.reports / "bench-fleet.log")
        self.costs: dict[str, dict[int, Cost]] = {"deploy": {}, "rollback": {}}

    def run(self) -> int:
        try:
            with self.story.step(f"Bring up a lab of {max(COUNTS)} hosts of the app"):
                self.story.run(["lab/lab.py", "up"], {"SLIPWAY_TOPOLOGY": TOPOLOGY})
                self.site = Site.of_lab(self.lab)
                if self.site.facts["inventory"] != INVENTORY:
                    raise StepFailed(f"the lab {self.lab} is of another kind: make bench-fleet LAB=NAME makes one")
                self.apps = [self.site.on(f"app{number}") for number in range(1, max(COUNTS) + 1)]
            with self.story.step("Converge it"):
                self.playbook("bootstrap")
                self.playbook("site", SKIPPED, *SMALL, timeout=3600)
            with self.story.step("Release two to all, so that there is one to go back to"):
                self.cargo = self.pack()
                for site in [*self.apps, self.site.on(EDGE)]:
                    site.end_what_was_cut_short()
                self.undrain()
                for _ in range(2):
                    self.deploy(())
            with self.story.step(f"{self.repeats + 1} deploys and rollbacks over {', '.join(map(str, COUNTS))} hosts"):
                for count in sorted(COUNTS, reverse=True):
                    self.measure(count)
            with self.story.step("Bring all of them to one release"):
                self.deploy(())
                self.undrain()
        except (StepFailed, KeyboardInterrupt) as error:
            self.story.failed(error)
            return 1
        finally:
            for site in getattr(self, "apps", []):
                site.close()
        return self.summary()

    # The ground.
    def playbook(self, name: str, *more: str, environment: dict[str, str] | None = None, timeout: float = 900) -> Any:
        command = ["ansible-playbook", "-i", INVENTORY, f"playbooks/{name}.yml", *more]
        return self.story.run(command, {**TIMED, **(environment or {})}, timeout=timeout)

    def pack(self) -> Iterator[str]:
        first = int(time.time()) % 900_000 + 10
        names = [f"featherweight-{first + place}" for place in range(3 + len(COUNTS) * (self.repeats + 1))]
        return iter([made["artifact"] for made in variants(names, self.lab).values()])

    def deploy(self, limit: Sequence[str], environment: dict[str, str] | None = None) -> Any:
        return self.playbook("deploy", *limit, "-e", f"release_artifact={next(self.cargo)}", environment=environment)

    def undrain(self) -> None:
        for site in self.apps:
            site.releasectl("undrain", check=False)  # before the first release there is none to be healthy

    # The measure.
    def measure(self, count: int) -> None:
        """Over the first so many hosts: the others are drained, and stay as they are."""
        for site in self.apps[count:]:
            site.releasectl("drain", "--because", "bench-fleet")
        limit = () if count == len(self.apps) else ("--limit", ",".join([EDGE, *(f"app{n + 1}" for n in range(count))]))
        for name in self.costs:
            self.costs[name][count] = Cost(count)
        for number in range(self.repeats):
            for name in self.costs:
                self.story.progress(f"{count} hosts, {name} {number + 1} of {self.repeats}")
                self.timed(self.costs[name][count], name, limit)
        # Counting costs a little: these two are not timed.
        for name, cost in ((name, costs[count]) for name, costs in self.costs.items()):
            with anatomy.counted() as trips:
                ran = self.one(name, limit, trips.environment)
                cost.tasks, cost.trips = anatomy.tasks(ran), trips.count()

    def one(self, name: str, limit: Sequence[str], environment: dict[str, str] | None = None) -> Any:
        if name == "deploy":
            return self.deploy(limit, environment)
        return self.playbook("rollback", *limit, environment=environment)

    def timed(self, cost: Cost, name: str, limit: Sequence[str]) -> None:
        cores = Cores()
        ran = self.one(name, limit)
        cost.machine.append(cores.busy)
        cost.shares.append(cores.share)
        cost.seconds.append(ran.seconds)
        cost.controller.append(ran.cpu_seconds)
        cost.by_task.append(task_seconds(ran.output))

    # What came of it.
    def summary(self) -> int:
        self.story.say(f"\nThe cost over {', '.join(map(str, COUNTS))} hosts and one edge, medians of {self.repeats}:")
        self.story.say(table(list(cost_rows(self.costs))))
        for name, costs in self.costs.items():
            self.story.say(f"\nWhere {name}.yml takes longer with more hosts, in seconds:\n" + table(task_rows(costs)))
        for sentence in verdicts(self.costs):
            self.story.say(sentence)
        self.story.say(
            f"The machine: {os.cpu_count()} cores for the controller and all hosts, load average {load_average()}."
        )
        data = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "cores": os.cpu_count(), "goal": GOAL,
            "load_average": load_average(),
            "costs": {name: [asdict(cost) for cost in costs.values()] for name, costs in self.costs.items()},
        }  # fmt: skip
        path = self.reports / "bench-fleet.json"
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        given = "" if self.lab == "lab" else f" LAB={self.lab}"
        self.story.say(f"The lab stays up: make lab-down{given} removes it. Numbers: {path}")
        return 0


def cost_rows(costs: dict[str, dict[int, Cost]]) -> Iterable[tuple[str, ...]]:
    yield (
        "playbook", "hosts", "median s", "of one", "but preparing s", "of one", "controller CPU s", "of one",
        "all CPU s", "cores busy", "tasks", "ssh calls", "seconds of each run",
    )  # fmt: skip
    for name, mine in costs.items():
        one = mine[min(mine)]
        for place, count in enumerate(sorted(mine)):
            cost, controller = mine[count], statistics.median(mine[count].controller)
            yield (
                "" if place else f"{name}.yml",
                str(count),
                f"{cost.wall:.1f}",
                f"{cost.wall / one.wall:.2f}",
                f"{cost.but_preparing:.1f}",
                f"{cost.but_preparing / one.but_preparing:.2f}",
                f"{controller:.1f}",
                f"{controller / statistics.median(one.controller):.2f}",
                f"{statistics.median(cost.machine):.1f}",
                f"{statistics.median(cost.shares):.0%}",
                str(cost.tasks),
                str(cost.trips),
                " ".join(f"{seconds:.1f}" for seconds in cost.seconds),
            )


def task_rows(costs: dict[int, Cost], most: int = 6) -> list[tuple[str, ...]]:
    """The tasks that grow most from the fewest hosts to the most."""
    few, many = costs[min(costs)], costs[max(costs)]
    names = {name for cost in costs.values() for run in cost.by_task for name in run}
    grown = sorted(names, key=lambda name: few.task(name) - many.task(name))[:most]
    rows: list[tuple[str, ...]] = [("task", *(f"{count} hosts" for count in sorted(costs)))]
    return [*rows, *((name, *(f"{costs[count].task(name):.2f}" for count in sorted(costs))) for name in grown)]


def verdicts(costs: dict[str, dict[int, Cost]]) -> Iterable[str]:
    """The goal, met or missed, and what filled the processors."""
    for name, mine in costs.items():
        few, many = mine[min(mine)], mine[max(mine)]
        ratio = many.but_preparing / few.but_preparing
        what = f"{name}.yml" + (" without what preparing takes" if many.task(PREPARING) else "")
        controller, machine = statistics.median(many.controller), statistics.median(many.machine)
        yield (
            f"{what[0].upper()}{what[1:]}: {ratio:.2f} times as long with {many.hosts} hosts as with {few.hosts}; the"
            f" goal is {GOAL:g}: {'met' if ratio <= GOAL else 'missed'}. With {many.hosts} the processors were"
            f" {statistics.median(many.shares):.0%} busy: {controller:.1f} CPU-seconds the controller,"
            f" {machine - controller:.1f} the hosts and all else."
        )


def main(lab: str, repeats: int) -> int:
    return Fleet(lab, repeats).run()
