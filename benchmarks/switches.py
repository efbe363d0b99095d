"""`make bench-switches`: many switches of every kind under one open-loop load, and what users feel of them.

Releases of both kinds, artifacts and images, go live in turns: by whole deploys of new ones, by the rollback playbook
and by releasectl's own verbs. Counted is what is lost, by the client and by nginx; measured is how long answers take
from a switch's first word until the old generation is gone and nothing waits that it held up, against the calm
windows in between.

The controller runs on the machine that serves, which is the lab's doing and nobody's host's: it is run at the lowest
priority, and what it costs alone is measured by playbooks that switch nothing.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cores import Cores, politely
from benchmarks.loadgen import Load, LoadError
from benchmarks.loadgen.result import BUT_SLOW as ALL
from benchmarks.site import Site, agreement, connections, load_average, machine, unproven
from benchmarks.story import ROOT, StepFailed, Story, table
from lab import oci
from lab.cargo import variants
from lab.state import LabError, write
from tests.registry import LabRegistry

INVENTORY = ("-i", "inventories/lab")
REPOSITORY = "shop/bookshop"
GOAL = 2.0  # how many times as long as in a calm window the slowest hundredth may take
CALM = 1.0  # seconds between two switches
WARM = 5.0  # and before the first one
STEPS = 6
CONTROLLER_RUNS = 4
# How long the old generation may take to finish what it has in hand, in seconds.
PATIENCE = 120

# At 200 requests a second, of which a hundredth takes 2 s, those always hold four threads, and a worker takes
# connections whether or not one of its own is free: with eight in each, four slow ones in one worker keep nobody
# waiting, whatever is switched. The same for both kinds of release.
THREADS = 8
# As an operator has it for an app that bears it.
PRELOAD = True
IMAGE_COMMAND = ["gunicorn", "config.wsgi:application", "--workers", "4"]

DEPLOY, DEPLOY_IMAGE = "deploy.yml, an artifact", "deploy.yml, an image"
ROLLBACK, BACK, ACTIVATE, RESTART = "rollback.yml", "releasectl rollback", "releasectl activate", "releasectl restart"
# One in five is a new release from its first byte on. Releases of both kinds stay there, so that those in between go
# from one kind to the other, and within one.
CYCLE = (DEPLOY, BACK, ACTIVATE, ROLLBACK, ACTIVATE, DEPLOY_IMAGE, RESTART, BACK, ACTIVATE, BACK)
CALM_WINDOW, SWITCH_WINDOW, CONTROLLER_WINDOW = "calm", "switch", "controller alone"
KINDS = (ALL, "page", "api", "static")


@dataclass(frozen=True)
class Switch:
    """One switch that is about to be made: how, to which release, and what to call for it."""

    way: str
    release: str
    make: Callable[[], float]  # returns the processor seconds that the controller took


@dataclass(frozen=True)
class Cargo:
    """A release that no host has yet: of an artifact (a path) or of an image (a name with its digest)."""

    id: str
    source: str


def other_kind(status: dict[str, Any]) -> str:
    """Which release to activate: the newest that is not live, of the other kind than that where there is one."""
    live = status["live"]["release"]
    kinds = {one["id"]: bool(one["image"]) for one in status["releases"]}
    others = [name for name in kinds if name != live]
    if not others:
        raise StepFailed(f"{live} is the only release on the host: there is none to switch to")
    return next((name for name in reversed(others) if kinds[name] != kinds[live]), others[-1])


class Switches:
    def __init__(self, lab: str, count: int, rate: float) -> None:
        self.lab, self.count, self.rate = lab, count, rate
        self.reports = ROOT / ".lab" / lab / "reports"
        self.story = Story(STEPS, self.reports / "bench-switches.log")
        self.made: list[dict[str, Any]] = []
        self.witnessed: dict[str, Any] = {}
        self.busy: dict[str, list[float]] = {}

    def run(self) -> int:
        registry = None
        try:
            with self.story.step("Bring the lab up, with a registry of images beside it"):
                self.story.run(["lab/lab.py", "up"])
                self.site = Site.of_lab(self.lab)
                self.site.end_what_was_cut_short()
                registry = self.registry = LabRegistry(self.site.facts)
            with self.story.step("Converge it, so that it takes releases from there"):
                self.converge()
            with self.story.step("Make what will be released"):
                self.load_up()
            with self.story.step("Release an artifact and an image, for a start"):
                self.first_two()
            self.under_load()
        except (StepFailed, LoadError, LabError, KeyboardInterrupt) as error:
            self.story.failed(error)
            for lost in self.witnessed.get("result", {}).get("total", {}).get("examples", []):
                self.story.say(f"    lost: {lost}")
            return 1
        finally:
            if registry is not None:
                registry.remove()
            if getattr(self, "site", None) is not None:
                self.site.close()
        return self.summary()

    # The ground.
    def playbook(self, name: str, *more: str, polite: bool = True) -> float:
        """Run it; how many seconds of processor time the controller took."""
        command = ["ansible-playbook", *INVENTORY, f"playbooks/{name}.yml", *more]
        return self.story.run(politely(command) if polite else command).cpu_seconds

    def converge(self) -> None:
        variables = ROOT / ".lab" / self.lab / "bench-switches.json"
        given = self.registry.variables() | {"services_gunicorn_threads": THREADS, "services_gunicorn_preload": PRELOAD}
        write(variables, json.dumps(given), 0o600)  # a password is in it
        self.playbook("bootstrap", polite=False)
        self.playbook("site", "-e", f"@{variables}", polite=False)

    def load_up(self) -> None:
        """Artifacts and images that this host has not seen: every other artifact with requirements of its own."""
        ways = Counter(CYCLE[number % len(CYCLE)] for number in range(self.count))
        first = int(time.time()) % 900_000 + 10
        artifacts = [f"{('good', 'relocked')[place % 2]}-{first + place}" for place in range(ways[DEPLOY] + 1)]
        of_images = [f"good-{first + len(artifacts) + place}" for place in range(ways[DEPLOY_IMAGE] + 1)]
        packed = variants([*artifacts, *of_images], self.lab)
        self.artifacts = [Cargo(packed[name]["id"], packed[name]["artifact"]) for name in artifacts]
        below = [oci.base(self.site.facts["image"]), oci.requirements()]
        self.images = [self.push(name, packed[name], below) for name in of_images]

    def push(self, tag: str, packed: dict[str, Any], below: list[oci.Blob]) -> Cargo:
        layers = [*below, oci.app(Path(packed["artifact"]))]
        image = oci.Image(layers, list(IMAGE_COMMAND), revision=packed["revision"])
        digest: str = self.registry.client.push(REPOSITORY, tag, image)
        return Cargo(f"bookshop-{digest.removeprefix('sha256:')[:12]}", f"{self.registry.host}/{REPOSITORY}@{digest}")

    def first_two(self) -> None:
        for cargo, word in ((self.artifacts.pop(0), "artifact"), (self.images.pop(0), "image")):
            self.playbook("deploy", "-e", f"release_{word}={cargo.source}", polite=False)
            self.site.expect(cargo.id)

    # The load.
    def under_load(self) -> None:
        plan = self.site.plan(rate=self.rate, max_seconds=4 * 3600, max_requests=5_000_000)
        with self.site.witness(self.witnessed), Load(plan) as load:

            def aside() -> str:
                tally = load.snapshot()
                return f"{self.count - len(self.made)} left, {tally['sent']} sent, {tally['lost']} lost"

            self.story.aside = aside
            try:
                self.warm_up(load)
                with self.story.step(f"{self.count} switches under {self.rate:g} requests a second") as step:
                    self.switch_all(load)
                    step.note = aside()
                with self.story.step(f"{CONTROLLER_RUNS} playbooks that switch nothing, at each priority"):
                    self.controller_alone(load)
            finally:
                self.story.aside = str
                self.witnessed["result"] = load.stop()

    def warm_up(self, load: Load) -> None:
        """A machine that cannot serve the load while nothing is switched shows nothing of switches."""
        self.story.rest(WARM)
        waiting = load.snapshot()
        behind = waiting["sent"] - waiting["done"] - self.rate  # what is due within a second is no backlog
        if waiting["lost"] or behind > 0:
            raise StepFailed(
                f"after {WARM:g} s in which nothing was switched {waiting['lost']} requests were lost and"
                f" {waiting['sent'] - waiting['done']} waited for an answer: this machine does not serve"
                f" {self.rate:g} requests a second; make bench-switches RATE={self.rate / 2:g}, or let it be quiet"
            )

    def switch_all(self, load: Load) -> None:
        for number in range(self.count):
            self.calm(load)
            switch, before = self.next(number)
            began = time.monotonic()
            with self.window(load, f"{SWITCH_WINDOW}/{switch.way}") as cores:
                cpu = switch.make()
                seconds = time.monotonic() - began
                self.site.wait_for(switch.release, 60)
                self.gone(before)
                self.caught_up(load)
            whole = time.monotonic() - began
            self.made.append({"way": switch.way, "release": switch.release, "seconds": seconds, "whole": whole,
                              "controller_cpu": cpu, "busy": cores.share})  # fmt: skip
            self.story.progress(f"the last by {switch.way} in {seconds:.1f} s")
        self.calm(load)

    @contextmanager
    def window(self, load: Load, name: str) -> Iterator[Cores]:
        """A window of the load, in which the processors are watched as well."""
        load.open(name)
        cores = Cores()
        yield cores
        load.close()
        self.busy.setdefault(name.partition("/")[0], []).append(cores.share)

    def calm(self, load: Load) -> None:
        with self.window(load, CALM_WINDOW):
            self.story.rest(CALM)

    def controller_alone(self, load: Load) -> None:
        for polite, name in ((True, "nice 19"), (False, "nice 0")):
            for _ in range(CONTROLLER_RUNS):
                self.calm(load)
                with self.window(load, f"{CONTROLLER_WINDOW}, {name}"):
                    self.playbook("rollback", "--check", polite=polite)

    def gone(self, generation: str) -> None:
        """Return when this generation has finished what it had in hand and no process of it answers any more."""
        place, looks = f"/run/app/{generation}", PATIENCE * 10
        left = f"n={looks}\nwhile [ -e {place} ]; do\n  n=$((n - 1))\n  [ $n -gt 0 ]\n  sleep 0.1\ndone"
        try:
            self.site.sudo(left)
        except StepFailed:
            raise StepFailed(f"the generation {generation} was still there after {PATIENCE} s") from None

    def caught_up(self, load: Load) -> None:
        """Return when no more requests wait than at rest: what a switch has held up is its own, not the calm's."""
        at_rest = self.rate / 10 + 10  # those of a tenth of a second, and the slow ones
        deadline = time.monotonic() + PATIENCE
        while (tally := load.snapshot())["sent"] - tally["done"] > at_rest:
            if time.monotonic() > deadline:
                raise StepFailed(
                    f"{PATIENCE} s after a switch {tally['sent'] - tally['done']} requests still wait for an answer:"
                    f" this machine does not serve {self.rate:g} a second while releases are switched"
                )
            time.sleep(0.1)

    # The switches.
    def next(self, number: int) -> tuple[Switch, str]:
        """The switch of this number, and the generation that it puts an end to."""
        status = self.site.releasectl("status")
        return self.choose(CYCLE[number % len(CYCLE)], status), status["live"]["generation"]

    def choose(self, way: str, status: dict[str, Any]) -> Switch:
        def releasectl(*words: str) -> float:
            self.site.releasectl(*words)
            return 0.0  # no playbook, no controller

        if way in (DEPLOY, DEPLOY_IMAGE):
            cargo = (self.artifacts if way == DEPLOY else self.images).pop(0)
            word = f"release_{'artifact' if way == DEPLOY else 'image'}={cargo.source}"
            return Switch(way, cargo.id, lambda: self.playbook("deploy", "-e", word))
        if way == RESTART:
            return Switch(way, status["live"]["release"], lambda: releasectl("restart"))
        if way == ACTIVATE:
            wanted = other_kind(status)
            return Switch(way, wanted, lambda: releasectl("activate", "--id", wanted))
        make = (lambda: self.playbook("rollback")) if way == ROLLBACK else (lambda: releasectl("rollback"))
        return Switch(way, status["previous"], make)

    # What came of it.
    def summary(self) -> int:
        result = self.witnessed["result"]
        total, nginx, windows = result["total"], self.witnessed["nginx"], result["windows"]
        self.story.say("\nEach way of switching, one run:\n" + table(self.way_rows(windows)))
        self.story.say(f"\nHow long answers took, in ms; the goal is {GOAL:g} times at p99:\n" + table(tails(windows)))
        self.story.say(f"\n{self.controller(windows)}")
        self.story.say(
            f"Sent {total['sent']} of {total['scheduled']} due, {total['lost']} lost; {connections(total)}"
            f" {len(total['by_release'])} releases answered.\n{agreement(nginx)}\n{machine(result)}"
        )
        self.save()
        problems = self.problems()
        for problem in problems:
            self.story.say(f"Failed: {problem}")
        for sentence in missed(windows):
            self.story.say(f"Missed: {sentence}")
        given = "" if self.lab == "lab" else f" LAB={self.lab}"
        self.story.say(
            f"The lab stays up, without its registry: make lab-down{given} removes it."
            f" Numbers: {self.reports / 'bench-switches.json'}"
        )
        return 1 if problems else 0

    def way_rows(self, windows: dict[str, Any]) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            ("way", "switches", "sent", "lost", "switch s", "until gone s", "p50 ms", "p95 ms", "p99 ms", "busy")
        ]  # fmt: skip
        for way in dict.fromkeys(CYCLE):
            mine = [one for one in self.made if one["way"] == way]
            if not mine:
                continue
            window = windows[f"{SWITCH_WINDOW}/{way}"]
            rows.append(row(way, len(mine), window, mine))
        return [*rows, row("all", len(self.made), windows[SWITCH_WINDOW], self.made)]

    def controller(self, windows: dict[str, Any]) -> str:
        """What the controller costs that runs beside what it serves, and how busy the machine was."""
        lines = []
        for name, window in windows.items():
            if name.startswith(CONTROLLER_WINDOW):
                ratio = window["latency_ms"][ALL]["p99"] / windows[CALM_WINDOW]["latency_ms"][ALL]["p99"]
                lines.append(
                    f"A playbook that switches nothing, at {name.rpartition(', ')[2]}: p99"
                    f" {window['latency_ms'][ALL]['p99']:.0f} ms, {ratio:.1f} times that of calm windows."
                )
        busy = ", ".join(f"{name} {statistics.mean(shares):.0%}" for name, shares in self.busy.items())
        return "\n".join(
            [
                "The controller ran on the machine that serves, at nice 19 (no host has one beside it).",
                *lines,
                f"Of all processors were busy: {busy}.",
            ]
        )

    def problems(self) -> list[str]:
        total, nginx = self.witnessed["result"]["total"], self.witnessed["nginx"]
        found = []
        if total["lost"]:
            found.append(f"{total['lost']} requests were lost: {total['examples']}")
        if not total["by_kind"].get("slow"):
            found.append("no slow request was among them: nothing was in hand when a generation ended")
        found += unproven(total, nginx)
        if len(self.made) < self.count:
            found.append(f"{len(self.made)} switches of {self.count} were made")
        return found

    def save(self) -> None:
        data = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "cores": os.cpu_count(),
            "load_average": load_average(), "goal": GOAL, "switches": self.made, "busy": self.busy,
            "load": self.witnessed["result"], "nginx": self.witnessed["nginx"],
        }  # fmt: skip
        (self.reports / "bench-switches.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def row(name: str, count: int, window: dict[str, Any], made: list[dict[str, Any]]) -> tuple[str, ...]:
    times = window["latency_ms"][ALL]
    return (
        name, str(count), str(window["sent"]), str(window["lost"]),
        f"{statistics.median(one['seconds'] for one in made):.1f}",
        f"{statistics.median(one['whole'] for one in made):.1f}",
        *(f"{times[share]:.0f}" for share in ("p50", "p95", "p99")),
        f"{statistics.mean(one['busy'] for one in made):.0%}",
    )  # fmt: skip


def ratios(windows: dict[str, Any]) -> Iterable[tuple[str, dict[str, float], dict[str, float], float]]:
    """Of each kind of request: its latencies in calm windows, those during switches, and how the p99 compare."""
    calm, switch = windows[CALM_WINDOW]["latency_ms"], windows[SWITCH_WINDOW]["latency_ms"]
    for kind in KINDS:
        if kind in calm and kind in switch:
            yield kind, calm[kind], switch[kind], switch[kind]["p99"] / calm[kind]["p99"]


def tails(windows: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("requests", "window", "answered", "p50", "p95", "p99", "max", "p99 of calm", "goal"),
    ]
    for kind, calm, switch, ratio in ratios(windows):
        for name, times in ((CALM_WINDOW, calm), (SWITCH_WINDOW, switch)):
            first = name == CALM_WINDOW
            rows.append(
                (
                    kind if first else "",
                    name,
                    f"{times['answered']:g}",
                    *(f"{times[share]:.1f}" for share in ("p50", "p95", "p99", "max")),
                    "" if first else f"{ratio:.2f}",
                    "" if first else ("met" if ratio <= GOAL else "missed"),
                )
            )
    return rows


def missed(windows: dict[str, Any]) -> list[str]:
    return [
        f"p99 of {kind} during a switch is {ratio:.2f} times that of calm windows, the goal is {GOAL:g}"
        for kind, _calm, _switch, ratio in ratios(windows)
        if ratio > GOAL
    ]


def main(lab: str, count: int, rate: float) -> int:
    return Switches(lab, count, rate).run()
