"""What the edge's action plugins refuse, and how they say it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from plugins.action import check_edge, maintenance
from tests.contracts.sources import ROOT

GOOD: dict[str, Any] = {
    "system": "Debian 12",
    "own_archive": False,
    "brotli": "auto",
    "brotli_packages": ["b"],
    "waf_mode": "off",
    "waf_packages": ["w"],
    "waf_exclusions": [],
    "snippets": [],
    "headers": {},
    "body_sizes": {},
    "logo": "",
    "networks": {},
}


def problems(**changes: Any) -> list[str]:
    return check_edge.problems({**GOOD, **changes})


def module() -> Any:
    spec = importlib.util.spec_from_file_location("maintenance_module", ROOT / "plugins/modules/maintenance.py")
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_what_is_well_is_let_through(tmp_path: Path) -> None:
    logo = tmp_path / "logo.svg"
    logo.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    assert problems() == []
    assert (
        problems(
            waf_mode="block",
            brotli="on",
            logo=str(logo),
            snippets=[
                {"name": "a", "place": "http", "content": "x;"},
                {"name": "a", "place": "server", "content": "x;"},
            ],
            headers={"Content-Security-Policy": "default-src 'self'; img-src https://*.example.com"},
            body_sizes={"/up/": "200m"},
            networks={"nginx_trusted_proxies": ["10.0.0.0/8", "2001:db8::1"]},
            waf_exclusions=[{"rules": [942100], "path": "/x/", "arguments": ["json.text"], "because": "prose"}],
        )
        == []
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"waf_mode": "block", "waf_packages": []},
            "nginx_waf_mode is block, and Debian 12 cannot have the WAF: it does",
        ),
        ({"waf_mode": "detect", "own_archive": True}, "cannot have the WAF: its nginx comes from nginx.org"),
        ({"brotli": "on", "brotli_packages": []}, "nginx_brotli is on, and Debian 12 cannot have it"),
        ({"snippets": [{"name": "../x", "place": "http", "content": "x"}]}, "is not made of letters"),
        ({"snippets": [{"name": "x", "place": "http", "content": "\n"}]}, "has x without content"),
        ({"snippets": [{"name": "x", "place": "http", "content": "x"}] * 2}, "has x twice in http"),
        ({"headers": {"X y": "1"}}, "'X y', which is no name of a header"),
        ({"headers": {"X-A": 'a"; return 200 "x'}}, "a value for X-A"),
        ({"headers": {"X-A": "a\nb"}}, "a value for X-A"),
        ({"headers": {"X-A": "$http_cookie"}}, "a value for X-A"),
        ({"headers": {"strict-transport-security": "x"}}, "nginx_hsts_max_age is for"),
        ({"body_sizes": {"/": "1m"}}, "'/', which is no path below /"),
        ({"body_sizes": {"/a b/": "1m"}}, "'/a b/'"),
        ({"body_sizes": {"/a/": "1 m"}}, "'1 m' for /a/"),
        ({"networks": {"nginx_limits_exempt": ["10.0.0.1/8"]}}, "nginx_limits_exempt has '10.0.0.1/8'"),
        ({"logo": "/nowhere.svg"}, "which is no file on this machine"),
        ({"logo": str(ROOT / "LICENSE")}, "which is no SVG"),
        ({"waf_exclusions": [{"rules": [], "because": "x"}]}, "without rules"),
        ({"waf_exclusions": [{"rules": [1], "because": "x\nSecRuleEngine Off"}]}, "because of one line"),
        ({"waf_exclusions": [{"rules": [1], "because": "x", "path": '/" "'}]}, "which is no path"),
        ({"waf_exclusions": [{"rules": [1], "because": "x", "arguments": ["a,b"]}]}, "no name of an argument"),
    ],
)
def test_what_is_wrong_is_one_sentence(changes: dict[str, Any], sentence: str) -> None:
    found = problems(**changes)
    assert len(found) == 1
    assert sentence in found[0]


def test_a_refused_snippet_is_named() -> None:
    words = '[emerg] 1#1: unknown directive "bogus" in /etc/slipway/nginx/0a/server-my-own.conf:3\nnginx: failed'
    said = check_edge.refusal(words, "/etc/slipway/nginx/0a")
    assert "the snippet my-own (place server, nginx_snippets)" in said
    assert 'unknown directive "bogus"' in said
    assert "line 3" in said
    assert check_edge.refusal("[emerg] bad in /etc/nginx/nginx.conf:3", "/x").startswith("[emerg] bad")


@pytest.mark.parametrize(
    ("given", "wanted"), [("on", "on"), (True, "on"), ("off", "off"), (False, "off"), ("", ""), ("ON", "on")]
)
def test_on_is_on_however_yaml_reads_it(given: object, wanted: str) -> None:
    assert maintenance.asked(given, "moving") == (wanted, "")


def test_a_site_is_not_closed_without_a_reason() -> None:
    assert "say why" in maintenance.asked("on", "")[1]
    assert "say why" in maintenance.asked("on", "two\nlines")[1]
    assert "may be on or off" in maintenance.asked("maybe", "x")[1]
    assert maintenance.asked("off", "")[1] == ""


def test_the_sentence_says_who_when_and_why() -> None:
    record = {"by": "a@b", "at": "2026-01-01T00:00:00Z", "because": "moves."}
    said = maintenance.told("x.example", {"record": record, "former": {}, "changed": True}, ["192.0.2.0/24"])
    assert said == (
        "x.example is closed for maintenance by a@b since 2026-01-01T00:00:00Z: moves. Still let through: 192.0.2.0/24."
    )
    opened = maintenance.told("x.example", {"record": {}, "former": record, "changed": True}, [])
    assert opened.startswith("x.example is open again; a@b had closed it")
    assert maintenance.told("x.example", {"record": {}, "former": {}, "changed": False}, []) == "x.example is open."


def test_the_file_is_whole_and_says_what_it_was_told(tmp_path: Path) -> None:
    loaded, path = module(), tmp_path / "deep" / "maintenance.json"
    record = {"by": "a", "at": "t", "because": "b"}
    assert loaded.read(str(path)) == {}
    loaded.close(str(path), record)
    assert json.loads(path.read_text()) == loaded.read(str(path)) == record
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["maintenance.json"]
    loaded.reopen(str(path))
    assert not path.exists()


def test_a_file_made_by_hand_closes_the_site_too(tmp_path: Path) -> None:
    path = tmp_path / "maintenance.json"
    path.touch()
    assert module().read(str(path))["by"] == "somebody by hand"
