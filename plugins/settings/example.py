"""Print a .env.example made of the schema of the app's settings, for the app's own repository.

bin/env-example > ../shop/.env.example                       from group_vars/all/settings.yml
bin/env-example group_vars/lab/settings.yml --check FILE     says whether FILE is what it would print
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import yaml

from plugins.settings import schema

ROOT = Path(__file__).resolve().parents[2]

USUAL = "group_vars/all/settings.yml"


def example(settings: Iterable[schema.Setting], command: str) -> str:
    """The schema as a `.env.example`: each name with what it is; what is secret stays empty."""
    lines = [f"# Written by `{command}` from app_settings_schema: change it there, and run that again."]
    for setting in settings:
        notes = []
        if setting.means:
            notes.append(setting.means)
        if setting.secret:
            notes.append("secret")
        if set(setting.required) == set(schema.ENVIRONMENTS):
            notes.append("required")
        elif setting.required:
            notes.append(f"required in {' and '.join(setting.required)}")
        tail = f" ({'; '.join(notes)})" if notes else ""
        value = setting.example or setting.default or ""
        # What may be left out is left out: set and empty is not the same.
        mark = "" if setting.required or value else "#"
        lines += ["", f"# {setting.description}{tail}", f"{mark}{setting.name}={_quoted(value)}"]
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    """As a shell, docker and dotenv read it."""
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]*", value):
        return value
    return "'" + value.replace("'", "'\\''") + "'"


def made(path: Path, given: str) -> str:
    found = (yaml.safe_load(path.read_text()) or {}).get("app_settings_schema") if path.is_file() else None
    if not found:
        raise schema.Misread([f"{given} has no app_settings_schema: docs/ops/settings.md says how one is written."])
    command = "bin/env-example" if given == USUAL else f"bin/env-example {given}"
    return example(schema.parse(found), command)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bin/env-example", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?", default=USUAL, help=f"where the schema is (default: {USUAL})")
    parser.add_argument("--check", type=Path, metavar="FILE", help="print nothing, and fail when FILE is another")
    given = parser.parse_args()
    try:
        text = made(ROOT / given.file, given.file)
        if given.check and given.check.read_text() != text:
            command = f"bin/env-example {given.file} > {given.check}"
            raise schema.Misread([f"{given.check} is not what the schema says: {command}"])
    except schema.Misread as misread:
        print("\n".join(f"env-example: {problem}" for problem in misread.problems), file=sys.stderr)
        return 1
    except (OSError, yaml.YAMLError) as error:
        print(f"env-example: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    if not given.check:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
