"""The controls, as data: one file a topic in roles/audit/files/controls/, and what Lynis may suggest, in lynis.yml."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CONTROLS = Path("roles/audit/files/controls")
LYNIS = Path("roles/audit/files/lynis.yml")

STATES = ("done", "off", "na")
FIELDS = {"id", "title", "state", "where", "reason", "check", "break", "also", "level", "needs", "groups"}
# A number of CIS Ubuntu Linux 22.04 LTS Benchmark v1.0.0, or a name of our own.
ID = re.compile(r"[1-6](\.[0-9]{1,2}){1,4}|slipway-[a-z0-9]+(-[a-z0-9]+)*")
# A test of Lynis, or Lynis itself, which speaks of its own age.
LYNIS_ID = re.compile(r"[A-Z]{3,6}-[0-9]{4}|LYNIS")


@dataclass(frozen=True)
class Control:
    """One thing that is as it should be, or is not, or is left out for a reason."""

    topic: str
    id: str
    title: str
    state: str
    where: str = ""
    reason: str = ""
    check: str = ""
    breaks: str = ""
    # Controls that this break violates as well, since they look at the same thing.
    also: tuple[str, ...] = ()
    level: int = 0
    needs: str = ""
    # The groups of hosts that it is about; empty: every host.
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Known:
    """Something that Lynis suggests or warns of, and why it is left as it is."""

    id: str
    reason: str
    # Words that must be in what Lynis says, where one of its tests speaks of many things.
    about: str = ""

    def explains(self, finding: Mapping[str, str]) -> bool:
        said = f"{finding.get('text', '')} {finding.get('details', '')}"
        return finding.get("id") == self.id and self.about.lower() in said.lower()


@dataclass(frozen=True)
class Catalogue:
    controls: list[Control]
    lynis: list[Known]
    # What is wrong with it: one sentence each, the file named.
    problems: list[str] = field(default_factory=list)

    def by_id(self) -> dict[str, Control]:
        return {control.id: control for control in self.controls}


def order(identity: str) -> tuple[Any, ...]:
    """Sorts 1.10 after 1.9, and our own after the benchmark's."""
    if identity[:1].isdigit():
        return (0, [int(part) for part in identity.split(".")], "")
    return (1, [], identity)


def load(root: Path = ROOT) -> Catalogue:
    """Read all of it. What cannot be used is left out and named among the problems."""
    problems: list[str] = []
    controls: list[Control] = []
    seen: dict[str, str] = {}
    for path in sorted((root / CONTROLS).glob("*.yml")):
        place = str(path.relative_to(root))
        for number, entry in enumerate(_list(path, place, problems), 1):
            wrong = list(_wrong(entry, root))
            name = f"{place}: control {entry.get('id', number) if isinstance(entry, dict) else number}"
            if not wrong and entry["id"] in seen:
                wrong = [f"is in {seen[entry['id']]} already"]
            problems += [f"{name} {sentence}." for sentence in wrong]
            if not wrong:
                seen[entry["id"]] = place
                controls.append(_control(path.stem, entry))
    for control in controls:
        problems += [
            f"{CONTROLS}/{control.topic}.yml: control {control.id} says that its break violates {other}, which is none."
            for other in control.also
            if other not in seen
        ]
    controls.sort(key=lambda control: order(control.id))
    return Catalogue(controls, _lynis(root, problems), problems)


def _list(path: Path, place: str, problems: list[str]) -> list[Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        problems.append(f"{place} cannot be read: {' '.join(str(error).split())}.")
        return []
    if content is None:
        return []
    if not isinstance(content, list):
        problems.append(f"{place} is not a list.")
        return []
    return content


def _control(topic: str, entry: Mapping[str, Any]) -> Control:
    return Control(
        topic=topic,
        id=entry["id"],
        title=entry["title"],
        state=entry["state"],
        where=entry.get("where") or "",
        reason=" ".join((entry.get("reason") or "").split()),
        check=(entry.get("check") or "").strip(),
        breaks=(entry.get("break") or "").strip(),
        also=tuple(entry.get("also") or ()),
        level=entry.get("level") or 0,
        needs=entry.get("needs") or "",
        groups=tuple(entry.get("groups") or ()),
    )


def _wrong(entry: Any, root: Path) -> Iterable[str]:
    """What is wrong with one control, as the rest of a sentence."""
    if not isinstance(entry, dict):
        yield "is not a set of fields"
        return
    for name in sorted(set(entry) - FIELDS):
        yield f"has a field '{name}', which nothing reads"
    identity, state = entry.get("id"), entry.get("state")
    if not isinstance(identity, str) or not ID.fullmatch(identity):
        yield 'has no id such as "5.2.7" (quoted) or slipway-settings'
        return
    for name in ("title", "where", "reason", "check", "break", "needs"):
        if name in entry and (not isinstance(entry[name], str) or not entry[name].strip()):
            yield f"has a {name} that is empty or no text"
    for name in ("also", "groups"):
        value = entry.get(name, [])
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            yield f"has {name} that is no list of names"
    if "title" not in entry:
        yield "has no title"
    if state not in STATES:
        yield 'has a state that is none of done, "off" (quoted, since YAML reads off as false), na'
    if entry.get("needs", "kernel") != "kernel":
        yield "needs something other than 'kernel'"
    if entry.get("level", 1) not in (1, 2):
        yield "has a level that is neither 1 nor 2"
    if state == "done":
        yield from (f"is done and has no {name}" for name in ("where", "check") if not entry.get(name))
        if "reason" in entry:
            yield "is done and has a reason, which only what is left out needs"
        if isinstance(entry.get("where"), str) and not _is_place(entry["where"], root):
            yield f"is done in {entry['where']}, which is no role/topic of this repository"
    elif state in STATES:
        if not entry.get("reason"):
            yield f"is '{state}' and has no reason"
        yield from (f"is '{state}' and has a {name}" for name in ("where", "check", "break") if name in entry)


def _is_place(where: str, root: Path) -> bool:
    """role/topic: a task file of that name, or a template or file of the role that begins so."""
    role, _, topic = where.partition("/")
    base = root / "roles" / role
    if not re.fullmatch(r"[a-z_]+/[A-Za-z0-9_.@-]+", where) or not (base / "tasks").is_dir():
        return False
    return (base / "tasks" / f"{topic}.yml").is_file() or any(
        path.name.startswith(topic) for kind in ("templates", "files") for path in (base / kind).glob("*")
    )


def _lynis(root: Path, problems: list[str]) -> list[Known]:
    known: list[Known] = []
    seen = set()
    path = root / LYNIS
    if not path.is_file():
        return []
    for entry in _list(path, str(LYNIS), problems):
        identity = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(identity, str) or not LYNIS_ID.fullmatch(identity):
            problems.append(f"{LYNIS}: {entry!r} has no id such as SSH-7408.")
            continue
        reason, about = entry.get("reason"), entry.get("about", "")
        wrong = sorted(set(entry) - {"id", "about", "reason"})
        if wrong:
            problems.append(f"{LYNIS}: {identity} has a field '{wrong[0]}', which nothing reads.")
        if not isinstance(reason, str) or not reason.strip():
            problems.append(f"{LYNIS}: {identity} has no reason.")
            continue
        if (identity, about) in seen:
            problems.append(f"{LYNIS}: {identity} is there twice for the same.")
        seen.add((identity, about))
        known.append(Known(identity, " ".join(reason.split()), about))
    return sorted(known, key=lambda entry: (entry.id, entry.about))


def refused(exceptions: Any, catalogue: Catalogue) -> list[str]:
    """What is wrong with hardening_exceptions: one sentence each."""
    if not isinstance(exceptions, list):
        return ["hardening_exceptions is not a list of {id, reason}."]
    found, seen = [], set()
    controls = catalogue.by_id()
    for entry in exceptions:
        if not isinstance(entry, Mapping) or set(entry) - {"id", "reason"} or "id" not in entry:
            found.append(f"hardening_exceptions has {entry!r}, which is no {{id, reason}}.")
            continue
        identity, reason = str(entry["id"]), entry.get("reason")
        if identity not in controls and not LYNIS_ID.fullmatch(identity):
            found.append(f"hardening_exceptions names {identity}, which is no control: docs/ops/cis.md lists them.")
        elif identity in controls and controls[identity].state != "done":
            found.append(f"hardening_exceptions names {identity}, which no role does anyway: take it off the list.")
        if not isinstance(reason, str) or not reason.strip():
            found.append(f"hardening_exceptions gives no reason for {identity}: say why it is left out.")
        if identity in seen:
            found.append(f"hardening_exceptions names {identity} twice.")
        seen.add(identity)
    return found


def strangers(only: Iterable[str], catalogue: Catalogue) -> list[str]:
    """What is wrong with audit_only: one sentence each."""
    known = catalogue.by_id()
    return [
        f"audit_only names {one}, which is no control: docs/ops/cis.md lists them." for one in only if one not in known
    ]


def plan(
    catalogue: Catalogue, exceptions: list[Mapping[str, str]], groups: Iterable[str], container_limits: bool,
    only: Iterable[str] = (),
) -> list[dict[str, Any]]:  # fmt: skip
    """What to do about each control (or about those named alone) on a host of these groups.

    `treatment` is check; or off and na (as the catalogue says), elsewhere (it is about other hosts), unseen (it needs
    a kernel of the host's own).
    """
    reasons = {str(entry["id"]): " ".join(str(entry["reason"]).split()) for entry in exceptions}
    mine, chosen = set(groups), set(only)
    planned = []
    for control in catalogue.controls:
        if chosen and control.id not in chosen:
            continue
        treatment = "check" if control.state == "done" else control.state
        if treatment == "check" and control.groups and not mine & set(control.groups):
            treatment = "elsewhere"
        elif treatment == "check" and control.needs == "kernel" and container_limits:
            treatment = "unseen"
        planned.append(
            {
                "id": control.id,
                "title": control.title,
                "topic": control.topic,
                "where": control.where,
                "reason": control.reason,
                "check": control.check,
                "treatment": treatment,
                "exception": reasons.get(control.id, ""),
            }
        )
    return planned
