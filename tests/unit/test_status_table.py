"""All hosts of the app in one table, and what the closing sentence makes of them."""

from __future__ import annotations

import json
from typing import Any

from plugins.action import release_status
from plugins.notices import table

GIB = 2**30


def host(release: str | None = "shop-2", **more: Any) -> dict[str, Any]:
    return {
        "groups": ["all", "app", "edge", "production"],
        "reached": True,
        "live": {"release": release, "since": "2026-11-24T03:12:00Z"} if release else None,
        "previous": "shop-1",
        "drift": [],
        "lease": None,
        "door": "none",
        "drained": None,
        "maintenance": None,
        "disk": [{"paths": ["/opt/app/releases", "/var/www/app/static"], "free": 5 * GIB, "total": 20 * GIB}],
        **more,
    }


LOST = {"groups": ["worker"], "reached": False, "lost": True, "msg": "Connection refused"}


def test_each_host_has_its_row_and_columns_stand_below_each_other() -> None:
    lines = table.table({"app1": host(), "app2.example.com": host(None, previous=None)})
    assert len(lines) == 3
    for title in table.TITLES:
        at = lines[0].index(title)
        assert all(at == 0 or line[at - 1 : at] in ("", " ") for line in lines)
    assert lines[1].split("  ")[0] == "app1"
    for words in ("edge app", "shop-2", "2026-11-24 03:12:00", "shop-1", "5.0 of 20.0 GiB (25 %)", "open"):
        assert words in lines[1]
    assert "nothing" in lines[2]


def test_what_a_cell_is_too_small_for_stands_below() -> None:
    lease = {
        "holder": "deployer (ada on her laptop)", "purpose": "deploy of shop-3", "since": "S", "expires": "E",
    }  # fmt: skip
    drained = {"by": "ops", "since": "D", "because": "new memory"}
    closed = {"by": "bob", "at": "M", "because": "moving"}
    disks = [{"paths": ["/opt"], "free": GIB, "total": 4 * GIB}, {"paths": ["/var"], "free": 0, "total": 0}]
    shown = host(drift=["one", "two"], lease=lease, drained=drained, door="shut", maintenance=closed, disk=disks)
    lines = table.table({"app1": shown})
    assert "closed, drained" in lines[1]
    assert " 2 " in lines[1]
    assert lines[2:] == [
        "",
        "app1: drift: one",
        "app1: drift: two",
        "app1: locked by deployer (ada on her laptop) for 'deploy of shop-3' since S, until E",
        "app1: closed for maintenance by bob since M: moving",
        "app1: drained by ops since D: new memory (releasectl undrain)",
        "app1: free disk: 1.0 of 4.0 GiB (25 %) for /opt, 0.0 of 0.0 GiB (0 %) for /var",
    ]


def test_a_host_without_an_answer_is_a_row_that_says_so() -> None:
    lines = table.table({"app1": host(), "worker1": LOST})
    assert lines[2].startswith("worker1")
    assert lines[2].endswith("NOT REACHED")
    assert lines[-1] == "worker1: Connection refused"


def test_the_closing_sentence() -> None:
    assert table.closing({"a": host(), "b": host()}) == "Live is shop-2 on a, b. Nothing disagrees."
    assert table.closing({"a": host(), "b": host("shop-1")}) == (
        "The hosts differ in what is live: shop-2 on a; shop-1 on b."
    )
    assert table.closing({"a": host(drift=["x", "y"]), "w": LOST}) == (
        "Live is shop-2 on a. Drift on a (2): 'sudo releasectl reconcile' there mends it. Without an answer: w."
    )
    assert table.closing({"w": LOST}) == "Without an answer: w."


def runs(fingerprint: str, **more: Any) -> dict[str, Any]:
    return host(processes=["gunicorn"], fingerprint=fingerprint, **more)


def test_whether_all_run_with_the_same_settings_is_seen() -> None:
    one, two = "aaaa-1111111122222222", "aaaa-3333333344444444"
    same = {"app1": runs(one), "app2": runs(one), "edge1": host(processes=[], fingerprint=None)}
    assert table.closing(same) == "Live is shop-2 on app1, app2, edge1. Nothing disagrees."
    assert "11111111" in table.table(same)[1]
    assert table.closing({"app1": runs(one), "app2": runs(two)}) == (
        "Live is shop-2 on app1, app2. The hosts differ in their settings: 11111111 on app1; 33333333 on app2."
    )
    other = table.closing({"app1": runs(one), "app2": runs("bbbb-1111111122222222")})
    assert "cannot be told, since their keys differ: app1; app2. Run settings.yml for all of them." in other


def test_settings_that_wait_are_named() -> None:
    shown = {"app1": runs("aaaa-1111111122222222", settings_waiting="env.5"), "app2": runs("aaaa-1111111122222222")}
    assert "app1: env.5 was delivered and is not in force" in "\n".join(table.table(shown))
    assert table.closing(shown) == (
        "Live is shop-2 on app1, app2. New settings wait on app1: settings.yml puts them in force."
    )


def test_the_same_for_machines() -> None:
    told = json.loads(table.document("shop", "production", {"app1": host(), "w": LOST}))
    assert (told["app"], told["environment"]) == ("shop", "production")
    assert told["hosts"]["app1"]["live"]["release"] == "shop-2"
    assert told["hosts"]["w"] == LOST
    assert told["message"] == table.closing({"app1": host(), "w": LOST})


def test_an_entry_is_what_the_host_said_or_why_it_did_not() -> None:
    said = {"changed": False, "msg": "", "exit": 0, "releases": [], "live": None, "drift": []}
    assert release_status.entry(["app"], said) == {
        "groups": ["app"], "reached": True, "releases": [], "live": None, "drift": [],
    }  # fmt: skip
    assert release_status.entry([], {"lost": True, "msg": "refused"}) == {
        "groups": [], "reached": False, "lost": True, "msg": "refused",
    }  # fmt: skip
    assert release_status.entry([], {"changed": False, "msg": "not here"})["reached"] is False
    assert release_status.entry([], None)["msg"] == "it was not asked"


def test_a_wrong_word_is_refused() -> None:
    assert release_status.wrong_words({"status_format": "json", "app_name": "x"}) == ""
    assert "'xml': there are table and json" in release_status.wrong_words({"status_format": "xml"})
    assert "status_fromat is not a variable" in release_status.wrong_words({"status_fromat": "json"})
