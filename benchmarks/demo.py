"""`make demo`: a host from nothing, and then everything that happens to a release, under load.

Each step is looked at from outside before it counts as done; the exit code is 1 when one of them did not do what it
should, or when a single request was lost.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.loadgen import Load, LoadError
from benchmarks.site import Site, load_average
from benchmarks.story import ROOT, StepFailed, Story, end_on_signals, table
from lab.cargo import variants

RATE = 100.0
STEADY_SECONDS = 5.0
STEPS = 9
INVENTORY = ("-i", "inventories/lab")


def playbook(story: Story, name: str, *more: str, check: bool = True) -> Any:
    return story.run(["ansible-playbook", *INVENTORY, f"playbooks/{name}.yml", *more], check=check)


def steady(story: Story, seconds: float) -> None:
    """Let the load run for a while."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        story.progress("")
        time.sleep(0.25)


class Demo:
    def __init__(self, lab: str) -> None:
        self.lab = lab
        self.reports = ROOT / ".lab" / lab / "reports"
        self.story = Story(STEPS, self.reports / "demo.log")
        self.began = float(os.environ.get("SLIPWAY_DEMO_STARTED", time.time()))
        self.result: dict[str, Any] = {}
        self.witnessed: dict[str, Any] = {}
        self.site: Site | None = None

    def run(self) -> int:
        story = self.story
        try:
            self.prepare()
            self.under_load()
        except (StepFailed, LoadError, KeyboardInterrupt) as error:
            story.failed(error)
            if self.result:
                total = self.result["total"]
                story.say(f"Until then {total['sent']} requests were sent and {total['lost']} lost.")
                story.say("\n".join(f"    {loss}" for loss in total["examples"]))
                self.save(time.time() - self.began)
            return 1
        finally:
            if self.site is not None:
                self.site.close()
        return self.summary()

    def prepare(self) -> None:
        """From nothing to a host that serves its first release."""
        story = self.story
        # bin/demo did this one: without it there is no Python to run this file.
        story.done(
            "Set up the tools and a container engine",
            float(os.environ.get("SLIPWAY_DEMO_READY", self.began)) - self.began,
        )
        with story.step("Start two bare hosts: app1 and data1"):
            story.run(["lab/lab.py", "up"])
            self.site = Site.of_lab(self.lab)
            self.site.end_what_was_cut_short()
        with story.step("Bootstrap: an admin account, and root barred (bootstrap.yml)"):
            playbook(story, "bootstrap")
        with story.step("Converge both hosts (site.yml)") as step:
            ran = playbook(story, "site")
            step.note = recap(ran.output)
        self.pack()
        with story.step("First release (deploy.yml)") as step:
            live = self.live()
            if live != self.first:
                playbook(story, "deploy", "-e", f"release_artifact={self.artifacts[self.first]}")
            self.seen(self.first)
            step.note = f"{self.first} answers" + (", as it did before" if live == self.first else "")

    def pack(self) -> None:
        """The bookshop as it is, the next version of it with one more column, and one that cannot serve."""
        packed = variants(["good-1", "migration-2", "bad"], self.lab)
        self.artifacts = {made["id"]: made["artifact"] for made in packed.values()}
        self.first, self.second, self.bad = self.artifacts

    def under_load(self) -> None:
        story, site = self.story, self.ground()
        plan = site.plan(rate=RATE, max_seconds=900, refused=(self.bad,))
        with site.witness(self.witnessed), Load(plan) as load:
            polled: dict[str, Any] = {}

            def aside() -> str:
                polled.update(load.snapshot())
                return f"{polled['sent']} requests sent, {polled['lost']} lost"

            story.aside = aside
            try:
                self.release_under_load(load)
            finally:
                # Also when a step failed: what was lost until then may say why.
                story.aside = str
                self.result = self.witnessed["result"] = load.stop()

    def release_under_load(self, load: Load) -> None:
        story = self.story
        with story.step(f"Steady load over HTTPS: {RATE:g} requests a second, some of 2 s") as step:
            load.mark(str(step.number))
            steady(story, STEADY_SECONDS)
            if load.snapshot()["done"] == 0:
                raise StepFailed("the load got no answer at all")
        with story.step("Second release (deploy.yml)") as step:
            load.mark(str(step.number))
            playbook(story, "deploy", "-e", f"release_artifact={self.artifacts[self.second]}")
            self.seen(self.second)
            step.note = f"{self.second} answers"
        with story.step("A bad release, to be refused (deploy.yml)") as step:
            load.mark(str(step.number))
            ran = playbook(story, "deploy", "-e", f"release_artifact={self.artifacts[self.bad]}", check=False)
            self.refused(ran.code, ran.output)
            step.note = f"refused, {self.second} answers still"
        with story.step("Rollback (rollback.yml)") as step:
            load.mark(str(step.number))
            playbook(story, "rollback")
            self.seen(self.first)
            step.note = f"{self.first} answers again"
            load.mark("after")
            steady(story, 3.0)  # the old generation drains behind: its last requests belong to the tally

    # What each step has to show.
    def ground(self) -> Site:
        if self.site is None:
            raise StepFailed("there is no lab")
        return self.site

    def live(self) -> str:
        live = self.ground().releasectl("status").get("live") or {}
        return str(live.get("release", ""))

    def seen(self, release: str) -> None:
        """By its users and by its own record, this release is live and no other."""
        self.ground().expect(release)
        if (live := self.live()) != release:
            raise StepFailed(f"{release} answers, but the record says that {live or 'nothing'} is live", self.story.log)

    def refused(self, code: int, output: str) -> None:
        if code == 0:
            raise StepFailed(f"deploy.yml accepted the bad release {self.bad}", self.story.log)
        if self.bad not in output:
            raise StepFailed("deploy.yml failed, but not because of the bad release", self.story.log)
        self.seen(self.second)
        status = self.ground().releasectl("status")
        if any(release["id"] == self.bad for release in status["releases"]):
            raise StepFailed(f"{self.bad} was refused, but it is still on the host", self.story.log)

    # The end.
    def summary(self) -> int:
        story, total = self.story, self.result["total"]
        phases = {phase["name"]: phase for phase in self.result["phases"]}
        rows = [("", "step", "seconds", "sent", "failed", "seen")]
        for step in story.steps:
            phase = phases.get(str(step.number))
            tail = phases.get("after") if step is story.steps[-1] else None
            sent = sum(part["sent"] for part in (phase, tail) if part)
            lost = sum(part["lost"] for part in (phase, tail) if part)
            counts = (str(sent), str(lost)) if phase else ("-", "-")
            rows.append((str(step.number), step.title, f"{step.seconds:.1f}", *counts, step.note))
        elapsed = time.time() - self.began
        rows.append(("", "all", f"{elapsed:.1f}", str(total["sent"]), str(total["lost"]), ""))
        story.say()
        story.say(table(rows))
        story.say()
        nginx = self.witnessed["nginx"]
        agree = "agrees" if nginx["agree"] else "does NOT agree"
        story.say(
            f"{total['by_connection']['new']} requests came on new TLS connections, "
            f"{total['by_connection']['kept']} on kept ones "
            f"({total['retried']} sent again); {total['by_kind'].get('slow', 0)} took 2 s.\n"
            f"Others took {total['latency_ms']['p50']:.0f} ms (median), {total['latency_ms']['p99']:.0f} ms (p99). "
            f"nginx's own log {agree}: {nginx['nginx']}.\nThe machine's load average: {load_average()}."
        )
        self.save(elapsed)
        problems = self.problems()
        for problem in problems:
            story.say(f"Failed: {problem}")
        self.outlook()
        return 1 if problems else 0

    def problems(self) -> list[str]:
        total, nginx = self.result["total"], self.witnessed["nginx"]
        problems = []
        if total["lost"]:
            problems.append(f"{total['lost']} of {total['sent']} requests were lost: {total['lost_by_reason']}")
        if not total["complete"]:
            problems.append(f"{total['scheduled']} requests were due, {total['sent']} were sent")
        if total["sent"] < RATE:
            problems.append(f"only {total['sent']} requests were sent: that proves nothing")
        if not total["by_kind"].get("slow"):
            problems.append("no slow request was among them")
        if not nginx["agree"]:
            problems.append(f"nginx's log tells another story: {nginx['nginx']}, the client {nginx['client']}")
        return problems

    def save(self, elapsed: float) -> None:
        data = {
            "seconds": round(elapsed, 1),
            "steps": [{"title": s.title, "seconds": round(s.seconds, 1), "note": s.note} for s in self.story.steps],
            "load": self.result,
            "nginx": self.witnessed.get("nginx"),
        }
        (self.reports / "demo.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")

    def outlook(self) -> None:
        site = self.ground()
        given = "" if self.lab == "lab" else f" LAB={self.lab}"
        ca = Path(site.ca_file)
        shown = ca.relative_to(ROOT) if ca.is_relative_to(ROOT) else ca
        url = site.facts["url"]
        self.story.say(
            f"\nThe hosts stay up. Open {url}\n"
            f"  (your browser does not know the lab's authority: import {shown} into it, or accept its warning)\n"
            f"  curl --cacert {shown} --resolve {site.name}:{site.facts['published_port']}:127.0.0.1 {url}\n"
            f"Look around:  make lab-ssh{given}      then, say: releasectl status\n"
            f"Remove it:    make lab-down{given}\n"
            f"What was run: {self.story.log.relative_to(ROOT)}"
        )


def recap(output: str) -> str:
    """How much a run changed, from its recap."""
    changed = sum(int(line.split("changed=")[1].split()[0]) for line in output.splitlines() if " changed=" in line)
    return f"{changed} changes"


def main() -> int:
    end_on_signals()
    return Demo(os.environ.get("SLIPWAY_LAB") or "lab").run()


if __name__ == "__main__":
    sys.exit(main())
