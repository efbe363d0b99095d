"""Hold what the edge is told to be against what a system has, and say which snippet nginx refuses."""

from __future__ import annotations

DOCUMENTATION = r"""
module: check_edge
short_description: Check what nginx would only refuse later, or would not refuse
description:
  - Runs on the controller and connects to nothing. Each problem is one sentence that says where the variable is set.
  - With I(refused), the words of C(nginx -t), it fails and names the snippet that they are about.
options:
  refused:
    description: What nginx said.
    type: str
  parts:
    description: The directory that snippets were put into.
    type: str
"""

import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

HERE = "set in group_vars/<environment>/nginx.yml"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
# Where nginx.conf or ModSecurity's rules would read more than a value.
VALUE = re.compile(r'[^"\\${}\x00-\x1f\x7f]*')
PATH = re.compile(r"/[A-Za-z0-9._~/-]*")
SIZE = re.compile(r"[0-9]+[kmg]?")
ARGUMENT = re.compile(r"[A-Za-z0-9_.\[\]-]+")
SENTENCE = re.compile(r"[^\x00-\x1f\x7f]{1,200}")


def snippet_problems(snippets: list[dict[str, Any]]) -> Iterable[str]:
    seen = set()
    for snippet in snippets:
        name, place = str(snippet.get("name", "")), snippet.get("place")
        if not NAME.fullmatch(name):
            yield f"nginx_snippets has a name, {name!r}, that is not made of letters, digits and hyphens"
        if (place, name) in seen:
            yield f"nginx_snippets has {name} twice in {place}"
        seen.add((place, name))
        if not str(snippet.get("content", "")).strip():
            yield f"nginx_snippets has {name} without content"


def header_problems(headers: dict[str, Any]) -> Iterable[str]:
    for name, value in headers.items():
        if not HEADER.fullmatch(str(name)):
            yield f"nginx_security_headers has {name!r}, which is no name of a header"
        if str(name).lower() == "strict-transport-security":
            yield "nginx_security_headers has Strict-Transport-Security, which nginx_hsts_max_age is for"
        if not VALUE.fullmatch(str(value)):
            yield f'nginx_security_headers has a value for {name} with one of " \\ $ {{ }} or a control character in it'


def size_problems(sizes: dict[str, Any]) -> Iterable[str]:
    for path, size in sizes.items():
        if not PATH.fullmatch(str(path)) or path == "/":
            yield f"nginx_client_max_body_sizes has {path!r}, which is no path below /"
        if not SIZE.fullmatch(str(size)):
            yield f"nginx_client_max_body_sizes has {size!r} for {path}, which is no size such as 10m"


def network_problems(networks: dict[str, list[str]]) -> Iterable[str]:
    for name, entries in networks.items():
        for entry in entries:
            try:
                ipaddress.ip_network(str(entry))
            except ValueError as error:
                yield f"{name} has {entry!r}, which is no network ({error})"


def exclusion_problems(exclusions: list[dict[str, Any]]) -> Iterable[str]:
    for exclusion in exclusions:
        if not exclusion.get("rules"):
            yield "nginx_waf_exclusions has an entry without rules"
        if not SENTENCE.fullmatch(str(exclusion.get("because", ""))):
            yield "nginx_waf_exclusions has an entry without a because of one line"
        if not PATH.fullmatch(str(exclusion.get("path") or "/")):
            yield f"nginx_waf_exclusions has {exclusion['path']!r}, which is no path"
        for argument in exclusion.get("arguments") or []:
            if not ARGUMENT.fullmatch(str(argument)):
                yield f"nginx_waf_exclusions has {argument!r}, which is no name of an argument"


def logo_problems(logo: str) -> Iterable[str]:
    if not logo:
        return
    path = Path(logo)
    if not path.is_file():
        yield f"nginx_maintenance_logo names {logo}, which is no file on this machine"
    elif b"<svg" not in path.read_bytes()[:2000]:
        yield f"nginx_maintenance_logo names {logo}, which is no SVG"


def system_problems(arguments: dict[str, Any]) -> Iterable[str]:
    system = arguments["system"]
    why = "its nginx comes from nginx.org" if arguments["own_archive"] else "it does not have the module"
    if arguments["waf_mode"] != "off" and (arguments["own_archive"] or not arguments["waf_packages"]):
        yield (
            f"nginx_waf_mode is {arguments['waf_mode']}, and {system} cannot have the WAF: {why}. "
            "Debian 12 and Ubuntu 24.04 can; here it must be off"
        )
    if arguments["brotli"] == "on" and (arguments["own_archive"] or not arguments["brotli_packages"]):
        yield f"nginx_brotli is on, and {system} cannot have it: {why}. With auto it goes without"


def problems(arguments: dict[str, Any]) -> list[str]:
    return [
        *system_problems(arguments),
        *snippet_problems(arguments["snippets"]),
        *header_problems(arguments["headers"]),
        *size_problems(arguments["body_sizes"]),
        *network_problems(arguments["networks"]),
        *exclusion_problems(arguments["waf_exclusions"]),
        *logo_problems(arguments["logo"]),
    ]


def refusal(words: str, parts: str) -> str:
    """What nginx said, as a sentence about the snippet that it named; its own words when it named none."""
    found = re.search(
        rf"\] (?P<why>.*) in {re.escape(parts)}/(?P<place>[a-z]+)-(?P<name>[A-Za-z0-9-]+)\.conf:(?P<line>\d+)", words
    )
    if not found:
        return f"{words}\nNothing was changed, and nginx serves what it served."
    return (
        f"nginx refuses the snippet {found['name']} (place {found['place']}, nginx_snippets): {found['why']}, "
        f"in its line {found['line']}. Nothing was changed, and nginx serves what it served: "
        "correct the snippet and run site.yml --tags nginx again."
    )


class ActionModule(ActionBase):
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        result["changed"] = False
        arguments = self._task.args
        if "refused" in arguments:
            result["failed"] = True
            result["msg"] = refusal(str(arguments["refused"]), str(arguments["parts"]))
            return result
        found = problems(arguments)
        if found:
            result["failed"] = True
            result["msg"] = "\n".join(
                [
                    *(f"{problem} ({HERE})." for problem in found),
                    "Nothing was changed. Correct this and run the playbook again.",
                ]
            )
        return result
