"""`make bench-edge`: what the edge costs, measured side by side in one run on one host.

Static files: wrk on the edge, and on a second nginx on the same host whose configuration is as short as one would write
it by hand (the same certificate, versions of TLS and files, nginx's own access log on the same disk), and on that one
without a log. Dynamic: h2load on the edge, on Gunicorn's socket directly, and on the short nginx before it, for a view
that takes 5 ms; over TLS connections are kept, as browsers keep them, and Gunicorn closes each, as it does for nginx.
TLS handshakes: wrk with a new connection for each request. They take turns, every other round in the opposite order,
and each round gives a ratio. Everything runs on one machine, the clients too: what a client costs is in both numbers,
which is why both are written in C.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.site import Site, load_average
from benchmarks.story import ROOT, StepFailed, Story, table
from lab.cargo import variants

GOAL = 0.95
PLACE = "/run/slipway-bench"
# On the disk that has the edge's.
LOG = "/var/log/slipway-bench.log"
BARE, UNLOGGED = 8444, 8445
CONNECTIONS = 32
VIEW = "/slow?seconds=0.005"
SOCKET = "/run/app/current.sock"
# What somebody would write who only wants files served over TLS.
MINIMAL = """\
user {user};
worker_processes auto;
pid {place}/nginx.pid;
error_log stderr;
events {{ worker_connections 4096; }}
http {{
  include /etc/nginx/mime.types;
  sendfile on;
  access_log {log} combined;
  # nginx 1.22 would have none of 1.3, whose handshakes cost twice as much.
  ssl_protocols TLSv1.2 TLSv1.3;
  server {{
    listen 127.0.0.1:{bare} ssl;
    ssl_certificate /etc/slipway/tls/live/fullchain.pem;
    ssl_certificate_key /etc/slipway/tls/live/privkey.pem;
    location /static/ {{ alias {static}/; }}
    location / {{
      proxy_pass http://unix:{socket};
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-Proto https;
    }}
  }}
  server {{
    listen 127.0.0.1:{unlogged} ssl;
    access_log off;
    ssl_certificate /etc/slipway/tls/live/fullchain.pem;
    ssl_certificate_key /etc/slipway/tls/live/privkey.pem;
    location /static/ {{ alias {static}/; }}
  }}
}}
"""
# The same nginx modules and the same user as the edge's, under a unit of its own that is gone at the next boot.
START = """\
install -d {place}
cat >{place}/nginx.conf <<'NGINX'
{configuration}NGINX
nginx -t -q -c {place}/nginx.conf
systemd-run --quiet --collect --unit=run-slipway-bench -p LimitNOFILE=65536 nginx -c {place}/nginx.conf -g 'daemon off;'
grep -q ' # slipway-bench$' /etc/hosts || echo '127.0.0.1 {name} # slipway-bench' >>/etc/hosts
"""
STOP = """\
if systemctl is-active -q run-slipway-bench; then systemctl stop run-slipway-bench; fi
rm -rf {place} {log}
sed '/ # slipway-bench$/d' /etc/hosts >/run/hosts.bench && cat /run/hosts.bench >/etc/hosts && rm /run/hosts.bench
"""


@dataclass
class Comparison:
    """Two or more ways to the same thing, in rounds."""

    title: str
    unit: str
    ways: dict[str, Callable[[], float]]
    goal: float = 0.0
    rounds: list[dict[str, float]] = field(default_factory=list)

    def measure(self, number: int) -> None:
        names = list(self.ways)
        found = {name: self.ways[name]() for name in (names if number % 2 == 0 else reversed(names))}
        self.rounds.append(found)

    def ratios(self, against: str) -> list[float]:
        """The first way against another one, round by round."""
        first = next(iter(self.ways))
        return [found[first] / found[against] for found in self.rounds]

    def rows(self) -> list[tuple[str, ...]]:
        first, *others = self.ways
        rows: list[tuple[str, ...]] = [
            (self.title, first, *spread([found[first] for found in self.rounds], "{:.0f}"), self.unit)
        ]
        for other in others:
            rows.append(("", other, *spread([found[other] for found in self.rounds], "{:.0f}"), self.unit))
            rows.append(("", f"{first} / {other}", *spread(self.ratios(other), "{:.3f}"), "ratio"))
        return rows

    def missed(self) -> str:
        """What is below its goal. The second way is the one that counts."""
        if not self.goal:
            return ""
        against = list(self.ways)[1]
        median = statistics.median(self.ratios(against))
        return "" if median >= self.goal else f"{self.title}: {median:.3f} of {against}, the goal is {self.goal}"


def spread(values: list[float], form: str) -> tuple[str, str, str]:
    return tuple(form.format(value) for value in (min(values), statistics.median(values), max(values)))  # type: ignore[return-value]


def wrk_rate(output: str) -> float:
    """Requests a second, when all of them were answered well."""
    rate = re.search(r"^Requests/sec:\s+([\d.]+)", output, re.MULTILINE)
    if not rate:
        raise StepFailed(f"wrk did not say how many requests it made: {output.strip()[-200:]}")
    for trouble in (r"Non-2xx or 3xx responses: (\d+)", r"Socket errors: (.+)"):
        if found := re.search(trouble, output):
            raise StepFailed(f"wrk was not answered well: {found[0]}")
    return float(rate[1])


def h2load_rate(output: str) -> float:
    """Requests a second, when all of them were answered with 2xx."""
    rate = re.search(r"^finished in [\d.]+\w+, ([\d.]+) req/s", output, re.MULTILINE)
    asked = re.search(r"^requests: .*? (\d+) done, (\d+) succeeded, (\d+) failed", output, re.MULTILINE)
    if not rate or not asked:
        raise StepFailed(f"h2load did not say how many requests it made: {output.strip()[-200:]}")
    if int(asked[1]) == 0 or asked[1] != asked[2] or int(asked[3]):
        raise StepFailed(f"h2load was not answered well: {asked[0]}")
    return float(rate[1])


class EdgeBench:
    def __init__(self, lab: str, rounds: int, seconds: int) -> None:
        self.lab, self.rounds, self.seconds = lab, rounds, seconds
        self.reports = ROOT / ".lab" / lab / "reports"
        self.story = Story(5, self.reports / "bench-edge.log")
        self.comparisons: list[Comparison] = []

    def run(self) -> int:
        site = None
        try:
            with self.story.step("Bring the lab up and converge it"):
                self.story.run(["lab/lab.py", "up"])
                site = self.site = Site.of_lab(self.lab)
                site.end_what_was_cut_short()
                for name in ("bootstrap", "site"):
                    self.playbook(name)
                if not site.answering():
                    self.playbook(
                        "deploy", "-e", f"release_artifact={variants(['good-1'], self.lab)['good-1']['artifact']}"
                    )
            with self.beside():
                self.compare()
        except (StepFailed, KeyboardInterrupt) as error:
            self.story.failed(error)
            return 1
        finally:
            if site is not None:
                site.close()
        return self.summary()

    def playbook(self, name: str, *more: str) -> None:
        self.story.run(["ansible-playbook", "-i", "inventories/lab", f"playbooks/{name}.yml", *more])

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """A second nginx on the host, the clients, and a name that leads to the host itself."""
        with self.story.step("Put a bare nginx beside the edge"):
            self.site.sudo(
                "command -v wrk && command -v h2load"
                " || apt-get -qq install -y --no-install-recommends wrk nghttp2-client >/dev/null"
            )
            user = self.site.sudo("ps -o user= -p \"$(pgrep -o -f 'nginx: worker')\"").strip()
            self.static = self.site.sudo(
                "find /var/www/app/static -type f -size +3k -size -40k -regextype posix-extended"
                " -regex '.*\\.[0-9a-f]{12}\\.[a-z]+' | sort | head -n 1"
            ).strip()
            if not self.static:
                raise StepFailed("no static file of 4 to 40 KiB is published: deploy a release with static files")
            configuration = MINIMAL.format(
                user=user,
                place=PLACE,
                log=LOG,
                socket=SOCKET,
                bare=BARE,
                unlogged=UNLOGGED,
                static="/var/www/app/static",
            )
            self.site.sudo(STOP.format(place=PLACE, log=LOG))
            self.site.sudo(START.format(place=PLACE, configuration=configuration, name=self.site.name))
        try:
            yield
        finally:
            self.site.sudo(STOP.format(place=PLACE, log=LOG))

    # The ways.
    def wrk(self, port: int, path: str, *headers: str) -> Callable[[], float]:
        more = " ".join(f"-H {shlex.quote(header)}" for header in headers)
        command = f"wrk -t2 -c{CONNECTIONS} -d{self.seconds}s {more} https://{self.site.name}:{port}{path}"
        return lambda: wrk_rate(self.site.sudo(command))

    def h2load(self, place: str, clients: int) -> Callable[[], float]:
        words = ["h2load", "--h1", f"-c{clients}", f"-t{min(2, clients)}", "-H", "X-Forwarded-Proto: https"]
        if place.startswith("unix:"):
            words += ["-H", "Connection: close", f"--base-uri={place}", f"http://{self.site.name}{VIEW}"]
        else:
            words += [f"--connect-to={place}", f"https://{self.site.name}{VIEW}"]
        rates: list[float] = []

        def measure() -> float:
            # By a number and not by time: where each answer ends the connection, h2load may miss the end of its time
            # and wait for ever. The first measure, which only warms up, is a short one.
            count = max(100, round(rates[-1] * self.seconds) if rates else 0)
            rates.append(h2load_rate(self.site.sudo(shlex.join([*words, f"-n{count}"]))))
            return rates[-1]

        return measure

    def compare(self) -> None:
        path = self.static.removeprefix("/var/www/app")
        self.size = int(self.site.sudo(f"stat -c %s {self.static}"))
        ways = {"edge": 443, "bare nginx": BARE, "bare, no log": UNLOGGED}
        static = {name: self.wrk(port, path) for name, port in ways.items()}
        shaken = {name: self.wrk(port, path, "Connection: close") for name, port in list(ways.items())[:2]}
        for title, unit, made, goal in (
            (f"a static file of {self.size} bytes", "requests/s", static, GOAL),
            ("a view of 5 ms, 1 at a time", "requests/s", self.dynamic(1), GOAL),
            ("a view of 5 ms, 4 at a time", "requests/s", self.dynamic(4), GOAL),
            ("a view of 5 ms, 8 at a time", "requests/s", self.dynamic(8), GOAL),
            ("TLS handshakes", "handshakes/s", shaken, 0.0),
        ):
            self.comparisons.append(Comparison(title, unit, made, goal))
        with self.story.step("Warm up"):
            for comparison in self.comparisons:
                for way in comparison.ways.values():
                    way()
        with self.story.step(f"{self.rounds} rounds, {self.seconds} s each way"):
            for number in range(self.rounds):
                for comparison in self.comparisons:
                    comparison.measure(number)
                    self.story.progress(f"round {number + 1} of {self.rounds}: {comparison.title}")

    def dynamic(self, clients: int) -> dict[str, Callable[[], float]]:
        return {
            "edge": self.h2load("127.0.0.1:443", clients),
            "Gunicorn's socket": self.h2load(f"unix:{SOCKET}", clients),
            # What no configuration of nginx over TLS can do better than.
            "bare nginx": self.h2load(f"127.0.0.1:{BARE}", clients),
        }

    # What came of it.
    def summary(self) -> int:
        rows: list[tuple[str, ...]] = [("what", "way", "min", "median", "max", "")]
        for comparison in self.comparisons:
            rows += comparison.rows()
        self.story.say("\nThe edge and what it stands before, one run, in turns:\n" + table(rows))
        self.story.say(
            f"{self.rounds} rounds of {self.seconds} s; {CONNECTIONS} connections for files and handshakes."
            f" The machine: {os.cpu_count()} cores for servers and clients, load average {load_average()}."
        )
        data = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "cores": os.cpu_count(), "goal": GOAL,
            "comparisons": {one.title: one.rounds for one in self.comparisons},
        }  # fmt: skip
        path: Path = self.reports / "bench-edge.json"
        path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        missed = [sentence for one in self.comparisons if (sentence := one.missed())]
        for sentence in missed:
            self.story.say(f"Failed: {sentence}")
        self.story.say(f"Numbers: {path}")
        return 1 if missed else 0


def main(lab: str, rounds: int, seconds: int) -> int:
    return EdgeBench(lab, rounds, seconds).run()


if __name__ == "__main__":
    sys.exit(main(os.environ.get("SLIPWAY_LAB") or "lab", 9, 2))
