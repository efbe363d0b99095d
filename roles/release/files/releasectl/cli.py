"""The command line: what a deployer may run as root, so every word of it is hostile until it has been checked."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from . import adopting, budget, build, crossing, making, names, preview, record, restoring, status, tidying, watch
from .config import Config
from .door import Door
from .errors import Refusal, UsageError
from .events import Events, timestamp
from .hooks import Hooks
from .job import Job, who
from .lifecycle import Lifecycle
from .lock import Locks
from .maintenance import Site
from .migrate import Migration
from .migrate import arguments as migrate_arguments
from .state import Intent
from .systemd import Systemd

PROGRAM = ["/usr/bin/python3", "-I", "/usr/local/libexec/slipway/hostctl", "job"]
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
ENDING = 120.0  # seconds in which a watch that was asked to end does
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
    looking = verb("preview", "say what a deploy of an artifact or image would meet; changes nothing", token=False)
    ident(looking, True, "the id that the release would get")
    making.preview_arguments(looking)
    history = verb("history", "show the newest lifecycle events; changes nothing", token=False)
    history.add_argument("--limit", type=names.number(1, 10_000), default=20, help="how many events (default 20)")

    lock = verb("lock", "take the lease of a deploy: other verbs are refused until it is given back", token=False)
    lock.add_argument("--purpose", type=_text, required=True, help="what for, shown to whoever is refused")
    lock.add_argument(
        "--seconds", type=names.number(10, 86_400), help="how long without a verb (default: lease_seconds)"
    )
    unlock = verb("unlock", "give the lease back")
    unlock.add_argument("--force", action="store_true", help="take it from a deploy that is dead")

    resolve = verb("resolve", "ask the registry which image a tag names by now; changes nothing", token=False)
    making.resolve_arguments(resolve)
    prepare = verb("prepare", "make a release of an uploaded artifact or of an image; the live release is not touched")
    ident(prepare, True, "the id that the release gets")
    making.prepare_arguments(prepare)
    migrate = verb("migrate", "apply a release's database migrations, unless they break the one that runs")
    ident(migrate, False, "a prepared release (default: the live one)")
    migrate_arguments(migrate)
    verb("dump", "make a restore point of the database, at the place where they are kept")
    verb("dumps", "list the restore points; changes nothing", token=False)
    restoring.arguments(verb("restore", "put a restore point into an empty database"))
    activate = verb("activate", "make a prepared release live once it is healthy")
    ident(activate, True, "a prepared release")
    activate.add_argument("--discard-on-failure", action="store_true", help="remove the release when it is refused")
    activate.add_argument(
        "--watch",
        type=names.number(0, 3600),
        metavar="SECONDS",
        help="go back by itself when it fails within (default: watch_seconds)",
    )
    rollback = verb("rollback", "go back to the release that was live before")
    ident(rollback, False, "another release than the last one")
    rollback.add_argument(
        "--accept-schema", action="store_true", help="across migrations that the older release does not work with, too"
    )
    rollback.add_argument("--plan", action="store_true", help="say what would be done, and do nothing")
    maintenance = verb("maintenance", "close this edge for maintenance, or open it again")
    maintenance.add_argument("--state", choices=("on", "off"), required=True)
    maintenance.add_argument("--because", type=_text, default="maintenance", help="why, shown by 'status'")
    restart = verb("restart", "start the live release anew with the settings in force, without losing a request")
    restart.add_argument(
        "--if-settings-changed",
        action="store_true",
        help="only when new settings wait, or it runs with others than those in force, or with other unit files",
    )
    settings = verb("settings", "put new settings in force once the live release serves with them, or take them back")
    settings.add_argument(
        "--version",
        type=adopting.version_name,
        metavar="VERSION",
        help="refuse unless this one waits or is in force (default: whatever waits)",
    )
    settings.add_argument(
        "--take-back", type=adopting.version_name, metavar="VERSION", help="go back to those in force before these"
    )
    settings.add_argument(
        "--untried",
        action="store_true",
        help="in force for the next deploy, rollback or restart, whatever the live release makes of them",
    )
    drain = verb("drain", "have the edges take other hosts until undrain or a reboot; waits for requests in hand")
    drain.add_argument("--because", type=_text, default="maintenance", help="why, shown by 'status'")
    verb("undrain", "let the edges in again, once the live release is healthy")
    verb("reconcile", "make everything agree with the link 'current'")
    prune = verb("prune", "remove old releases, never the live or the previous one")
    prune.add_argument("--keep", type=names.number(1, 1000), help="how many to keep (default: keep)")
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
        self.on_trial: Intent | None = None  # when the verb began
        self.hooks: Hooks | None = None
        self.site = Site(config)

    def run(self) -> Answer:
        """Reconcile, run the verb, and return its part of the answer."""
        verb = str(self.asked["verb"])
        self.on_trial = self.lifecycle.on_trial()
        done = self.lifecycle.reconcile(self.actor, heal=verb == "reconcile")
        for line in done:
            self.say(line)
        if done and verb != "reconcile":
            record.write_settled(self.lifecycle, done, self.actor)
        for litter in build.sweep(self.config):
            self.say(f"removed {litter}, a release that was never finished")
        if verb == "reconcile":
            done += self._open_left_behind()
            message = "; ".join(done) or "Everything agrees."
            return {"changed": bool(done), "done": done, "release": self.lifecycle.live_release(), "message": message}
        handler: Callable[[], Answer] = getattr(self, f"do_{verb}")
        try:
            answer = handler()
        except Refusal as refusal:
            refusal.details.update(self._of_hooks())
            raise
        answer.update(self._of_hooks())
        if answer.get("hook_warnings"):
            answer["message"] += f" Warning: {'; '.join(answer['hook_warnings'])}."
        if self.lifecycle.live_release() is not None:
            self.door.ensure()
        if verb in ("rollback", "activate"):
            for line in self._open_left_behind():
                answer["message"] += f" {line}."
        return answer

    def _with_hooks(self, release: str, previous: str | None) -> Hooks:
        self.hooks = Hooks(self.config, str(self.asked["verb"]), release, previous, self.say)
        return self.hooks

    def _of_hooks(self) -> Answer:
        """What the hooks did, for the answer and the record: nothing where none ran."""
        found: Answer = {}
        if self.hooks is not None and self.hooks.ran:
            found["hooks"] = [ran.public() for ran in self.hooks.ran]
        if self.hooks is not None and self.hooks.warnings:
            found["hook_warnings"] = self.hooks.warnings
        return found

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

    def do_resolve(self) -> Answer:
        return making.resolve(self.config, self.asked)

    def do_prepare(self) -> Answer:
        def hooks() -> Hooks:
            return self._with_hooks(self.asked["id"], self.lifecycle.live_release())

        return making.prepare(self.lifecycle, self.asked, self.actor, hooks)

    def do_migrate(self) -> Answer:
        live = self.lifecycle.live_release()
        release = self.asked["id"] or live
        if release is None or build.read(self.config.release_dir(release)) is None:
            raise Refusal(f"{release or 'No release'} is not prepared on this host, nothing was migrated.")
        settings = self.lifecycle.settings
        name = f"migrate-{release}"
        path = settings.write_environment(name, settings.current())
        try:
            return self._migrate(release, live, path)
        finally:
            path.unlink(missing_ok=True)

    def _migrate(self, release: str, live: str | None, path: Path) -> Answer:
        """With the hooks of the release around it, unless it is one app alone that is migrated."""
        asked = self.asked
        hooks = self._with_hooks(release, live)
        there = any(hooks.there(point) for point in ("before_migrate", "after_migrate", "on_failure"))
        if not there or asked["plan"] or asked["app"] is not None:
            return Migration(self.config, release, live, self.say).run(asked, path)
        # They run once, and not before the site is closed when it has to be.
        if held := Migration(self.config, release, live, self.say).held_back(asked, path):
            return held
        with hooks.migrating(self.lifecycle.settings.current()):
            return Migration(self.config, release, live, self.say).run(asked, path)

    def do_dump(self) -> Answer:
        return restoring.dump(self.lifecycle)

    def do_restore(self) -> Answer:
        return restoring.restore(self.lifecycle, self.asked)

    def do_activate(self) -> Answer:
        release = self.asked["id"]
        before = self.lifecycle.live_release()
        crossing.record(self.config, release)
        try:
            seconds = self.config.watch_seconds if self.asked["watch"] is None else self.asked["watch"]
            live = self.lifecycle.activate(release, self.actor, seconds, self._with_hooks(release, before))
        except Refusal as refusal:
            if self.asked["discard_on_failure"] and release != before and not refusal.details.get("was_live"):
                refusal.details["discarded"] = self._discard_if_never_live(release, refusal.message)
            raise
        seen = self.lifecycle.seen
        watched = f" Watched for {seen.seconds:.0f} s: {seen}." if seen else ""
        return {
            "changed": True,
            "release": release,
            "generation": str(live.generation),
            "previous": before,
            "message": f"{release} is live"
            + (f" in place of {before}." if before else ", the first release.")
            + watched,
        }

    def _discard_if_never_live(self, release: str, why: str) -> bool:
        state = self.lifecycle.store.read()
        return release not in state.previous and self.lifecycle.discard(release, why)

    def do_rollback(self) -> Answer:
        before = self.lifecycle.live_release()
        if self.on_trial is not None and before != self.on_trial.release and self.asked["id"] in (None, before):
            # Its watch had been interrupted, and to reconcile was to go back from it.
            return _went_back(self.on_trial.release, str(before))
        target = self.lifecycle.rollback_target(self.asked["id"])
        said, breaking = crossing.check(self.config, str(before), target, self.asked["accept_schema"])
        self._warn_of_memory()
        gone = self.lifecycle.missing_settings(target)
        if gone:
            said += f" It says that it needs {', '.join(gone)}, which is not in force: see docs/ops/settings.md."
        live = self.lifecycle.switch("rollback", target, None, self.actor, hooks=self._with_hooks(target, before))
        return {
            "changed": True,
            "release": target,
            "generation": str(live.generation),
            "previous": before,
            "breaking": breaking,
            "message": f"Rolled back from {before} to {target}; {said}",
        }

    def _warn_of_memory(self) -> None:
        """A way back that may fail is better than none."""
        state = self.lifecycle.store.read()
        found = budget.memory(self.config, self.lifecycle.systemd, state.live.generation if state.live else None)
        if found is not None and not found.enough:
            self.say(f"trying all the same: {found.sentence}")

    def do_settings(self) -> Answer:
        if self.asked["take_back"] is not None:
            return adopting.take_back(self.lifecycle, self.asked["take_back"], self.actor)
        version, untried = self.asked["version"], self.asked["untried"]
        if version is None or adopting.require(self.lifecycle, version):
            adopted = adopting.adopt(self.lifecycle, self.actor, untried, version)
            if adopted is not None:
                return adopted
        if untried:
            return {"changed": False, "message": "No settings wait to be put in force."}
        return self._restart_if_settings_changed()

    def do_restart(self) -> Answer:
        return self._restart_when_due() if self.asked["if_settings_changed"] else self._restart()

    def _restart_when_due(self) -> Answer:
        if (adopted := adopting.adopt(self.lifecycle, self.actor)) is not None:
            return adopted
        return self._restart_if_settings_changed()

    def _restart_if_settings_changed(self) -> Answer:
        if not self.lifecycle.settings_changed():
            return {"changed": False, "message": "The live release runs with the settings in force."}
        try:
            return self._restart()
        except Refusal as refusal:
            raise adopting.discreet(refusal) from None

    def _restart(self) -> Answer:
        live = self.lifecycle.restart(self.actor)
        return {
            "changed": True,
            "release": live.release,
            "generation": str(live.generation),
            "message": f"{live.release} was restarted with {live.settings or 'no settings'}.",
        }

    def do_prune(self) -> Answer:
        return tidying.prune(self.lifecycle, self.asked["keep"] or self.config.keep)

    def do_discard(self) -> Answer:
        if self.asked["applied"]:
            crossing.record(self.config, self.asked["id"], self.asked["applied"])
        removed = self.lifecycle.discard(self.asked["id"], f"discarded by {self.actor}")
        if removed:
            tidying.images(self.lifecycle)
        text = f"{self.asked['id']} was removed." if removed else f"There is no release {self.asked['id']}."
        return {"changed": removed, "message": text}


def _run(config: Config, asked: Answer, say: Callable[[str], None]) -> Answer:
    try:
        return Verbs(config, asked, say).run()
    except OSError as error:
        switching = asked["verb"] in ("activate", "rollback", "restart", "settings", "reconcile")
        after = (
            "once that is put right, 'releasectl reconcile' completes or takes back what was begun"
            if switching
            else "what serves was not changed"
        )
        raise Refusal(f"{asked['verb']} failed: {_why(error)}; {after}.") from error


def _why(error: OSError) -> str:
    return f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")


def execute(config: Config, asked: Answer, say: Callable[[str], None], wait: float = 5) -> Answer:
    """Run one verb to its end in this process: lock, verb, record. Returns the whole answer."""
    verb, actor = str(asked["verb"]), str(asked["actor"])
    locks = Locks(config.private_run, config.state)
    started = time.monotonic()
    to_record = True
    # Before the verb: a release that it refuses may be removed by it.
    revision = record.revision_of(config, asked.get("id"))
    try:
        with locks.verb(verb, actor, wait), locks.under_lease(verb, asked.get("token")):
            answer = {"ok": True, "verb": verb, **_run(config, asked, say), "exit": 0}
        answer.update(record.revisions(config, answer))
    except Refusal as refusal:
        to_record = refusal.exit_status == 1
        answer = {
            "ok": False, "verb": verb, "changed": False, "message": refusal.message, **refusal.details,
            "exit": refusal.exit_status,
        }  # fmt: skip
    except OSError as error:
        message = f"{verb} was not begun, the lease cannot be noted: {_why(error)}."
        answer = {"ok": False, "verb": verb, "changed": False, "message": message, "exit": 1}
    if to_record and (answer["changed"] or not answer["ok"] or answer.get("hooks")):
        why = record.write(config, say, asked, answer, revision, started)
        if why:
            answer["message"] += f" It could not be recorded: {why}."
    return answer


def run_verb(config: Config, asked: Answer) -> Answer:
    """Dispatch: looking runs at once, the lease at once under the flock, everything else as a job."""
    verb = str(asked["verb"])
    locks = Locks(config.private_run, config.state)
    if verb == "status":
        shown = status.report(Lifecycle(config, Systemd()), locks)
        return {"ok": True, "verb": verb, "changed": False, "message": status.as_text(shown), **shown}
    if verb == "preview":
        return {
            "ok": True,
            "verb": verb,
            "changed": False,
            **preview.deploy(Lifecycle(config, Systemd()), locks, asked),
        }
    if verb == "rollback" and asked.get("plan"):
        planned = preview.rollback(Lifecycle(config, Systemd()), asked["id"], asked["accept_schema"])
        return {"ok": True, "verb": verb, "changed": False, **planned}
    if verb == "dumps":
        return {"ok": True, "verb": verb, "changed": False, **restoring.listing(config)}
    if verb == "history":
        events = Events(config.events).recent(asked["limit"])
        return {"ok": True, "verb": verb, "changed": False, "message": record.as_text(events), "events": events}
    if verb in ("lock", "unlock"):
        return _lease(config, locks, asked)
    if verb == "rollback" and (ended := _end_watch(config, locks, asked)) is not None:
        return ended
    job = Job.of(config.private_run, verb, asked)
    if not job.begin(PROGRAM, asked, writable=(config.env.parent,)):
        print(f"The same '{verb}' is running already: attached to it.", file=sys.stderr)
    return job.follow()


def _went_back(left: str, to: str) -> Answer:
    message = f"Rolled back from {left} to {to}; migrations are not undone."
    return {"changed": True, "release": to, "previous": left, "message": message}


def _end_watch(config: Config, locks: Locks, asked: Answer) -> Answer | None:
    """Who wants to leave a release while it is watched need not wait for that: the verb that watches goes back at once.

    None when no verb is watching, another release is wanted, or the watch ended well in that moment.
    """
    lifecycle = Lifecycle(config, Systemd())
    trial, live = lifecycle.on_trial(), lifecycle.store.read().live
    if trial is None or live is None or asked["id"] not in (None, live.release) or not locks.held():
        return None
    watch.end(config, trial.generation, str(asked["actor"]))
    deadline = time.monotonic() + ENDING
    while locks.held() and time.monotonic() < deadline:
        time.sleep(0.1)
    if lifecycle.live_release() != live.release:
        return None
    return {"ok": True, "verb": "rollback", **_went_back(trial.release, live.release), "exit": 0}


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
