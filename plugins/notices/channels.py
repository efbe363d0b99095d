"""Where a deploy or a rollback is told: the variable release_notices, held against what each kind needs."""

from __future__ import annotations

import difflib
import re
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

OUTCOMES = ("success", "failure")
# What each kind takes, and of that what it needs.
KEYS = {
    "webhook": ({"url", "ca_certificate"}, {"url"}),
    "slack": ({"url", "ca_certificate"}, {"url"}),
    "teams": ({"url", "ca_certificate"}, {"url"}),
    "mail": (
        {"to", "from", "server", "port", "starttls", "username", "password", "ca_certificate"},
        {"to", "from", "server"},
    ),
}
ALWAYS = {"kind", "on"}
ADDRESS = re.compile(r"[^@\s<>,;\x00-\x1f\x7f]{1,64}@[A-Za-z0-9.-]{1,253}")
SERVER = re.compile(r"[A-Za-z0-9.:-]{1,253}")
TLS_PORT = 465  # where TLS comes before the first word, RFC 8314
SUBMISSION_PORT = 587


@dataclass(frozen=True)
class Channel:
    """One place to tell. ``url`` and ``password`` are secrets, and in nothing that is printed."""

    place: str
    kind: str
    on: tuple[str, ...] = OUTCOMES
    url: str = field(default="", repr=False)
    ca_certificate: str = ""
    to: tuple[str, ...] = ()
    sender: str = ""
    server: str = ""
    port: int = SUBMISSION_PORT
    starttls: bool = True
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def label(self) -> str:
        """What it is called in a sentence."""
        return f"{self.kind} ({self.place})"


class Wrong(Exception):
    """An entry cannot be meant; the text is a sentence's end, and holds none of its values."""


def parse(given: Any) -> tuple[list[Channel], list[str]]:
    """The places to tell, and a sentence for each entry that is none."""
    if given in (None, ""):
        return [], []
    if isinstance(given, (str, bytes, Mapping)) or not isinstance(given, Iterable):
        return [], ["release_notices is no list: give it one entry for each place, as docs/ops/notices.md shows."]
    channels, problems = [], []
    for number, entry in enumerate(given):
        place = f"release_notices[{number}]"
        try:
            channels.append(_channel(place, entry))
        except Wrong as wrong:
            kind = entry.get("kind") if isinstance(entry, Mapping) else None
            shown = f"{place} ({kind})" if isinstance(kind, str) and kind in KEYS else place
            problems.append(f"{shown} {wrong}.")
    return channels, problems


def _channel(place: str, given: Any) -> Channel:
    if not isinstance(given, Mapping):
        raise Wrong("is no entry with keys: give it kind, and what that kind needs (docs/ops/notices.md)")
    # YAML reads the bare key `on` as true.
    entry = {"on" if key is True else str(key): value for key, value in given.items()}
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in KEYS:
        raise Wrong(f"has no kind that there is{_near(kind, KEYS)}: there are {', '.join(KEYS)}")
    known, needed = KEYS[kind]
    for key in entry:
        if key not in known | ALWAYS:
            raise Wrong(f"has the key {key[:40]!r}, which {kind} does not take{_near(key, known | ALWAYS)}")
    for key in sorted(needed):
        if entry.get(key) in (None, "", []):
            raise Wrong(f"has no {key}, which {kind} needs")
    common: dict[str, Any] = {
        "place": place,
        "kind": kind,
        "on": _outcomes(entry.get("on")),
        "ca_certificate": _authority(entry),
    }
    return Channel(**common, **(_mail(entry) if kind == "mail" else {"url": _url(entry["url"])}))


def _near(word: Any, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, sorted(known), 1, 0.6) if isinstance(word, str) else []
    return f" (did you mean {found[0]}?)" if found else ""


def _outcomes(given: Any) -> tuple[str, ...]:
    if given is None:
        return OUTCOMES
    found = [given] if isinstance(given, str) else given
    if not isinstance(found, (list, tuple)) or not found or any(one not in OUTCOMES for one in found):
        raise Wrong(f"has something else under 'on' than a list of {' and '.join(OUTCOMES)}")
    return tuple(str(one) for one in found)


def _authority(entry: Mapping[str, Any]) -> str:
    pem = entry.get("ca_certificate") or ""
    if pem:
        try:
            ssl.create_default_context(cadata=str(pem))
        except (ssl.SSLError, ValueError):
            raise Wrong("has a ca_certificate that is none (PEM)") from None
    return str(pem)


def _url(given: Any) -> str:
    url = str(given).strip()
    try:
        parts = urlsplit(url)
        good = parts.scheme == "https" and bool(parts.hostname) and (parts.port or 443) > 0 and "@" not in parts.netloc
    except ValueError:
        good = False
    if not good or not re.fullmatch(r"[!-~]+", url):
        raise Wrong("has a url that is no https address such as https://hooks.example.com/services/T0/B0")
    return url


def _mail(entry: Mapping[str, Any]) -> dict[str, Any]:
    to = entry["to"] if isinstance(entry["to"], (list, tuple)) else [entry["to"]]
    for name, address in (*(("to", one) for one in to), ("from", entry["from"])):
        if not isinstance(address, str) or not ADDRESS.fullmatch(address):
            raise Wrong(f"has something under {name!r} that is no mail address such as ops@example.com")
    if not SERVER.fullmatch(str(entry["server"])):
        raise Wrong("has a server that is no name or address")
    port, starttls = entry.get("port", SUBMISSION_PORT), entry.get("starttls", True)
    if isinstance(port, bool) or not str(port).isdigit() or not 1 <= int(port) <= 65535:
        raise Wrong("has a port that is no number from 1 to 65535")
    if not isinstance(starttls, bool):
        raise Wrong("has something else under starttls than true or false")
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if bool(username) != bool(password):
        raise Wrong("has one of username and password without the other")
    if password and not starttls and int(port) != TLS_PORT:
        raise Wrong("would send its password in the clear: leave starttls out")
    return {
        "to": tuple(str(one) for one in to), "sender": str(entry["from"]), "server": str(entry["server"]),
        "port": int(port), "starttls": starttls, "username": username, "password": password,
    }  # fmt: skip


def check(given: Any, seconds: Any, repository: Any) -> list[str]:
    """A sentence for each of the variables that cannot be meant."""
    problems = parse(given)[1]
    try:
        good = 1 <= float(seconds) <= 60
    except (TypeError, ValueError):
        good = False
    if not good:
        problems.append("release_notices_timeout is no number of seconds from 1 to 60.")
    if repository and not re.fullmatch(r"https?://[!-~]+", str(repository)):
        problems.append(
            "release_repository_url is no address such as https://github.com/me/app: it is what compare/a...b follows."
        )
    return problems
