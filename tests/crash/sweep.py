#!/usr/bin/env python3
"""Kill releasectl everywhere, on this host, and see after each kill that nothing was lost.

    sweep.py --domain bookshop.localhost --verb activate --releases '[{"id": …, "artifact": …, "sha256": …}, …]'

Runs as root on a lab host that serves one of the first two releases; their artifacts are in the incoming directory.
Each verb is run in the unit that it always runs in, with tracer.py between systemd and the worker. After each kill:

  * every request of a client that asks through the edge all the time was answered by one of our releases,
  * the next deploy (lease, prepare, activate) succeeds at once, without waiting for a lease to run out,
  * the record agrees with what runs, and nothing half-made is left.

Prints one JSON object a try, and as the last line the counts. Without --every, long runs of the same call in one
directory (unpacking, handing files to root, removing them) are tried at their first, second, last and one other call.
"""

import argparse
import http.client
import itertools
import json
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, "/usr/local/lib/slipway")

from releasectl import cli
from releasectl.config import Config
from releasectl.files import write_json
from releasectl.job import REQUEST, Job

HERE = Path(__file__).resolve().parent
RELEASECTL = "/usr/local/sbin/releasectl"
RECORD = Path("/run/slipway-crash.jsonl")
CONFIG = Config.load()


class Client(threading.Thread):
    """Asks for the page all the time and remembers every answer that was none."""

    def __init__(self, domain: str, pause: float = 0.04) -> None:
        super().__init__(daemon=True)
        self.domain, self.pause = domain, pause
        self.tls = ssl.create_default_context()
        # The certificate is not what is looked at here, and the lab's authority is unknown on its hosts.
        self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        self.lost: list[str] = []
        self.served: set[str] = set()
        self.asked = 0

    def ask(self) -> str:
        with socket.create_connection(("127.0.0.1", 443), 10) as plain:
            stream = self.tls.wrap_socket(plain, server_hostname=self.domain)
            connection = http.client.HTTPSConnection(self.domain)
            connection.sock = stream
            connection.request("GET", "/", headers={"Host": self.domain, "Connection": "close"})
            answer = connection.getresponse()
            answer.read()
            stream.close()
        if answer.status != 200:
            raise OSError(f"status {answer.status}")
        return answer.getheader("X-Release", "")

    def run(self) -> None:
        while True:
            self.asked += 1
            try:
                self.served.add(self.ask())
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(f"{type(error).__name__}: {error}")
            time.sleep(self.pause)


def systemctl(*words: str) -> str:
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False).stdout


def releasectl(*words: str) -> dict[str, Any]:
    done = subprocess.run([RELEASECTL, *words, "--json"], capture_output=True, text=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return {"ok": False, "message": f"no JSON but {done.stdout[:200]!r} {done.stderr[-500:]!r}"}
    return answer


def killed(words: list[str], *how: str) -> dict[str, Any]:
    """Run a verb in its own unit, as the command line would, under the tracer."""
    asked = vars(cli.parser().parse_args(words))
    del asked["json"]
    asked["actor"] = "crash"
    job = Job.of(CONFIG.private_run, asked["verb"], asked)
    job.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (job.directory / "result.json").unlink(missing_ok=True)
    write_json(job.directory / REQUEST, asked)
    tracer = ["/usr/bin/python3", "-I", str(HERE / "tracer.py"), *how, "--", *cli.PROGRAM, job.key]
    done = subprocess.run(
        ["systemd-run", "--quiet", "--collect", "--wait", "--pipe", f"--unit={job.unit}", "--property=UMask=0022",
         "--property=KillMode=control-group", "--", *tracer],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    point = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            point = json.loads(line)
    result = job.directory / "result.json"
    answer = json.loads(result.read_text()) if result.exists() else None
    return {**point, "killed": done.returncode == 137, "answer": answer}


class Trouble(AssertionError):
    """What must not happen happened."""


class Sweep:
    def __init__(self, releases: list[dict[str, str]], domain: str) -> None:
        self.artifacts = {release["id"]: release for release in releases}
        self.ids = list(self.artifacts)
        self.client = Client(domain)
        self.tries = self.kills = 0
        self.troubles: list[str] = []
        self.switched_by = 0

    def live(self) -> str:
        return CONFIG.current.resolve().name

    def other(self) -> str:
        """Of the two that take turns, the one that is not live."""
        return self.ids[1] if self.live() == self.ids[0] else self.ids[0]

    def prepare_words(self, release: str) -> list[str]:
        given = self.artifacts[release]
        return ["prepare", "--id", release, "--artifact", Path(given["artifact"]).name, "--sha256", given["sha256"]]

    def ensure(self, release: str) -> None:
        if not (CONFIG.release_dir(release) / "release.json").exists():
            self.must(*self.prepare_words(release))

    def must(self, *words: str) -> dict[str, Any]:
        answer = releasectl(*words)
        if not answer["ok"]:
            raise Trouble(f"{' '.join(words[:3])}: {answer['message']}")
        return answer

    # The verbs: what to set up before each try, and the words

    def words(self, verb: str, token: str) -> list[str]:
        under = ["--token", token]
        if verb == "prepare":
            return [*self.prepare_words(self.ids[2]), *under]
        if verb == "activate":
            return ["activate", "--id", self.other(), *under]
        if verb == "watched":
            return ["activate", "--id", self.other(), "--watch", "1", *under]
        if verb == "rollback":
            return ["rollback", *under]
        if verb in ("discard", "migrate"):
            return [verb, "--id", self.ids[2], *under]
        if verb == "prune":
            return ["prune", "--keep", "1", *under]
        return [verb, *under]

    def set_up(self, verb: str) -> None:
        """Both that take turns are prepared, the third one as the verb needs it."""
        self.ensure(self.other())
        if verb in ("discard", "migrate", "prune"):
            self.ensure(self.ids[2])
        elif verb == "prepare" and CONFIG.release_dir(self.ids[2]).exists():
            self.must("discard", "--id", self.ids[2])
            # Its virtual environment, too, which would be there already otherwise.
            self.must("prune", "--keep", "1000")
        elif verb == "reconcile":
            # There must be something to settle: a switch that died right after its point of no return.
            killed(["activate", "--id", self.other()], "--kill-at", str(self.point_of_no_return()), "--after")

    def one(self, verb: str, *how: str) -> dict[str, Any]:
        """One try: set up, kill, look, deploy, look again."""
        self.set_up(verb)
        self.client.served.clear()
        lost = len(self.client.lost)
        token = self.must("lock", "--purpose", "a deploy that will die")["token"]
        before = self.live()
        outcome = killed(self.words(verb, token), *how)
        self.tries += 1
        self.kills += outcome["killed"]
        current = self.live()
        served = self.answered()
        if served not in (before, current):
            raise Trouble(f"after the kill {served or 'no release'} serves, neither {before} nor {current}")
        self.give_lease_back(token)
        if verb == "watched":
            self.end_trial(before)
        self.next_deploy()
        if len(self.client.lost) > lost:
            raise Trouble(f"requests were lost: {self.client.lost[lost:][:3]}")
        strangers = self.client.served - set(self.ids)
        if strangers:
            raise Trouble(f"answered by {strangers}")
        self.litter()
        return outcome

    def end_trial(self, before: str) -> None:
        """What nobody saw through its watch goes back with the next verb, before there is anything to deploy over."""
        intent = json.loads((CONFIG.state / "state.json").read_text())["intent"]
        self.must("reconcile")
        if intent and self.live() != before:
            raise Trouble(f"{self.live()} stayed, though its watch was cut short")

    def answered(self) -> str:
        try:
            return self.client.ask()
        except (OSError, http.client.HTTPException) as error:
            raise Trouble(f"nothing serves: {type(error).__name__}: {error}") from None

    def give_lease_back(self, token: str) -> None:
        """The controller lives on when the verb had not begun or had ended; otherwise the lease is dead already."""
        try:
            lease = json.loads((CONFIG.state / "lease.json").read_text())
        except FileNotFoundError:
            raise Trouble("the lease was lost") from None
        if lease["busy"] is None:
            self.must("unlock", "--token", token)

    def next_deploy(self) -> None:
        """At once: lease, prepare where it is not, activate."""
        token = self.must("lock", "--purpose", "the next deploy")["token"]
        release = self.other()
        self.ensure(release)
        # A switch that was carried to its end by the verb before may have made it live.
        if self.live() == release:
            release = self.other()
        self.must("activate", "--id", release, "--token", token)
        self.must("unlock", "--token", token)
        if self.live() != release:
            raise Trouble(f"{release} was deployed, {self.live()} is live")
        if self.answered() != release:
            raise Trouble(f"{release} was deployed, but does not answer")

    def litter(self) -> None:
        deadline = time.monotonic() + 15
        while True:
            found = self.look()
            if not found:
                return
            if time.monotonic() > deadline:
                raise Trouble(f"left behind: {'; '.join(found)}")
            time.sleep(0.1)

    def look(self) -> list[str]:
        status = releasectl("status")
        found = [f"drift: {line}" for line in status["drift"]]
        known = {release["id"] for release in status["releases"]}
        found += [f"half release {path.name}" for path in CONFIG.releases.iterdir() if path.name not in known]
        found += [f"half venv {path}" for path in CONFIG.venvs.iterdir() if not (path / "venv.json").exists()]
        places = (CONFIG.current.parent, CONFIG.run, CONFIG.state, CONFIG.private_run)
        found += [f"file {path}" for place in places for path in place.glob(".*.new")]
        found += [f"file {path}" for path in CONFIG.static.rglob(".*.new")]
        staging = CONFIG.state / "staging"
        found += [f"archive {path.name}" for path in (staging.iterdir() if staging.is_dir() else ())]
        generation = status["live"]["generation"]
        for line in systemctl("list-units", "--all", "--plain", "--no-legend", "gunicorn@*", "celery-*@*").splitlines():
            unit, _, active = line.split()[:3]
            if f"@{generation}." not in unit:
                found.append(f"{unit} is {active}")
        # Those of the generations that drained last go with the next verb; more than that would pile up.
        for place in (CONFIG.private_run / "env", CONFIG.state / "generations"):
            stale = [path.name for path in place.iterdir() if path.name != generation]
            found += [f"settings of {', '.join(stale)}"] if len(stale) > 4 else []
        return found

    # Which tries

    def point_of_no_return(self) -> int:
        """The number of the call that renames `current`."""
        if not self.switched_by:
            renames = [call for call in self.record("activate") if call["path"] == str(CONFIG.current)]
            self.switched_by = int(renames[-1]["number"])
        return self.switched_by

    def record(self, verb: str) -> list[dict[str, Any]]:
        """Let the verb run to its end and list its state-changing calls."""
        outcome = self.one(verb, "--record", str(RECORD))
        if outcome["killed"] or not (outcome["answer"] and outcome["answer"]["ok"]):
            raise Trouble(f"{verb} did not succeed under the tracer, unkilled: {outcome}")
        calls = [json.loads(line) for line in RECORD.read_text().splitlines()]
        RECORD.unlink()
        return calls


def thin_out(calls: list[dict[str, Any]], every: bool) -> list[int]:
    """The numbers of the calls to try: all of them, or of each long run of one kind only a few."""
    if every:
        return [call["number"] for call in calls]

    def kind(call: dict[str, Any]) -> tuple[str, ...]:
        path = Path(call["path"])
        parts = path.parts if path.is_absolute() else ()
        # /opt/app/releases/<id>/src/…, /opt/app/venvs/<name>/lib/…: what they hold is one place; all else is its own.
        inside = parts[:6] if len(parts) > 6 and parts[3] in ("releases", "venvs") else parts
        bulk = call["call"] if len(parts) > 6 or not path.is_absolute() else call["number"]
        return (str(bulk), *inside)

    chosen: list[int] = []
    for _, group in itertools.groupby(_unweave(calls, kind), key=lambda pair: pair[0]):
        numbers = [call["number"] for _, call in group]
        few = numbers if len(numbers) <= 4 else [*numbers[:2], random.choice(numbers[2:-1]), numbers[-1]]
        chosen += few
    return sorted(set(chosen))


def _unweave(calls: list[dict[str, Any]], kind: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Calls that alternate (chown, chmod, chown, …) belong to one run each: sort within the release's own files."""
    return iter(sorted(((kind(call), call) for call in calls), key=lambda pair: (pair[0], pair[1]["number"])))


class Report:
    """What is printed: a line for each try, the counts at the end."""

    def __init__(self, sweep: Sweep, verb: str) -> None:
        self.sweep, self.verb = sweep, verb

    def attempt(self, what: str, *how: str) -> dict[str, Any]:
        began = time.monotonic()
        outcome: dict[str, Any] = {}
        trouble = None
        try:
            outcome = self.sweep.one(self.verb, *how)
        except Trouble as found:
            trouble = str(found)
            self.sweep.troubles.append(f"{self.verb} {what}: {trouble}")
            # The tries after this one start from a known state.
            releasectl("unlock", "--force")
            releasectl("reconcile")
        seconds = round(time.monotonic() - began, 1)
        line = {"verb": self.verb, "try": what, "killed": outcome.get("killed"), "took": seconds, "trouble": trouble}
        print(json.dumps(line), flush=True)
        return outcome


def at_calls(report: Report, points: int, every: bool, path: str) -> dict[str, int]:
    """Before each state-changing call, and after each: nothing changes between one and the next."""
    calls = report.sweep.record(report.verb)
    numbers = [number for number in thin_out(calls, every) if path in calls[number - 1]["path"]]
    if points and len(numbers) > points:
        numbers = sorted(random.sample(numbers, points))
    for place, number in enumerate(numbers, 1):
        call = calls[number - 1]
        what = f"{place}/{len(numbers)} {call['call']} {call['path'][-60:]}"
        report.attempt(f"before {what}", "--kill-at", str(number))
        if number + 1 not in numbers:
            report.attempt(f"after {what}", "--kill-at", str(number), "--after")
    return {"calls": len(calls), "tried": len(numbers)}


def at_random(report: Report, wanted: int) -> dict[str, int]:
    """At instants spread over the time that the verb takes."""
    lasts = report.sweep.one(report.verb, "--kill-in", "60")["seconds"]
    kills = tries = 0
    while kills < wanted and tries < 5 * wanted:
        tries += 1
        instant = random.uniform(0, lasts)
        what = f"{kills + 1}/{wanted} at {instant:.3f} s"
        if report.attempt(what, "--kill-in", f"{instant:.3f}").get("killed"):
            kills += 1
        else:
            # It was over by then: what was measured first was slower, on a machine that had other things to do.
            lasts = instant
    return {"random": kills}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domain", required=True)
    parser.add_argument("--releases", type=json.loads, required=True)
    parser.add_argument("--verb", required=True)
    parser.add_argument("--points", type=int, default=0, help="at most so many calls (0: all)")
    parser.add_argument("--every", action="store_true", help="every single call, the long runs too")
    parser.add_argument("--path", default="", help="only the calls on a path that holds this text")
    parser.add_argument("--random", type=int, default=0, help="instead: so many kills at random instants")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    given = parser.parse_args()
    random.seed(given.seed)
    sweep = Sweep(given.releases, given.domain)
    sweep.client.start()
    report = Report(sweep, given.verb)
    counts: dict[str, int] = {}
    try:
        if given.verb == "prune":
            # What else is on the host goes first, or the calls that are counted would not be those that are tried.
            sweep.must("prune", "--keep", "1")
        counts = (
            at_random(report, given.random) if given.random else at_calls(report, given.points, given.every, given.path)
        )
    except Trouble as found:
        sweep.troubles.append(f"{given.verb}, not killed: {found}")
    summary = {
        "verb": given.verb,
        "seed": given.seed,
        **counts,
        "tries": sweep.tries,
        "kills": sweep.kills,
        "requests": sweep.client.asked,
        "lost": len(sweep.client.lost),
        "troubles": sweep.troubles,
    }
    print(json.dumps(summary), flush=True)
    return 1 if sweep.troubles or sweep.client.lost else 0


if __name__ == "__main__":
    sys.exit(main())
