"""Migrating: what is planned and what it does, the policy, and what is applied afterwards, whatever happened.

The app's own Python does it, by the program under ``inside/``, as the app's user with the app's settings.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import migrations, names, sandbox
from .config import Config
from .errors import CommandFailed, Refusal, UsageError
from .migrations import Malformed, Record, Schema, listed
from .points import POLICIES as POINT_POLICIES
from .points import Point, Points
from .systemd import sandboxed

MARK = "@slipway "
LOCK_WAIT = 10  # seconds that another migration of the same app is waited for
RUNBOOK = "docs/ops/migrations.md"
ALWAYS = "release_maintenance is 'always'"
NOTHING = "No migrations to apply."
POLICIES = ("auto", "always", "never", "closed")


def arguments(added: argparse.ArgumentParser) -> None:
    """What `migrate` may be told, besides which release."""
    added.add_argument(
        "--maintenance", choices=POLICIES, default="never",
        help="what to do about migrations that break the release that runs: refuse (never), ask for the site to be"
        " closed (auto), ask for that in any case (always), or apply them since it is closed (closed)",
    )  # fmt: skip
    added.add_argument(
        "--restore-point", choices=POINT_POLICIES, default="never",
        help="dump the database first, to where restore points are kept: when data would be lost (auto), or always",
    )  # fmt: skip
    added.add_argument("--serving", action="store_true", help="a release runs, if not on this host then on another")
    added.add_argument("--app", type=names.app_label, help="one app alone, to --migration")
    added.add_argument("--migration", type=names.migration, help="where to, forwards or backwards; or zero")
    added.add_argument("--plan", action="store_true", help="say what would be done, and do nothing")


@dataclass
class Report:
    """What the program said so far, checked; whatever ends it, this much is known."""

    plan: list[Record] = field(default_factory=list)
    planned: bool = False
    before: frozenset[str] = frozenset()
    begun: str | None = None
    # Those that were seen to end; what the database says in the end is better.
    ended: list[str] = field(default_factory=list)
    applied: tuple[str, ...] | None = None
    left: tuple[str, ...] = ()
    checked: bool = False
    held: bool = False
    failed: dict[str, Any] | None = None
    busy: str | None = None
    refused: str | None = None
    malformed: bool = False
    say: Callable[[str], None] = lambda _line: None

    def hear(self, line: str) -> None:
        """Take one line of output; what is no event of ours is the app's own affair."""
        if not line.startswith(MARK):
            return
        try:
            event = json.loads(line[len(MARK) :])
            handler = getattr(self, f"on_{event.pop('event')}", None)
            if handler is not None:
                handler(event)
        except (Malformed, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self.malformed = True

    def on_plan(self, event: dict[str, Any]) -> None:
        self.plan = migrations.judged(migrations.records(event["migrations"]))
        self.before = frozenset(migrations.names(event["applied"]))
        self.planned = True
        if self.plan:
            self.say("planned: " + listed((item.told() for item in self.plan), 50))

    def _step(self, event: dict[str, Any], word: str) -> None:
        name = migrations.name(event["migration"])
        if event["step"] == "start":
            self.begun = name
            self.say(f"{word} {name}")
        else:
            self.begun = None
            self.ended.append(name)

    def on_apply(self, event: dict[str, Any]) -> None:
        self._step(event, "applying")

    def on_unapply(self, event: dict[str, Any]) -> None:
        self._step(event, "taking back")

    def on_held(self, _event: dict[str, Any]) -> None:
        self.held = True

    def on_checked(self, event: dict[str, Any]) -> None:
        self.left, self.applied = migrations.names(event["left"]), migrations.names(event["applied"])
        self.checked = True

    def on_failed(self, event: dict[str, Any]) -> None:
        self.failed = {key: event.get(key) for key in ("error", "sqlstate", "rolled_back")}
        self.begun = None if event["migration"] is None else migrations.name(event["migration"])
        self.applied = None if event["applied"] is None else migrations.names(event["applied"])

    def on_busy(self, event: dict[str, Any]) -> None:
        self.busy = migrations.printable(event["holders"])

    def on_refused(self, event: dict[str, Any]) -> None:
        self.refused = migrations.printable(event["error"])

    @property
    def backwards(self) -> bool:
        """Whether migrations are taken back."""
        return any(item.backwards for item in self.plan)

    @property
    def done(self) -> list[str]:
        """What of the plan has been done, by now or in the end."""
        if self.applied is None:
            return self.ended
        changed = self.before ^ set(self.applied)
        return [item.name for item in self.plan if item.name in changed]


def inside(config: Config) -> str:
    """The program that runs in the app's own Python."""
    return str(config.inside / "slipway_migrations.py")


def described(lines: list[str]) -> tuple[Record, ...] | None:
    """What `describe` said of all migrations of a release; None when it could not tell."""
    for line in reversed(lines):
        if line.startswith(MARK):
            try:
                raw = json.loads(line[len(MARK) :])["migrations"]
                return None if raw is None else migrations.records(raw)
            except (Malformed, ValueError, TypeError, KeyError, RecursionError):
                return None
    return None


class Migration:
    """One call of `migrate`, for one release."""

    def __init__(self, config: Config, release: str, live: str | None, say: Callable[[str], None]) -> None:
        self.config, self.release, self.live = config, release, live
        self.report = Report(say=say)
        self.schema = Schema(config.state)
        self.point: Point | None = None

    def run(self, asked: dict[str, Any], environment_file: Path) -> dict[str, Any]:
        """Do what was asked; return `migrate`'s part of the answer, or refuse with what is applied by now."""
        if (asked["app"] is None) != (asked["migration"] is None):
            raise UsageError("--app and --migration go together, for example --app=shop --migration=0003_isbn.")
        policy = str(asked["maintenance"])
        target = asked["app"] is not None
        serving = self._serving(asked)
        if policy == "always" and serving and not target and not asked["plan"]:
            return self._held(ALWAYS)
        free = policy == "closed" or target or not serving
        words = {"app": asked["app"], "migration": asked["migration"]}
        allow = "any" if free else "harmless"
        if asked["plan"]:
            self._call({**words, "mode": "plan", "allow": allow}, environment_file)
        else:
            self._call({**words, "mode": "migrate", "allow": allow, "hold": asked["restore_point"]}, environment_file)
        if self.report.held and (free or not self._harmful()):
            # The program looks at each migration by itself; here, at what one does to a table that one before it made.
            self._make_point(str(asked["restore_point"]), environment_file)
            self.report = Report(say=self.report.say)
            self._call({**words, "mode": "migrate", "allow": "any"}, environment_file)
        if self.report.held:
            return self._hold(policy)
        return self._told(bool(asked["plan"]))

    def held_back(self, asked: dict[str, Any], environment_file: Path) -> dict[str, Any] | None:
        """What `run` would answer when the site has to be closed first; None when it would migrate at once."""
        policy = str(asked["maintenance"])
        if policy == "closed" or not self._serving(asked):
            return None
        if policy == "always":
            return self._held(ALWAYS)
        self._call({"mode": "plan", "allow": "any", "app": None, "migration": None}, environment_file)
        return self._hold(policy) if self._harmful() else None

    def _serving(self, asked: dict[str, Any]) -> bool:
        """Whether another release runs, here or on another host."""
        return (self.live is not None or bool(asked["serving"])) and self.live != self.release

    def _harmful(self) -> list[Record]:
        return [item for item in self.report.plan if migrations.harms(item, self.config.migrate_big_table_rows)]

    def _make_point(self, policy: str, environment_file: Path) -> None:
        """A restore point, when data would be lost or one is wanted in any case; without it nothing is migrated."""
        lossy = any(found.level == "destructive" for item in self.report.plan for found in item.findings)
        if policy == "never" or not (lossy or policy == "always"):
            return
        try:
            self.point = Points(self.config, self.report.say).make(self.release, environment_file)
        except Refusal as refusal:
            why = listed(item.told() for item in self.report.plan if item.level != "compatible" or item.loses)
            raise Refusal(
                f"Nothing was migrated: a restore point is to be made before {why or 'it'}, and could not be."
                f" {refusal.message}",
                **{**refusal.details, **self._facts()},
            ) from None

    # The program

    def _call(self, words: dict[str, Any], environment_file: Path) -> None:
        config = self.config
        request = {
            **words,
            "big": config.migrate_big_table_rows,
            "lock_timeout": config.migrate_lock_timeout,
            "statement_timeout": config.migrate_statement_timeout,
            "lock_wait": LOCK_WAIT,
            "lock_key": int.from_bytes(hashlib.sha256(f"slipway migrate {config.app}".encode()).digest()[:7], "big"),
            "who": f"slipway migrate {self.release}",
        }
        directory = config.release_dir(self.release)
        try:
            output = sandboxed(
                f"releasectl-migrate-{self.release}",
                [*sandbox.python(config, self.release), inside(config), json.dumps(request)],
                sandbox.app(config, directory, environment_file),
                sandbox.app_environment(config, self.release),
                config.migrate_timeout,
                f"Migrating with {self.release}",
                self.report.hear,
            )
        except CommandFailed as failed:
            self._remember()
            self._refuse(failed.message.removeprefix(f"Migrating with {self.release} failed: "), failed.details)
        self._remember()
        self._judge([line for line in output.splitlines() if line.strip() and not line.startswith(MARK)][-20:])

    def _remember(self) -> None:
        """What the database has by now, for a rollback to look at."""
        known = list((migrations.of_release(self.config.release_dir(self.release)) or {}).values())
        if self.report.applied is not None:
            self.schema.settle(self.report.applied, [*known, *self.report.plan])
        else:
            ended = set(self.report.ended)
            self.schema.add(item for item in self.report.plan if item.name in ended and not item.backwards)

    def _judge(self, journal: list[str]) -> None:
        """Refuse unless all went well."""
        report = self.report
        if report.busy is not None:
            raise Refusal(
                f"Nothing was migrated: another migration of this app is at work in the same database"
                f" ({report.busy or 'it is gone by now'}). Wait for it to end, and run this again."
            )
        if report.refused is not None:
            raise Refusal(f"Nothing was migrated: {report.refused}.")
        if report.failed is not None:
            why = migrations.printable(str(report.failed["error"] or "it said nothing"))
            self._refuse(why + self._hint(), {"journal": journal})
        if report.malformed or not (report.planned or report.checked):
            self._refuse("what the app said of its migrations cannot be read", {})
        if report.left:
            self._refuse(f"afterwards these are still not applied: {listed(report.left)}", {})

    def _hint(self) -> str:
        code = (self.report.failed or {}).get("sqlstate")
        if code == "55P03":
            seconds = self.config.migrate_lock_timeout
            return f" (release_migrate_lock_timeout: somebody held the table for more than {seconds} s; run it again)"
        if code == "57014":
            seconds = self.config.migrate_statement_timeout
            return f" (release_migrate_statement_timeout: {seconds} s; a migration may set slipway_statement_timeout)"
        return ""

    # The words

    def _refuse(self, why: str, details: dict[str, Any]) -> None:
        """Say exactly what is applied, and that what serves was not touched."""
        report = self.report
        verb = "Taken back" if report.backwards else "Applied"
        said = [f"{verb}: {listed(report.done, 20) or 'none'}."]
        if report.begun is not None:
            undone = (report.failed or {}).get("rolled_back")
            state = "cut off, and rolled back by the database unless it is not atomic"
            if undone is not None:
                state = "rolled back by the database" if undone is True else "not atomic, so it may be half applied"
            said.append(f"Failed: {report.begun} ({why}): {state}.")
        else:
            said.append(f"Failed: {why}.")
        said.append(f"{self.live} still serves." if self.live else "Nothing is live yet.")
        if self.point:
            said.append(f"Restore point: {self.point.told()}.")
        raise Refusal(
            f"Migrating with {self.release} failed. {' '.join(said)}",
            **{**details, **self._facts(), "failed_migration": report.begun},
        )

    def _facts(self) -> dict[str, Any]:
        return {
            **({"restore_point": self.point.public()} if self.point else {}),
            "plan": [item.name for item in self.report.plan],
            "applied": self.report.done,
            "findings": [
                {"migration": item.name, "level": item.level, "what": "; ".join(f.what for f in item.findings)[:300]}
                for item in self.report.plan
                if item.level != "compatible"
            ],
        }

    def _hold(self, policy: str) -> dict[str, Any]:
        """The lint found what breaks the release that runs: close the site first, or leave it."""
        harmful = listed(item.told() for item in self._harmful())
        what = f"{self.live or 'the release that runs'} would break by {harmful}"
        if policy == "never":
            raise Refusal(
                f"Nothing was migrated: {what}. Spread it over two releases ({RUNBOOK}), or deploy with -e"
                " release_maintenance=auto, which closes the site meanwhile.",
                **self._facts(),
            )
        return self._held(what)

    def _held(self, why: str) -> dict[str, Any]:
        return {
            "changed": False,
            "needs_maintenance": True,
            "because": f"migrating to {self.release}: {why}"[:200],
            **self._facts(),
            "message": f"The site has to be closed before {self.release} can migrate: {why}. Nothing was applied yet.",
        }

    def _told(self, only_planned: bool) -> dict[str, Any]:
        report = self.report
        notes = [item.told() for item in report.plan if item.level != "compatible"]
        noted = f" Of note: {listed(notes)}." if notes else ""
        if only_planned:
            planned = listed((item.name for item in report.plan), 20)
            verb = "taken back" if report.backwards else "applied"
            text = f"{len(report.plan)} migrations would be {verb}: {planned}." if planned else NOTHING
        elif report.done:
            verb = "taken back" if report.backwards else "applied"
            text = f"{len(report.done)} migrations {verb}: {listed(report.done, 20)}."
        else:
            text = NOTHING
        if self.point:
            noted += f" Restore point: {self.point.told()}."
        changed = bool(report.done) and not only_planned
        return {"changed": changed, "needs_maintenance": False, **self._facts(), "message": text + noted}
