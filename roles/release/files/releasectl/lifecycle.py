"""Switching: one truth (`current`), everything else derived from it, and an intent that survives a crash.

The order of a switch, and what a crash in between leaves for `reconcile`:

1. the intent is recorded                      -> taken back: `current` still names the old release
2. the new generation starts, passes its gate  -> taken back
3. new workers come up, old ones stop          -> taken back, old workers are started again
4. `current` is renamed                        -> carried to its end from here on
   (for new settings, adopting.py, it is the link of the settings, with the same consequence)
5. `current.sock` is renamed                   (for a restart of the same release this is the point of no return)
6. the record is written, the intent is gone   -> only left-over generations remain to be stopped
7. the old generation drains and stops, beat moves over

A release that is activated shows more after its gate (verification.py). When it is to be watched, the intent is marked
before 4, the watch is between 5 and 6, and a crash before 6 is taken back (trial.py).
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from . import app as apps
from . import budget, build, crew, dropin, health, needs, trial, verification, warm
from .config import Config
from .errors import Refusal
from .events import timestamp
from .files import link_atomically, remove_tree
from .hooks import Hooks
from .names import GENERATION, RELEASE_ID, Generation
from .settings import Settings
from .state import Intent, Live, State, Store, previous_after
from .systemd import PROCESSES, Systemd, Unit, raised, telling, unit_name
from .watch import Seen

GUNICORN = PROCESSES[0]
APP_SERVICE = "app.service"


class Lifecycle:
    """The verbs that change which generation serves. Every method expects the flock to be held."""

    def __init__(
        self,
        config: Config,
        systemd: Systemd,
        say: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.config = config
        self.systemd = systemd
        self.say = say
        self.store = Store(config.state)
        self.settings = Settings.of(config)
        self.seen: Seen | None = None  # by the watch of the last switch, when there was one

    # What is there

    def live_release(self) -> str | None:
        """The basename of what `current` resolves to; None before the first release, a sentence when it is broken."""
        current = self.config.current
        if not current.is_symlink():
            if current.exists():
                raise Refusal(
                    f"{current} is no symbolic link: move it away and point it at a release again"
                    f" (ln -sfn {self.config.releases}/<id> {current}), then run 'releasectl reconcile'."
                )
            return None
        target = current.resolve()
        if target.parent != self.config.releases.resolve() or not RELEASE_ID.fullmatch(target.name):
            raise Refusal(
                f"{current} points to {target}, which is no release: point it at one below {self.config.releases}"
                " again, then run 'releasectl reconcile'."
            )
        if build.read(target) is None:
            raise Refusal(
                f"{current} points to {target.name}, which is not there or was never finished:"
                f" point it at a release again (have: {self._have()}), then run 'releasectl reconcile'."
            )
        return target.name

    def socket_generation(self) -> Generation | None:
        """The generation that `current.sock` leads to."""
        try:
            return Generation.parse(Path(self.config.socket.readlink()).parent.name)
        except (OSError, Refusal):
            return None

    def on_trial(self) -> Intent | None:
        """The switch whose release is live by `current` and watched, or was when its verb died."""
        intent = self.store.read().intent
        watched = intent is not None and intent.watching is not None and self.live_release() == intent.release
        return intent if watched else None

    def _have(self) -> str:
        return ", ".join(build.prepared(self.config)) or "none"

    # Starting and stopping generations

    def _start_generation(self, state: State, release: str, settings: str | None) -> tuple[Generation, str | None]:
        """Number and pin the next generation; nothing is started yet."""
        state.counter += 1
        generation = Generation(release, state.counter)
        dropin.ready(self.config, generation)
        return generation, self.settings.pin(generation, settings)

    def _gate(self, generation: Generation) -> None:
        """Start gunicorn on its own socket, let it prove itself and get warm."""
        unit, config = unit_name(GUNICORN, generation), self.config
        path = apps.of(config, generation.release).health_path
        with warm.at_low_priority(lambda: self.systemd.main_pid(unit)):
            self._prove(generation, unit, path)
            main = self.systemd.main_pid(unit)
            warm.up(config.generation_socket(generation), main, path, config.warm_up_paths, config.domain, self.say)

    def _prove(self, generation: Generation, unit: str, path: str) -> None:
        """Start a unit and hold its answers against the health gate; on refusal the journal is attached."""
        config = self.config
        self.say(f"starting {unit}")
        if not self.systemd.start(unit):
            raise Refusal(
                f"{generation.release} did not start: {self.last_words(unit)}",
                f"{generation.release} did not start ({self.discreet_words(unit)})",
                journal=self.systemd.journal(unit),
            )
        self.say(f"waiting for {health.asked(path)} on its own socket")
        try:
            health.gate(
                config.generation_socket(generation),
                path,
                config.domain,
                config.health_timeout,
                config.health_successes,
                config.health_failures,
                alive=lambda: self.systemd.active(unit) == "active" and self.systemd.restarts(unit) == 0,
            )
        except Refusal as refusal:
            ended = self.systemd.active(unit) != "active"
            why = f"{refusal.message} ({self.last_words(unit)})" if ended else refusal.message
            discreet = f"{refusal.discreet or refusal.message} ({self.discreet_words(unit)})"
            raise Refusal(
                f"{generation.release} failed its health gate: {why}",
                f"{generation.release} failed its health gate: {discreet}",
                journal=self.systemd.journal(unit),
            ) from None

    def last_words(self, unit: str) -> str:
        """Why a unit did not come up, by its own words."""
        return telling(self.systemd.journal(unit, 60)) or "it wrote nothing to the journal"

    def discreet_words(self, unit: str) -> str:
        """The same without a word of the app's, which might be a part of a setting."""
        kind = raised(self.systemd.journal(unit, 60))
        return (f"{kind}; " if kind else "") + f"'sudo journalctl -u {unit}' on the host shows more"

    def _stop_other(self, live: Generation | None, process: str | None = None) -> None:
        """Stop every generation but ``live``: gunicorn drains on its own, nobody waits for it."""
        other = [u for u in self.systemd.units() if u.generation != live and process in (None, u.process)]
        doomed = (u.name for u in other if u.active != "deactivating" and not crew.is_job(u))
        self.systemd.stop(doomed, block=False)
        if process is None:
            wanted = {str(u.generation) for u in other} | ({str(live)} if live else set())
            self.settings.forget_all_but(wanted)
            dropin.forget_all_but(self.config, wanted)
            self._forget_directories(wanted)

    def _forget_directories(self, wanted: set[str]) -> None:
        """A generation that failed between two starts leaves its runtime directory behind."""
        for entry in os.scandir(self.config.run):
            if entry.is_dir(follow_symlinks=False) and entry.name not in wanted and GENERATION.fullmatch(entry.name):
                remove_tree(Path(entry.path))

    def _abandon(self, generation: Generation) -> None:
        """Take a generation back that never received a request."""
        self.systemd.stop([unit_name(p, generation) for p in crew.every(self.config)])
        self.settings.forget(generation)
        remove_tree(self.config.run / str(generation))

    # The switch

    def switch(
        self,
        verb: str,
        release: str,
        settings: str | None,
        actor: str,
        watch: int = 0,
        hooks: Hooks | None = None,
        adopts: bool = False,
    ) -> Live:
        """Start ``release`` as a new generation and move requests, workers and the scheduler to it; then watch it
        for so many seconds. With its hooks when given: one before the switch may refuse it, one at the end, when it
        stays, may not undo it. With ``adopts`` its settings are put in force by the switch.
        """
        self.seen = None
        state = self.store.read()
        live = self.live_release()
        recorded = state.live.release if state.live else None
        previous = previous_after(state, verb, release, recorded)
        generation, version = self._start_generation(state, release, settings)
        state.intent = Intent(verb, release, generation.number, version, time.time(), actor, previous, self.setup())
        state.intent.replaces = self.settings.current() if adopts else None
        self.store.write(state)
        try:
            if GUNICORN in self.config.processes:
                self._gate(generation)
                if verb == "activate" or adopts:
                    self._verify(generation, version)
            if hooks is not None:
                hooks.before_activate(generation, version)
            if verb != "rollback":
                crew.take_over(self, generation)
        except Refusal as refusal:
            self.say("taking it back; the live release was not touched")
            self._take_back(state, live)
            if hooks is not None:
                hooks.failed(refusal.message, version)
            raise
        self.say(f"switching to {generation}")
        if watch and trial.possible(self, state):
            try:
                self.seen = trial.hold(self, state, generation, watch)
            except Refusal as refusal:
                if hooks is not None:
                    hooks.failed(refusal.message, version)
                raise
            switched = self.conclude(state, generation)
        else:
            switched = self._commit(state, generation)
        if hooks is not None:
            hooks.after_activate(generation, version)
        return switched

    def _verify(self, generation: Generation, version: str | None) -> None:
        """The smoke tests and the app's own command; a refusal has the generation's own words with it."""
        try:
            verification.verify(self.config, self.settings, generation, version, self.say)
        except Refusal as refusal:
            unit = unit_name(GUNICORN, generation)
            refusal.details.setdefault("journal", self.systemd.journal(unit))
            if refusal.discreet is not None:
                refusal.discreet += f" ({self.discreet_words(unit)})"
            raise

    def _commit(self, state: State, generation: Generation) -> Live:
        """From here on a crash is carried forward by `reconcile`."""
        if state.intent is not None and state.intent.replaces is not None and state.intent.settings is not None:
            self.settings.put_in_force(state.intent.settings)
        self.point_at(generation)
        return self.conclude(state, generation)

    def point_at(self, generation: Generation) -> None:
        """Rename the links: from here on new requests go to ``generation``."""
        link_atomically(self.config.current, str(self.config.release_dir(generation.release)))
        self._point_socket(generation)

    def conclude(self, state: State, generation: Generation) -> Live:
        """Record what the links say, and let the generation before it go."""
        assert state.intent is not None
        intent = state.intent
        live = Live(generation.release, generation.number, time.time(), intent.settings, intent.setup)
        if intent.replaces is not None and intent.settings is not None:
            state.adopted = {"version": intent.settings, "before": intent.replaces}
        state.went_live(live, intent.previous)
        state.gone.pop(generation.release, None)
        self.store.write(state)
        self.settle(generation)
        return live

    def _point_socket(self, generation: Generation) -> None:
        if GUNICORN in self.config.processes:
            link_atomically(self.config.socket, str(self.config.generation_socket(generation)))

    def settle(self, generation: Generation) -> None:
        """Make the processes agree with the live generation."""
        self._stop_other(generation, GUNICORN)
        crew.take_over(self, generation, wait=False)
        crew.move(self, generation)
        self._stop_other(generation)
        if self.systemd.active(APP_SERVICE) != "active":
            self.systemd.start(APP_SERVICE, block=False)

    def _take_back(self, state: State, live: str | None) -> None:
        """Undo an intent whose release never became `current`; old workers come back when they had to stop."""
        assert state.intent is not None
        if state.live is not None and self.socket_generation() == state.intent.generation:
            self._point_socket(state.live.generation)
        if self.config.smoke_command:
            self.systemd.stop([f"{verification.command_unit(state.intent.release)}.service"])
        self._abandon(state.intent.generation)
        state.intent = None
        self.store.write(state)
        if state.live is not None and state.live.release == live:
            for process in crew.workers(self.config):
                self.systemd.start(unit_name(process, state.live.generation))

    # Agreement with `current`

    def reconcile(self, actor: str, boot: bool = False, heal: bool = True) -> list[str]:
        """Make everything derived agree with `current`; return what had to be done, one sentence each.

        At ``boot`` nothing runs yet and there is nothing to fall back to, so the generation is started without a
        gate. Otherwise a release that was linked by hand is switched to like any other, gate included.
        Without ``heal`` only an unfinished switch is settled: a verb that is about to switch away from a release
        that cannot start must not be refused because it cannot start.
        """
        state = self.store.read()
        live = self.live_release()
        done: list[str] = []
        if live is None:
            self._drop_intent(state, done)
            return done
        done += dropin.restore(self.config, state, live, everything=heal and not boot, say=self.say)
        if state.intent is not None:
            self._finish(state, live, done, boot)
            live = self.live_release() or live
        if boot:
            self._boot(state, live, done)
        elif not heal:
            self._note_link_by_hand(state, live)
        elif state.live is None or state.live.release != live:
            settings = state.live.settings if state.live else None
            self.switch("reconcile", live, settings, actor)
            done.append(f"{live}, which 'current' was pointed at by hand, was brought up")
        else:
            self._heal(state.live.generation, done)
        return done

    def _note_link_by_hand(self, state: State, live: str) -> None:
        """`current` was pointed elsewhere and not brought up: one can go back to what was live by the record."""
        if state.live is not None and state.live.release != live:
            state.previous = previous_after(state, "reconcile", live, state.live.release)
            self.store.write(state)

    def _drop_intent(self, state: State, done: list[str]) -> None:
        if state.intent is not None:
            done.append(f"an unfinished {state.intent.verb} of {state.intent.release} was taken back")
            self._abandon(state.intent.generation)
            state.intent = None
            self.store.write(state)
        self._stop_other(None)

    def _finish(self, state: State, live: str, done: list[str], boot: bool) -> None:
        """Carry an unfinished switch to its end when it passed the point of no return, take it back otherwise."""
        intent = state.intent
        assert intent is not None
        if trial.interrupted(self, state, live) and trial.go_back(self, state, boot):
            done.append(f"{intent.release}, whose watch was interrupted, was taken back")
            return
        if intent.replaces is not None:
            passed = self.settings.current() == intent.settings
        elif state.live is not None and state.live.release == intent.release:
            passed = self.socket_generation() == intent.generation
        else:
            passed = live == intent.release
        if passed:
            if GUNICORN in self.config.processes:
                unit = unit_name(GUNICORN, intent.generation)
                self.systemd.start(unit)
                warm.give_priority(self.systemd.main_pid(unit), warm.USUAL)
            self._commit(state, intent.generation)
            done.append(f"an interrupted {intent.verb} of {intent.release} was carried to its end")
        else:
            self._take_back(state, live)
            done.append(f"an interrupted {intent.verb} of {intent.release} was taken back")

    def _boot(self, state: State, live: str, done: list[str]) -> None:
        """Bring up what `current` points to: the link first, then the generation; the old number when it still runs."""
        recorded = state.live
        running = {u.generation for u in self.systemd.units() if u.running}
        if recorded is not None and recorded.release == live and recorded.generation in running:
            self._heal(recorded.generation, done)
            return
        version = recorded.settings if recorded else None
        previous = previous_after(state, "boot", live, recorded.release if recorded else None)
        generation, version = self._start_generation(state, live, version)
        state.went_live(Live(live, generation.number, time.time(), version, self.setup()), previous)
        self.store.write(state)
        self._point_socket(generation)
        if GUNICORN in self.config.processes and not self.systemd.start(unit_name(GUNICORN, generation)):
            unit = unit_name(GUNICORN, generation)
            raise Refusal(f"{live} did not start: {self.last_words(unit)}", journal=self.systemd.journal(unit))
        for process in (*crew.workers(self.config), *crew.singles(self.config)):
            self.systemd.start(unit_name(process, generation), block=False)
        self._stop_other(generation)
        by_hand = recorded is not None and recorded.release != live
        done.append(f"{live} was brought up" + (f" in place of {recorded.release}" if by_hand and recorded else ""))

    def _heal(self, generation: Generation, done: list[str]) -> None:
        """Start what should run, stop what should not, point the socket where it belongs."""
        units = self.systemd.units()
        running = {u.process for u in units if u.generation == generation and u.running}
        missing = [p for p in self.config.processes if p not in running]
        for process in missing:
            self.systemd.stop([unit_name(process, generation)])
            if not self.systemd.start(unit_name(process, generation)):
                unit = unit_name(process, generation)
                raise Refusal(f"{unit} does not start: {self.last_words(unit)}", journal=self.systemd.journal(unit))
            done.append(f"{unit_name(process, generation)} was started again")
        if GUNICORN in self.config.processes and self.socket_generation() != generation:
            self._point_socket(generation)
            done.append(f"{self.config.socket} was pointed at {generation} again")
        if any(_stray(unit, generation) for unit in units):
            self._stop_other(generation)

    # The verbs

    def activate(self, release: str, actor: str, watch: int = 0, hooks: Hooks | None = None) -> Live:
        """Make a prepared release live, and watch it for so many seconds."""
        if build.read(self.config.release_dir(release)) is None:
            raise Refusal(self._cannot_be_had(release, self.store.read()))
        if release == self.live_release():
            raise Refusal(
                f"{release} is live already, nothing was changed: to start it anew with the settings in force run"
                " 'releasectl restart'."
            )
        self.require_settings(release)
        self.require_memory()
        return self.switch("activate", release, None, actor, watch, hooks)

    def missing_settings(self, release: str) -> list[str]:
        """What a release says that it needs and that is not in force here; a host that runs nothing needs nothing."""
        found = build.read(self.config.release_dir(release))
        wanted = found.settings if found and self.config.processes else []
        return needs.missing(wanted, self.settings.names(self.settings.current())) if wanted else []

    def require_settings(self, release: str) -> None:
        """Refuse a release that would start without what it says that it needs."""
        if gone := self.missing_settings(release):
            raise Refusal(needs.sentence(release, gone))

    def require_memory(self) -> None:
        """Refuse when there is no room for a second generation beside the live one."""
        live = self.store.read().live
        budget.require_memory(self.config, self.systemd, live.generation if live else None)

    def restart(self, actor: str) -> Live:
        """Start the live release as a new generation with the settings in force."""
        live = self.live_release()
        if live is None:
            raise Refusal("No release is live yet: deploy one first (playbooks/deploy.yml).")
        self.require_memory()
        return self.switch("restart", live, None, actor)

    def setup(self) -> str:
        """A fingerprint of the unit files and the launcher: what a generation that starts now runs under."""
        digest = hashlib.sha256()
        for name in self.config.unit_files:
            path = Path(name)
            digest.update(path.read_bytes() if path.is_file() else b"")
            digest.update(b"\0")
        digest.update(self.config.how_it_runs().encode())
        return digest.hexdigest()[:16]

    def settings_changed(self) -> bool:
        """Whether the live generation runs with other settings or unit files than those in force."""
        live = self.store.read().live
        return live is not None and (live.settings != self.settings.current() or live.setup != self.setup())

    def rollback_target(self, release: str | None) -> str:
        """Which release a rollback goes to: the one named, or the last that was live before, by the record."""
        state = self.store.read()
        live = self.live_release()
        if live is None:
            raise Refusal("No release is live yet, so there is nothing to go back from.")
        if release is not None:
            if release == live:
                raise Refusal(f"{release} is live already, nothing was changed; there are: {self._choices(live)}.")
            if build.read(self.config.release_dir(release)) is None:
                raise Refusal(self._cannot_be_had(release, state))
            return release
        have = build.prepared(self.config)
        for candidate in reversed(state.previous):
            if candidate in have and candidate != live:
                return candidate
        raise Refusal(
            f"The record names no earlier release than {live}, nothing was changed; there are: {self._choices(live)}."
        )

    def _choices(self, live: str | None) -> str:
        return ", ".join(r for r in build.prepared(self.config) if r != live) or "no others"

    def _cannot_be_had(self, release: str, state: State) -> str:
        gone = state.gone.get(release)
        if gone is None:
            why = "is not known on this host"
        else:
            why = "was pruned" if gone["how"] == "pruned" else "was refused and removed"
            why += f" at {timestamp(float(str(gone['at'])))} ({gone['why']})"
        return f"{release} {why}; releases that can be had: {self._choices(self.live_release())}."

    def discard(self, release: str, why: str) -> bool:
        """Remove a release that never was live; return whether there was one."""
        state = self.store.read()
        if release == self.live_release() or release in state.previous:
            raise Refusal(f"{release} is or was live: 'releasectl prune' removes old releases, discard does not.")
        existed = self.config.release_dir(release).is_dir()
        if existed:
            # One that was live on trial may be finishing requests, with files that it has not read yet.
            self.systemd.stop(unit.name for unit in self.systemd.units() if unit.generation.release == release)
            state.forget(release, "failed", why)
            self.store.write(state)
            build.remove(self.config, release)
        return existed

    def prune(self, keep: int) -> list[str]:
        """Remove all but the newest ``keep`` releases, never the live or the previous one."""
        state = self.store.read()
        live = self.live_release()
        have = list(build.prepared(self.config))
        # What a rollback goes to, and what still finishes the requests and tasks that it has in hand.
        protected = {live, next((r for r in reversed(state.previous) if r in have and r != live), None)}
        protected |= {unit.generation.release for unit in self.systemd.units()}
        doomed = [r for r in (have[:-keep] if keep else have) if r not in protected]
        for release in doomed:
            state.forget(release, "pruned", f"more than {keep} releases were there")
            state.previous = [r for r in state.previous if r != release]
        if doomed:
            self.store.write(state)
        for release in doomed:
            build.remove(self.config, release)
        return doomed


def _stray(unit: Unit, live: Generation) -> bool:
    """A unit of another generation that is not on its way out."""
    return unit.generation != live and unit.active != "deactivating" and not crew.is_job(unit)
