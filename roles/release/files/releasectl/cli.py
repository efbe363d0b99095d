"""The command line: what a deployer may run as root, so every word of it is hostile until it has been checked."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn

from . import build, crossing, names, status
from .config import Config
from .door import Door
from .errors import Refusal, UsageError
from .events import Events, timestamp
from .job import Job, who
from .lifecycle import Lifecycle
from .lock import Locks
from .maintenance import Site
from .migrate import Migration
from .migrate import arguments as migrate_arguments
from .systemd import Systemd

PROGRAM = ["/usr/bin/python3", "-I", "/usr/local/libexec/slipway/hostctl", "job"]
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
TEXT = re.compile(r"[^\x00-\x1f\x7f]{1,200}")

Answer = dict[str, Any]


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaint is one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[0].upper()}{message[1:]}; see '{self.prog} --help'.")


def _text(value: str) -> str:
    if not TEXT.fullmatch(value):
        raise UsageError("--actor, --purpose and --because take 1 to 200 printable characters.")
    return value


def _number(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            raise UsageError(f"{names.shorten(value)} is not a whole number from {low} to {high}.")
        return int(value)

    return parse


def parser() -> Parser:
    """All verbs with their arguments; nothing abbreviated, nothing unchecked."""
    top = Parser(
        prog="releasectl",
        description="The release lifecycle on this host. At three in the morning: sudo releasectl rollback",
        allow_abbrev=False,
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)

    def verb(name: str, text: str, token: bool = True) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.add_argument("--json", action="store_true", help="answer with one JSON object on standard output")
        added.add_argument("--actor", type=_text, help="who or what asked, for the record (for example a CI run)")
        if token:
            added.add_argument("--token", help="the lease under which this verb runs, as 'lock' gave it")
        return added

    def ident(added: argparse.ArgumentParser, required: bool, text: str) -> None:
        added.add_argument("--id", type=names.release_id, required=required, metavar="RELEASE", help=text)

    verb("status", "show what is live, what could be, and what disagrees; changes nothing", token=False)
    history = verb("history", "show the newest lifecycle events; changes nothing", token=False)
    history.add_argument("--limit", type=_number(1, 10_000), default=20, help="how many events (default 20)")

    lock = verb("lock", "take the lease of a deploy: other verbs are refused until it is given back", token=False)
    lock.add_argument("--purpose", type=_text, required=True, help="what for, shown to whoever is refused")
    lock.add_argument("--seconds", type=_number(10, 86_400), help="how long without a verb (default: lease_seconds)")
    unlock = verb("unlock", "give the lease back")
    unlock.add_argument("--force", action="store_true", help="take it from a deploy that is dead")

    prepare = verb("prepare", "receive, unpack and build an uploaded artifact; the live release is not touched")
    ident(prepare, True, "the id that the release gets")
    prepare.add_argument(
        "--artifact", type=names.artifact_name, required=True, help="file name inside the incoming directory"
    )
    prepare.add_argument("--sha256", type=names.sha256, required=True, help="digest of the artifact")
    migrate = verb("migrate", "apply a release's database migrations, unless they break the one that runs")
    ident(migrate, False, "a prepared release (default: the live one)")
    migrate_arguments(migrate)
    activate = verb("activate", "make a prepared release live once it is healthy")
    ident(activate, True, "a prepared release")
    activate.add_argument("--discard-on-failure", action="store_true", help="remove the release when it is refused")
    rollback = verb("rollback", "go back to the release that was live before")
    ident(rollback, False, "another release than the last one")
    rollback.add_argument(
        "--accept-schema", action="store_true", help="across migrations that the older release does not work with, too"
    )
    maintenance = verb("maintenance", "close this edge for maintenance, or open it again")
    maintenance.add_argument("--state", choices=("on", "off"), required=True)
    maintenance.add_argument("--because", type=_text, default="maintenance", help="why, shown by 'status'")
    restart = verb("restart", "start the live release anew with the settings in force, without losing a request")
    restart.add_argument(
        "--if-settings-changed", action="store_true", help="only when it runs with other settings or unit files"
    )
    drain = verb("drain", "have the edges take other hosts until undrain or a reboot; waits for requests in hand")
    drain.add_argument("--because", type=_text, default="maintenance", help="why, shown by 'status'")
    verb("undrain", "let the edges in again, once the live release is healthy")
    verb("reconcile", "make everything agree with the link 'current'")
    prune = verb("prune", "remove old releases, never the live or the previous one")
    prune.add_argument("--keep", type=_number(1, 1000), help="how many to keep (default: keep)")
    discard = verb("discard", "remove a release that never was live")
    ident(discard, True, "a prepared release")
    discard.add_argument("--applied", type=names.migrations, help="its migrations that were applied, for the record")
    return top


class Verbs:
    """The verbs that run inside a job, under the flock and, where there is one, the lease."""

    def __init__(self, config: Config, asked: Answer, say: Callable[[str], None]) -> None:
        self.config = config
        self.asked = asked
        self.say = say
        self.actor = str(asked["actor"])
        self.lifecycle = Lifecycle(config, Systemd(), say)
        self.door = Door(config, self.lifecycle.systemd)
        self.site = Site(config)

    def run(self) -> Answer:
        """Reconcile, run the verb, and return its part of the answer."""
        verb = str(self.asked["verb"])
        done = self.lifecycle.reconcile(self.actor, heal=verb == "reconcile")
        for line in done:
            self.say(line)
        for litter in build.sweep(self.config):
            self.say(f"removed {litter}, a release that was never finished")
        if verb == "reconcile":
            done += self._open_left_behind()
            return {"changed": bool(done), "done": done, "message": "; ".join(done) or "Everything agrees."}
        handler: Callable[[], Answer] = getattr(self, f"do_{verb}")
        answer = handler()
        if self.lifecycle.live_release() is not None:
            self.door.ensure()
        if verb in ("rollback", "activate"):
            answer["message"] = " ".join([answer["message"], *(f"{line}." for line in self._open_left_behind())])
        return answer

    def _open_left_behind(self) -> list[str]:
        """No lease is held where none was named: a deploy that closed the site is dead by now."""
        if self.asked.get("token") or not self.site.end_of_deploy(self.actor):
            return []
        return ["the site, which a deploy that died had closed, was opened"]

    def do_maintenance(self) -> Answer:
        if self.asked["state"] == "on":
            changed = self.site.close(self.actor, self.asked["because"], deploy=bool(self.asked.get("token")))
            return {"changed": changed, "message": "The site is closed." if changed else "The site was closed already."}
        changed = self.site.open(self.actor, self.asked["because"])
        return {"changed": changed, "message": "The site is open again." if changed else "The site is open."}

    def do_drain(self) -> Answer:
        self.say("refusing new requests, and waiting for those in hand")
        changed = self.door.drain(self.actor, str(self.asked["because"]))
        text = "This host is taken out: the edges take others." if changed else "This host was taken out already."
        return {"changed": changed, "message": text}

    def do_undrain(self) -> Answer:
        changed = self.door.undrain()
        text = "The edges are let in again." if changed else "This host was not drained."
        return {"changed": changed, "message": text}

    def do_prepare(self) -> Answer:
        release, sha256 = self.asked["id"], self.asked["sha256"]
        existing = build.read(self.config.release_dir(release))
        if existing is not None:
            if existing.sha256 != sha256:
                raise Refusal(
                    f"{release} exists already with other content (SHA-256 {existing.sha256[:12]}…, not"
                    f" {sha256[:12]}…): a release never changes, give the new one another id."
                )
            return {"changed": False, "message": f"{release} is prepared already."}
        build.prepare(self.config, release, self.asked["artifact"], sha256, self.actor, self.say)
        state = self.lifecycle.store.read()
        if state.gone.pop(release, None):
            self.lifecycle.store.write(state)
        return {"changed": True, "message": f"{release} is prepared."}

    def do_migrate(self) -> Answer:
        live = self.lifecycle.live_release()
        release = self.asked["id"] or live
        if release is None or build.read(self.config.release_dir(release)) is None:
            raise Refusal(f"{release or 'No release'} is not prepared on this host, nothing was migrated.")
        settings = self.lifecycle.settings
        name = f"migrate-{release}"
        path = settings.write_environment(name, settings.current())
        try:
            return Migration(self.config, release, live, self.say).run(self.asked, path)
        finally:
            path.unlink(missing_ok=True)

    def do_activate(self) -> Answer:
        release = self.asked["id"]
        before = self.lifecycle.live_release()
        crossing.record(self.config, release)
        try:
            live = self.lifecycle.activate(release, self.actor)
        except Refusal as refusal:
            if self.asked["discard_on_failure"] and release != before:
                refusal.details["discarded"] = self._discard_if_never_live(release, refusal.message)
            raise
        return {
            "changed": True,
            "release": release,
            "generation": str(live.generation),
            "previous": before,
            "message": f"{release} is live" + (f" in place of {before}." if before else ", the first release."),
        }

    def _discard_if_never_live(self, release: str, why: str) -> bool:
        state = self.lifecycle.store.read()
        return release not in state.previous and self.lifecycle.discard(release, why)

    def do_rollback(self) -> Answer:
        before = self.lifecycle.live_release()
        target = self.lifecycle.rollback_target(self.asked["id"])
        said, breaking = crossing.check(self.config, str(before), target, self.asked["accept_schema"])
        live = self.lifecycle.switch("rollback", target, None, self.actor)
        return {
            "changed": True,
            "release": target,
            "generation": str(live.generation),
            "previous": before,
            "breaking": breaking,
            "message": f"Rolled back from {before} to {target}; {said}",
        }

    def do_restart(self) -> Answer:
        if self.asked["if_settings_changed"] and not self.lifecycle.settings_changed():
            return {"changed": False, "message": "The live release runs with the settings in force."}
        live = self.lifecycle.restart(self.actor)
        return {
            "changed": True,
            "release": live.release,
            "generation": str(live.generation),
            "message": f"{live.release} was restarted with {live.settings or 'no settings'}.",
        }

    def do_prune(self) -> Answer:
        keep = self.asked["keep"] or self.config.keep
        removed = self.lifecycle.prune(keep)
        files = build.prune_static(self.config, list(build.prepared(self.config)), older_than=30 * 86_400)
        text = f"Removed {', '.join(removed)}." if removed else "Nothing to prune."
        return {"changed": bool(removed or files), "removed": removed, "message": text}

    def do_discard(self) -> Answer:
        if self.asked["applied"]:
            crossing.record(self.config, self.asked["id"], self.asked["applied"])
        removed = self.lifecycle.discard(self.asked["id"], f"discarded by {self.actor}")
        text = f"{self.asked['id']} was removed." if removed else f"There is no release {self.asked['id']}."
        return {"changed": removed, "message": text}


def _run(config: Config, asked: Answer, say: Callable[[str], None]) -> Answer:
    try:
        return Verbs(config, asked, say).run()
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise Refusal(
            f"{asked['verb']} failed: {error.strerror or error}{where}; what serves was not changed."
        ) from error


def execute(config: Config, asked: Answer, say: Callable[[str], None], wait: float = 5) -> Answer:
    """Run one verb to its end in this process: lock, verb, record. Returns the whole answer."""
    verb, actor = str(asked["verb"]), str(asked["actor"])
    locks = Locks(config.private_run, config.state)
    started = time.monotonic()
    record = True
    try:
        with locks.verb(verb, actor, wait), locks.under_lease(verb, asked.get("token")):
            answer = {"ok": True, "verb": verb, **_run(config, asked, say), "exit": 0}
    except Refusal as refusal:
        record = refusal.exit_status == 1
        answer = {
            "ok": False, "verb": verb, "changed": False, "message": refusal.message, **refusal.details,
            "exit": refusal.exit_status,
        }  # fmt: skip
    if record and (answer["changed"] or not answer["ok"]):
        Events(config.events).append(
            verb=verb,
            release=answer.get("release") or asked.get("id"),
            generation=answer.get("generation"),
            actor=actor,
            outcome="ok" if answer["ok"] else "failed",
            message=answer["message"],
            seconds=round(time.monotonic() - started, 2),
            **{key: answer[key] for key in ("plan", "findings", "applied", "breaking") if answer.get(key)},
        )
    return answer


def run_verb(config: Config, asked: Answer) -> Answer:
    """Dispatch: looking runs at once, the lease at once under the flock, everything else as a job."""
    verb = str(asked["verb"])
    locks = Locks(config.private_run, config.state)
    if verb == "status":
        shown = status.report(Lifecycle(config, Systemd()), locks)
        return {"ok": True, "verb": verb, "changed": False, "message": status.as_text(shown), **shown}
    if verb == "history":
        events = Events(config.events).recent(asked["limit"])
        return {"ok": True, "verb": verb, "changed": False, "message": _history_text(events), "events": events}
    if verb in ("lock", "unlock"):
        return _lease(config, locks, asked)
    job = Job.of(config.private_run, verb, asked)
    if not job.begin(PROGRAM, asked):
        print(f"The same '{verb}' is running already: attached to it.", file=sys.stderr)
    return job.follow()


def _lease(config: Config, locks: Locks, asked: Answer) -> Answer:
    verb, actor = str(asked["verb"]), str(asked["actor"])
    with locks.verb(verb, actor):
        if verb == "unlock":
            gave = locks.release(asked["token"], asked["force"])
            opened = Site(config).end_of_deploy(actor)
            text = "The lease was given back." if gave else "There was no lease."
            return {
                "ok": True,
                "verb": verb,
                "changed": gave or opened,
                "opened": opened,
                "message": text + (" The site is open again." if opened else ""),
            }
        lease = locks.take(actor, asked["purpose"], asked["seconds"] or config.lease_seconds)
        return {
            "ok": True, "verb": verb, "changed": True, "token": lease.token, "expires": timestamp(lease.expires),
            "message": f"The lease is yours until {timestamp(lease.expires)}.",
        }  # fmt: skip


def _history_text(events: list[dict[str, object]]) -> str:
    lines = [
        f"{event.get('at')}  {event.get('outcome')!s:<7} {event.get('verb')!s:<10} "
        f"{event.get('actor')}: {event.get('message')}"
        for event in events
    ]
    return "\n".join(lines) or "Nothing has happened yet."


def _show(answer: Answer, as_json: bool) -> int:
    exit_status = int(answer.pop("exit", 0))
    if as_json:
        print(json.dumps(answer, sort_keys=True))
        return exit_status
    journal = answer.get("journal")
    if isinstance(journal, list):
        print("\n".join(f"  | {line}" for line in journal), file=sys.stderr)
    print(answer["message"], file=sys.stdout if answer["ok"] else sys.stderr)
    return exit_status


def main(argv: list[str]) -> int:
    """Entry point of /usr/local/sbin/releasectl; returns the exit status."""
    as_json = "--json" in argv
    actor = who()
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    os.umask(0o022)
    try:
        asked = vars(parser().parse_args(argv))
        if os.geteuid() != 0:
            raise UsageError("releasectl needs root: run it with sudo.")
        as_json = asked.pop("json")
        asked["actor"] = f"{actor} ({asked['actor']})" if asked["actor"] else actor
        config = Config.load()
        config.make_directories()
        return _show(run_verb(config, asked), as_json)
    except Refusal as refusal:
        answer = {"ok": False, "verb": next(iter(argv), None), "changed": False, "message": refusal.message}
        return _show({**answer, **refusal.details, "exit": refusal.exit_status}, as_json)
    except OSError as error:
        message = f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
        return _show(
            {"ok": False, "verb": next(iter(argv), None), "changed": False, "message": message, "exit": 1}, as_json
        )
