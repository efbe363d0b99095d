"""Smoke tests as data: what a release is asked, and how its answer is judged.

Used on the host, on a new generation's own socket, and on the machine that deploys, by the plugins `release_check` (is
the list one?) and `edge_check` (through the public edge).
"""

from __future__ import annotations

import difflib
import http.client
import json as json_text
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .errors import Refusal
from .names import shorten

MOST = 50  # tests in a list
LONGEST = 60.0  # seconds that one may take
BODY_MAX = 1 << 20  # bytes of an answer that are looked at
METHODS = ("GET", "HEAD", "POST", "OPTIONS")
PLACES = ("both", "socket", "edge")
WHERE = "correct it in group_vars/<environment>/release.yml"

PATH = re.compile(r"/[\x21-\x7e]{0,1999}")
TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
LINE = re.compile(r"[\x20-\x7e]{0,2000}")
# What the one who asks has to say itself.
OURS = ("host", "connection", "content-length", "transfer-encoding")


@dataclass(frozen=True)
class SmokeTest:
    """One question and what its answer must be; ``within`` is in seconds, ``at`` one of `PLACES`."""

    path: str
    method: str = "GET"
    status: tuple[int, ...] = (200,)
    contains: str = ""
    json: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str | None] = field(default_factory=dict)
    within: float = 10.0
    body: str = ""
    request_headers: Mapping[str, str] = field(default_factory=dict)
    at: str = "both"

    @property
    def name(self) -> str:
        """As sentences call it."""
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Answer:
    """What came: names of ``headers`` in lower case, of the body at most `BODY_MAX` bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes


# From a list in YAML or JSON to tests


def _is_status(value: object) -> bool:
    some = value if isinstance(value, list) else [value]
    return bool(some) and all(isinstance(v, int) and not isinstance(v, bool) and 100 <= v <= 599 for v in some)


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_request_header(name: object, value: object) -> bool:
    named = isinstance(name, str) and TOKEN.fullmatch(name) is not None and name.lower() not in OURS
    return named and isinstance(value, str) and LINE.fullmatch(value) is not None


def _is_seconds(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST


# Each key of a test: what its value has to be, for the program and for a person.
KEYS: dict[str, tuple[Callable[[object], bool], str]] = {
    "path": (
        lambda v: isinstance(v, str) and PATH.fullmatch(v) is not None,
        "a path: it begins with / and has no blanks",
    ),
    "method": (lambda v: v in METHODS, "GET, HEAD, POST or OPTIONS"),
    "status": (_is_status, "a status from 100 to 599, or a list of them"),
    "contains": (lambda v: isinstance(v, str) and v != "", "a text that the body must hold"),
    "json": (
        lambda v: isinstance(v, dict) and bool(v) and all(isinstance(k, str) and _is_plain(w) for k, w in v.items()),
        "a mapping of dotted paths (database.status, items.0.id) to texts, numbers, true, false or null",
    ),
    "headers": (
        lambda v: (
            isinstance(v, dict) and all(isinstance(k, str) and (w is None or isinstance(w, str)) for k, w in v.items())
        ),
        "a mapping of names to the text that the header must hold, null for one that must not be there",
    ),
    "within": (_is_seconds, f"a number of seconds above 0, up to {LONGEST:g}"),
    "body": (lambda v: isinstance(v, str), "a text"),
    "request_headers": (
        lambda v: isinstance(v, dict) and all(_is_request_header(name, text) for name, text in v.items()),
        f"a mapping of names to texts, without {', '.join(OURS)}",
    ),
    "at": (lambda v: v in PLACES, "both, socket or edge"),
}


def parse(raw: object) -> tuple[SmokeTest, ...]:
    """Make tests of a list of mappings; what cannot be meant is refused by entry and key."""
    if not isinstance(raw, list):
        raise Refusal(f"release_smoke_tests is no list: {WHERE}.")
    if len(raw) > MOST:
        raise Refusal(f"release_smoke_tests has {len(raw)} entries, more than {MOST}: {WHERE}.")
    return tuple(_parse_one(entry, f"Entry {number} of release_smoke_tests") for number, entry in enumerate(raw, 1))


def _parse_one(entry: object, place: str) -> SmokeTest:
    if not isinstance(entry, dict):
        raise Refusal(f"{place} is no mapping with a path: {WHERE}.")
    if isinstance(entry.get("path"), str):
        place += f" ({shorten(entry['path'])})"
    for key, value in entry.items():
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KEYS)}."
            raise Refusal(f"{place} has the key {shorten(str(key))}, which is none: {hint}")
        good, meaning = KEYS[key]
        if not good(value):
            raise Refusal(f"{place}: {key} is {shorten(str(value))}, not {meaning}: {WHERE}.")
    if "path" not in entry:
        raise Refusal(f"{place} has no path: {WHERE}.")
    values = dict(entry)
    if "status" in values:
        values["status"] = tuple(values["status"] if isinstance(values["status"], list) else [values["status"]])
    test = SmokeTest(**values)
    if test.method == "HEAD" and (test.contains or test.json):
        raise Refusal(f"{place} asks with HEAD, whose answer has no body, for what a body holds: {WHERE}.")
    if test.body and test.method != "POST":
        raise Refusal(f"{place} has a body, which {test.method} does not send: {WHERE}.")
    return test


# Asking and judging


def fetch(connection: http.client.HTTPConnection, test: SmokeTest, headers: Mapping[str, str]) -> Answer:
    """Ask over a new connection. Raises OSError and HTTPException; a TimeoutError when it was not whole ``within``."""
    deadline = time.monotonic() + test.within
    try:
        connection.connect()
        sock = connection.sock
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        said = {**headers, **test.request_headers, "Connection": "close"}
        connection.request(test.method, test.path, body=test.body.encode() or None, headers=said)
        response = connection.getresponse()
        body = b""
        while len(body) < BODY_MAX:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            sock.settimeout(remaining)
            piece = response.read1(min(BODY_MAX - len(body), 1 << 16))
            if not piece:
                break
            body += piece
        if time.monotonic() > deadline:
            raise TimeoutError
        found: dict[str, str] = {}
        for name, value in response.getheaders():
            found[name.lower()] = f"{found[name.lower()]}, {value}" if name.lower() in found else value
        return Answer(response.status, found, body)
    finally:
        connection.close()


def trouble(error: Exception, test: SmokeTest) -> str:
    """What is wrong when no answer came, as the end of a sentence."""
    if isinstance(error, TimeoutError):
        return f"did not answer within {test.within:.3g} s"
    if isinstance(error, OSError):
        return f"cannot be asked ({error.strerror or repr(error)})"
    return f"did not speak HTTP ({type(error).__name__})"


def judge(test: SmokeTest, answer: Answer) -> str:
    """What is wrong with an answer, as the end of a sentence; nothing when it is as it should be."""
    text = answer.body.decode(errors="replace")
    said = " ".join(text.split())
    excerpt = f"; it said {shorten(said, 160)}" if said else ""
    if answer.status not in test.status:
        wanted_status = " or ".join(str(status) for status in test.status) if len(test.status) < 10 else "below 500"
        return f"answered {answer.status}, not {wanted_status}{excerpt}"
    for name, wanted in test.headers.items():
        found = answer.headers.get(name.lower())
        if wanted is None and found is not None:
            return f"answered with the header {name}, which must not be there ({shorten(found)})"
        if wanted is not None and found is None:
            return f"answered without the header {name}"
        if wanted is not None and found is not None and wanted not in found:
            return f"answered with {name}: {shorten(found)}, which does not hold {shorten(wanted)}"
    if test.contains and test.contains not in text:
        return f"answered without {shorten(test.contains)}{excerpt or '; its body is empty'}"
    return _judge_json(test, text, excerpt) if test.json else ""


def _judge_json(test: SmokeTest, text: str, excerpt: str) -> str:
    try:
        whole = json_text.loads(text)
    except (ValueError, RecursionError):
        return f"answered what is no JSON{excerpt}"
    for path, wanted in test.json.items():
        found = whole
        for step in path.split("."):
            if isinstance(found, dict) and step in found:
                found = found[step]
            elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
                found = found[int(step)]
            else:
                return f"answered JSON without {shorten(path)}{excerpt}"
        # To Python, true is 1.
        if found != wanted or isinstance(found, bool) != isinstance(wanted, bool):
            return f"answered JSON with {shorten(path)} {_shown(found)}, not {_shown(wanted)}"
    return ""


def _shown(value: object) -> str:
    return shorten(json_text.dumps(value))[1:-1]
