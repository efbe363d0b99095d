"""Refuse clear text: no secret is in a file that git has, and files of secrets are encrypted.

bin/no-secrets                    every tracked file, as it is now
bin/no-secrets --staged           what the next commit adds or changes (the pre-commit hook)
bin/no-secrets --commits A..B     every version of a file that those commits brought (CI, for a pull request)

One sentence for each finding, and never its value. Ends with 0 where there is none, with 1 where there is one, with 2
where it could not look. What looks like a secret and is none stands in .no-secrets.yml.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from plugins.leaks import allowed, contents, encrypted, kinds


def look(files: Iterable[tuple[str, str]], root: Path, whole: bool) -> list[str]:
    """A sentence for each finding; where the ``whole`` repository was looked at, for each entry of no use as well."""
    known = allowed.entries(root)
    findings: list[kinds.Finding] = []
    for path, text in files:
        findings += [*encrypted.problems(path, text), *kinds.found(path, text)]
    remaining, unused = allowed.left(findings, known)
    said = [finding.sentence() for finding in sorted(remaining, key=lambda one: (one.path, one.line))]
    if whole:
        said += [
            f"{allowed.FILE}: the entry of kind {entry.kind} for {', '.join(entry.files)} allows nothing that is there:"
            " take it out."
            for entry in unused
        ]
    return list(dict.fromkeys(said))


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "bin/no-secrets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--staged", action="store_true", help="what the next commit adds or changes")
    which.add_argument("--commits", metavar="A..B", help="what these commits brought")
    given = parser.parse_args(words)
    try:
        root = contents.root_of(Path.cwd())
        if given.staged:
            files = contents.staged(root)
        elif given.commits:
            files = contents.brought(root, given.commits)
        else:
            files = contents.tracked(root)
        said = look(files, root, whole=not (given.staged or given.commits))
    except (contents.Refused, allowed.Misread) as refused:
        print(f"no-secrets: {refused}", file=sys.stderr)
        return 2
    for sentence in said:
        # A name of a file may be no text.
        print(sentence.encode(errors="backslashreplace").decode())
    if said:
        print(f"no-secrets: {len(said)} finding{'s'[: len(said) != 1]}.")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
