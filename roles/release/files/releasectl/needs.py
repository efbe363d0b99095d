"""Which settings a release cannot do without: `.slipway/settings` in its code, a name a line, `#` before a remark.

It is the app's word, and optional. Names alone: a deployer reads none of the values.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from .errors import Refusal
from .names import shorten

FILE = Path(".slipway/settings")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
MOST = 64 * 1024  # bytes of the file
COMMAND = "ansible-playbook -i inventories/<environment> playbooks/settings.yml"


def parse(text: str) -> list[str]:
    """The names in the file's text, each once and in their order; refuse a line that is none."""
    found: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        word = line.partition("#")[0].strip()
        if word and not NAME.fullmatch(word):
            # A value may have been written there by mistake: no word of it is repeated.
            raise Refusal(
                f"Line {number} of the app's {FILE} is no name of a setting: give one name a line, without a value."
            )
        if word:
            found[word] = None
    return list(found)


def of(source: Path) -> list[str]:
    """Those of the code at ``source``; none where it has no such file. Links are not followed."""
    try:
        descriptor = os.open(source / FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Refusal(f"The app's {FILE} cannot be read ({error.strerror}): put a plain file there.") from None
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refusal(f"The app's {FILE} is no plain file: put one there, with a name a line.")
        raw = stream.read(MOST + 1)
    if len(raw) > MOST:
        raise Refusal(f"The app's {FILE} is larger than {MOST} bytes: it is for names alone.")
    return parse(raw.decode(errors="replace"))


def missing(wanted: Iterable[str], names: Iterable[str]) -> list[str]:
    """Which of ``wanted`` are not among ``names``."""
    have = set(names)
    return [name for name in wanted if name not in have]


def sentence(release: str, names: list[str], where: str = "on this host") -> str:
    """What is missing, where that is said, and what to run."""
    shown = ", ".join(shorten(name)[1:-1] for name in names)
    noun, verb, them = ("setting", "is", "it") if len(names) == 1 else ("settings", "are", "them")
    return (
        f"{release} needs the {noun} {shown} ({FILE}), which {verb} not in force {where}: have an operator add {them}"
        f" to app_settings and run '{COMMAND}', then deploy again; nothing was changed."
    )
