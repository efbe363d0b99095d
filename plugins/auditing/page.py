"""Writes docs/ops/cis.md from the catalogue, what Lynis may suggest, and the exceptions of each environment.

bin/docs            write it
bin/docs --check    say whether it is stale, and write nothing
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from plugins.auditing import catalogue
from plugins.auditing.catalogue import CONTROLS, LYNIS, ROOT, Catalogue, Control
from plugins.auditing.report import table

PAGE = Path("docs/ops/cis.md")
STATES = {"done": "done", "off": "switched off", "na": "not applicable"}
INTRODUCTION = f"""# What a host is hardened to, control by control

Written by `make docs` from `{CONTROLS}/*.yml`; change it there, not here.

The numbers are those of the CIS Ubuntu Linux 22.04 LTS Benchmark v1.0.0, level 1 for servers unless level 2 is said;
what begins with `slipway-` is our own. Each control is one of three:

- **done**, by the role and topic named. `playbooks/audit_host.yml` asks the host itself for each of them, and
  `site.yml` mends it.
- **switched off**, for the reason given: the benchmark asks for it, and a host of Slipway is better off without.
- **not applicable**, for the reason given: what it speaks of is not on such a host.

K marks a control that needs a kernel of the host's own: on containers it is reported as not seen, never as passed, and
`make vm-test` looks at it in a virtual machine.
"""
EXCEPTIONS = """## Exceptions

What an environment is left without on purpose is listed in `hardening_exceptions`, each with its reason, in
`group_vars/<environment>/` (or for all in `group_vars/all/`):

```yaml
hardening_exceptions:
  - {id: "5.2.7", reason: the old backup logs in as root until March (ticket OPS-311)}
```

`audit_host.yml` then says "excepted" and the reason in place of a failure. It refuses an exception that names no
control, or gives no reason, before a host is looked at. To list one switches nothing off: the role's own variables do
that.
"""


class _Loader(yaml.SafeLoader):
    """Reads our own YAML for its structure only; tags such as !vault stay opaque."""


_Loader.add_multi_constructor("!", lambda *_: None)


def exceptions(root: Path) -> list[tuple[str, str, str]]:
    """(file, id, reason) of every exception that the repository's variables hold."""
    found = []
    for path in sorted([*(root / "group_vars").rglob("*.yml"), *(root / "host_vars").rglob("*.yml")]):
        content = yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506
        listed = content.get("hardening_exceptions") if isinstance(content, Mapping) else None
        for entry in listed or []:
            found.append((str(path.relative_to(root)), str(entry.get("id")), str(entry.get("reason"))))
    return found


def place(where: str) -> str:
    """A link to what does it."""
    role, _, topic = where.partition("/")
    path = f"roles/{role}/tasks/{topic}.yml"
    return f"[{where}](../../{path})" if (ROOT / path).is_file() else f"[{where}](../../roles/{role}/)"


def row(control: Control) -> tuple[Any, ...]:
    marks = ", ".join(mark for mark in ("K" if control.needs else "", "level 2" if control.level == 2 else "") if mark)
    told = place(control.where) if control.state == "done" else control.reason
    if control.groups:
        told += f" (hosts of {', '.join(control.groups)})"
    return control.id, control.title, STATES[control.state], told, marks


def topics(controls: Iterable[Control]) -> dict[str, list[Control]]:
    """By topic, in the order of each topic's first control."""
    found: dict[str, list[Control]] = {}
    for control in controls:
        found.setdefault(control.topic, []).append(control)
    return found


def write(known: Catalogue, listed: list[tuple[str, str, str]]) -> str:
    lines = [INTRODUCTION]
    states = [control.state for control in known.controls]
    lines += table(("state", "controls"), [(STATES[state], states.count(state)) for state in STATES])
    for topic, controls in topics(known.controls).items():
        lines += [f"## {topic}", ""]
        lines += table(("control", "title", "state", "where, or why not", ""), [row(control) for control in controls])
    lines += [EXCEPTIONS]
    if listed:
        lines += table(("set in", "control", "reason"), listed)
    else:
        lines += ["No environment of this repository has an exception.", ""]
    lines += [
        "## What Lynis suggests and is left as it is",
        "",
        f"From `{LYNIS}`. Whatever Lynis suggests or warns of beyond this fails the audit",
        "(`audit_lynis_unknown_fails`).",
        "",
    ]
    lines += table(
        ("test", "about", "left as it is, for"), [(one.id, one.about or "all", one.reason) for one in known.lynis]
    )
    return "\n".join(lines).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only say whether it is stale")
    options = parser.parse_args()
    known = catalogue.load()
    for problem in known.problems:
        print(problem, file=sys.stderr)
    if known.problems:
        return 1
    text = write(known, exceptions(ROOT))
    if (ROOT / PAGE).is_file() and (ROOT / PAGE).read_text() == text:
        return 0
    if options.check:
        print(f"{PAGE} is stale: run `make docs`.", file=sys.stderr)
        return 1
    (ROOT / PAGE).write_text(text)
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
