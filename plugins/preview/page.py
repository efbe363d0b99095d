"""A deploy that was not done, as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from plugins.preview import commits, standin
from plugins.preview.contents import Contents
from releasectl import migrations, needs, requirements
from releasectl.hooks import POINTS
from releasectl.migrations import HARMFUL, Malformed, Record, listed
from releasectl.preview import versions

MEBIBYTE = 2**20
MARGIN = 15
KINDS = ("added", "removed", "changed")


@dataclass(frozen=True)
class Plan:
    """What was asked for, and the bounds that hold; sizes in bytes."""

    release: str
    contents: Contents
    # Whether requirements without hashes are installed (app_requirements_unhashed).
    unhashed: bool = False
    maintenance: str = "auto"
    restore_point: str = "auto"
    big_rows: int = 1_000_000
    most_bytes: int = 1 << 30
    most_entries: int = 50_000
    free_min_bytes: int = 0
    # With it there are no contents to speak of: they are in the registry.
    image: str = ""


@dataclass
class Preview:
    """The lines, the sentence, and why it would be refused."""

    lines: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    closing: str = ""

    def tell(self, title: str, text: str, *below: str) -> None:
        """One paragraph."""
        self.lines.append(f"{title:<{MARGIN}}{text}")
        self.lines += [f"{'':<{MARGIN}}{line}" for line in below]


def make(plan: Plan, hosts: Mapping[str, Mapping[str, Any]], done: commits.Commits) -> Preview:
    """Put it together from what was read here and what each host answered."""
    page = Preview()
    live = sorted({str(said["live"]) for said in hosts.values() if said.get("live")})
    _commits(page, plan, live, done)
    pending: list[Record] = []
    if plan.image:
        _image(page, plan)
    else:
        pending = _migrations(page, plan, hosts)
        _requirements(page, plan, hosts)
        _bounds(page, plan)
    harmful = [item for item in pending if migrations.harms(item, plan.big_rows)]
    _settings(page, plan, hosts)
    closes = _maintenance(page, plan, hosts, harmful)
    _restore_point(page, plan, hosts, pending)
    if plan.contents.hooks:
        page.tell("hooks", ", ".join(sorted(plan.contents.hooks)))
    for name, said in hosts.items():
        _host(page, plan, name, said)
    page.refused += [f"{name}: {why}" for name, said in hosts.items() for why in said.get("refused") or []]
    where = ", ".join(hosts)
    if page.refused:
        page.closing = f"{plan.release} would be refused. {' '.join(page.refused)} Nothing was done (check mode)."
    else:
        instead = f"in place of {' and '.join(live)}" if live else "as the first release"
        site = f"the site {'is closed meanwhile' if closes else 'stays open'}"
        done_to_it = f"{_count(len(pending), 'migration')}, {site}"
        if plan.image:
            done_to_it = site if closes else "its migrations are not known before it is pulled"
        page.closing = (
            f"{plan.release} would go live on {where} {instead}: {done_to_it}. Nothing was done (check mode)."
        )
    return page


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"


def _commits(page: Preview, plan: Plan, live: Sequence[str], done: commits.Commits) -> None:
    if not live:
        page.tell("commits", f"{plan.contents.revision[:12] or 'not known'}; nothing is live yet")
        return
    if done.why:
        page.tell("commits", f"not known: {done.why}")
        return
    shown = [*done.new[: commits.MOST], *(["…"] if len(done.new) > commits.MOST else [])]
    more = "more than " if len(done.new) > commits.MOST else ""
    page.tell("commits", f"{more}{_count(min(len(done.new), commits.MOST), 'commit')} since {live[0]}", *shown)
    if done.gone:
        page.tell("taken back", "what is live has these, and the new release does not", *done.gone[: commits.MOST])


def records(sources: Mapping[str, str]) -> tuple[list[Record], list[str]]:
    """What the lint makes of the sources, and the names of those that no migration can have."""
    found, strange = [], []
    for raw in standin.judge(dict(sources)):
        try:
            found.append(migrations.record(raw))
        except Malformed:
            strange.append(str(raw["name"]))
    return found, strange


def _migrations(page: Preview, plan: Plan, hosts: Mapping[str, Mapping[str, Any]]) -> list[Record]:
    known, strange = records(plan.contents.migrations)
    records_of_hosts = [said["applied"] for said in hosts.values() if said.get("processes")]
    told = [set(names) for names in records_of_hosts if names is not None]
    # The host that migrates knows best, and it is one of those that know most.
    pending = migrations.judged(standin.pending(known, max(told, key=len, default=set())))
    serving = any(said.get("live") for said in hosts.values())
    if not serving:
        page.tell("migrations", f"all of {len(known)} in the artifact; nothing is live that they could break")
        return [item for item in pending if not serving and item.level not in (*HARMFUL, "locks")]
    if not told:
        page.tell("migrations", f"{len(known)} in the artifact; which the database has is not recorded on these hosts")
        return []
    below = [_migration(item) for item in pending]
    page.tell("migrations", f"{_count(len(pending), 'migration')} of the artifact would be applied", *below)
    if strange:
        page.tell("", f"not judged: {listed(strange)}")
    return pending


def _migration(item: Record) -> str:
    what = f"marked {item.mark}" if item.mark else "; ".join(f.what for f in item.findings if f.level == item.level)
    if item.level == "locks":
        what += " (how many rows that is, is asked when it deploys)"
    return f"{item.name:<32} {item.level:<13} {what[:200]}".rstrip()


def _image(page: Preview, plan: Plan) -> None:
    page.tell(
        "image",
        plan.image,
        "not known before it is pulled: its command, settings, migrations, packages and hooks;",
        "'prepare' refuses what does not fit, 'migrate' what would break the release that runs",
    )


def _requirements(page: Preview, plan: Plan, hosts: Mapping[str, Mapping[str, Any]]) -> None:
    text, name = plan.contents.requirements, plan.contents.requirements_file
    if text is None:
        page.refused.append(requirements.missing(name))
        return
    if requirements.kind(name, text) == "listed":
        if not plan.unhashed:
            page.refused.append(requirements.unhashed(name))
            return
        page.tell("requirements", f"{name} has no hashes: what the index has at that moment")
        return
    new = versions(text)
    old = next((said["requirements"] for said in hosts.values() if said.get("requirements") is not None), None)
    if old is None:
        page.tell("requirements", f"{_count(len(new), 'package')}; there is nothing live to compare them with")
        return
    below = [f"{name} {old[name]} -> {new[name]}" for name in sorted(set(old) & set(new)) if old[name] != new[name]]
    below += [f"{name} {new[name]} comes" for name in sorted(set(new) - set(old))]
    below += [f"{name} {old[name]} goes" for name in sorted(set(old) - set(new))]
    page.tell("requirements", f"{_count(len(below), 'change')} in {len(new)} packages", *below)
    if below:
        page.tell("", "migrations that packages bring along are seen when it is built")


def _settings(page: Preview, plan: Plan, hosts: Mapping[str, Mapping[str, Any]]) -> None:
    told = {name: said.get("settings") or {} for name, said in hosts.items()}
    found = {kind: {str(n) for one in told.values() for n in one.get(kind) or []} for kind in KINDS}
    below = [f"{kind}: {', '.join(sorted(known))}" for kind, known in found.items() if known]
    page.tell("settings", "differ from those that the live release started with" if below else "no change", *below)
    if plan.contents.settings:
        page.tell("", f"it needs: {', '.join(plan.contents.settings)}")
    for name, one in told.items():
        if one.get("waiting"):
            page.tell("", f"{name}: {one['waiting']} was delivered and is not in force: a deploy leaves it alone")
    runs = {name: one["names"] for name, one in told.items() if hosts[name].get("processes") and "names" in one}
    gone = {name: missing for name, have in runs.items() if (missing := needs.missing(plan.contents.settings, have))}
    if gone:
        names = list(dict.fromkeys(name for missing in gone.values() for name in missing))
        page.refused.append(needs.sentence(plan.release, names, f"on {', '.join(gone)}"))


def _maintenance(page: Preview, plan: Plan, hosts: Mapping[str, Mapping[str, Any]], harmful: Sequence[Record]) -> bool:
    serving = any(said.get("live") for said in hosts.values())
    if serving and harmful and plan.maintenance == "never":
        page.refused.append(
            f"What runs would break by {listed(item.told() for item in harmful)}, and release_maintenance is 'never'."
        )
    closes = serving and (plan.maintenance == "always" or (plan.maintenance == "auto" and bool(harmful)))
    why = "release_maintenance is 'always'" if plan.maintenance == "always" else listed(i.told() for i in harmful)
    stays = "the site stays open" + (" unless its migrations want it closed" if plan.image and not closes else "")
    page.tell("maintenance", f"the site would be closed: {why}" if closes else stays)
    return closes


def _restore_point(
    page: Preview, plan: Plan, hosts: Mapping[str, Mapping[str, Any]], pending: Sequence[Record]
) -> None:
    lossy = [item for item in pending if any(found.level == "destructive" for found in item.findings)]
    if not lossy and (plan.restore_point != "always" or not pending):
        return
    told = listed(item.told() for item in lossy) or "the migrations"
    if plan.restore_point == "never":
        page.tell("restore point", f"none would be made before {told}: release_restore_point is 'never'")
    elif any(said.get("restore_points") for said in hosts.values()):
        page.tell("restore point", f"one would be made before {told}")
    else:
        page.refused.append(
            f"A restore point would be made before {told}, and no place for them is set: set"
            " release_restore_point_target (docs/ops/restore.md), or -e release_restore_point=never."
        )


def _host(page: Preview, plan: Plan, name: str, said: Mapping[str, Any]) -> None:
    processes = said.get("processes") or []
    doing = f"starts {', '.join(processes)} anew, beside those of {said['live']}" if said.get("live") else "starts it"
    page.tell(name, doing if processes else "has its static files, and restarts nothing")
    if said.get("prepared"):
        page.tell("", "the release is there already")
    for disk in said.get("disks") or []:
        needed, free = (-(-int(disk[key]) // MEBIBYTE) for key in ("needed", "free"))
        left = plan.free_min_bytes // MEBIBYTE
        page.tell("", f"disk: about {needed} of {free} MiB free at {disk['paths'][0]}, {left} MiB have to be left")
    if memory := said.get("memory"):
        needed, free = (-(-int(memory[key]) // MEBIBYTE) for key in ("needed", "available"))
        page.tell("", f"memory: about {needed} of {free} MiB available while two generations run")
    if closed := said.get("closed"):
        page.tell("", f"the site is closed by {closed.get('by')}: {closed.get('because')}")
    for line in said.get("drift") or []:
        page.tell("", f"drift, settled first: {line}")


def _bounds(page: Preview, plan: Plan) -> None:
    contents = plan.contents
    for what, found, bound, name in (
        ("bytes", contents.bytes, plan.most_bytes, "release_unpacked_max_bytes"),
        ("entries", contents.entries, plan.most_entries, "release_unpacked_max_entries"),
    ):
        if found > bound:
            page.refused.append(f"The artifact has {found} {what}, more than {name} ({bound}).")
    for strange in sorted(set(contents.hooks) - set(POINTS)):
        page.refused.append(f"The artifact's hook {strange[:60]!r} is none: there are {', '.join(POINTS)}.")
