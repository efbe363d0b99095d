"""How a change of settings ended over many hosts, by what its tasks left behind; and what filters make of hosts."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.filter.settings import fingerprint_source, settings_missing
from plugins.settings import outcome

LEASE = {"token": "t", "changed": True}


def delivered(*changed: str, waiting: bool = True, **more: Any) -> dict[str, Any]:
    names = {"added": [], "changed_names": list(changed), "removed": []}
    return {"changed": waiting, "version": "env.5", "in_force": "env.4", "waiting": waiting, **names, **more}


def adopted(**more: Any) -> dict[str, Any]:
    return {"changed": True, "release": "shop-1", "generation": "shop-1.7", "settings": {"version": "env.5"}, **more}


def host(**facts: Any) -> dict[str, Any]:
    return {**dict.fromkeys(outcome.REGISTERS), "lease": LEASE, **facts}


def test_all_went_well_and_the_names_are_told_once() -> None:
    hosts = {name: host(installed=delivered("GREETING"), adopted=adopted()) for name in ("app1", "app2")}
    end = outcome.close(hosts, left_out=["app3"])
    assert not end["troubled"]
    assert end["closing"] == (
        "New settings are in force. app1, app2: changed GREETING. shop-1 was restarted with them on app1, app2."
        " Left out: app3."
    )


def test_hosts_with_other_changes_are_told_apart() -> None:
    one = host(installed=delivered("A"), adopted=adopted())
    two = host(installed={**delivered("A"), "added": ["B"]}, adopted=adopted())
    assert "app1: changed A. app2: changed A; added B." in outcome.close({"app1": one, "app2": two})["closing"]


def test_nothing_to_do_is_said_so_and_one_that_was_owed_a_restart_had_it() -> None:
    idle = host(installed=delivered(waiting=False), adopted={"changed": False})
    assert outcome.close({"app1": idle})["closing"] == "The settings are in force on app1 already, nothing was changed."
    owed = host(installed=delivered(waiting=False), adopted={"changed": True, "release": "shop-1"})
    said = outcome.close({"app1": idle, "app2": owed})["closing"]
    assert said == "The settings are in force on app1, app2. shop-1 was restarted with them on app2."


def test_check_mode_says_what_would_change_and_judges_nobody() -> None:
    would = host(lease={"skipped": True}, installed=delivered("GREETING"))
    end = outcome.close({"app1": would}, check=True)
    assert not end["troubled"]
    assert end["closing"] == "Settings would change. app1: changed GREETING. Nothing was done (check mode)."


def test_check_mode_does_not_hide_what_failed() -> None:
    hosts = {
        "app1": host(lease={"skipped": True}, installed=delivered("A")),
        "app2": host(lease={"skipped": True}, trouble={"msg": "/etc/app/env is not a symbolic link"}),
        "app3": host(lease=None),
    }
    end = outcome.close(hosts, check=True)
    assert end["troubled"]
    assert "app2: /etc/app/env is not a symbolic link." in end["closing"]
    assert "app3: could not be reached." in end["closing"]
    assert end["undo"] == {}


def test_when_one_takes_them_back_every_host_that_has_them_goes_back() -> None:
    trouble = {"msg": "env.5 was taken back (changed A), since it answered 500; env.4 stays", "journal": ["line"]}
    hosts = {
        "app1": host(installed=delivered("A"), adopted=adopted()),
        "app2": host(installed=delivered("A"), trouble=trouble),
        "app3": host(installed=delivered("A"), adopted={"skipped": True}),
        "app4": host(installed=delivered(waiting=False), adopted={"skipped": True}),
    }
    verdict = outcome.judge(hosts)
    assert verdict["troubled"]
    assert verdict["undo"] == {"app1": "env.5", "app2": "env.5", "app3": "env.5"}
    assert verdict["journal"] == ["line"]
    for name in ("app1", "app2", "app3"):
        hosts[name] = {**hosts[name], "undone": {"changed": True}}
    hosts["app1"]["undone"]["generation"] = "shop-1.8"
    closing = outcome.close(hosts)["closing"]
    assert closing.startswith(
        "The new settings are not in force everywhere. app2: env.5 was taken back (changed A), since"
    )
    assert (
        "Outcome: app1 went back; the settings of before are in force on app1, app2, app3. What was to be delivered"
        " is in force on app4 without a trial in this run, and stays there: apply the last good tag"
    ) in closing
    del hosts["app4"]
    closing = outcome.close(hosts)["closing"]
    assert closing.startswith("The settings were not changed. app2:")
    assert closing.endswith("Outcome: app1 went back; the settings of before are in force on app1, app2, app3.")


def has_it(fingerprint: str | None, version: str = "env.5") -> dict[str, Any]:
    """What a host answers that adopted a version before this run: the fingerprint is of what it replaced."""
    known = {"version": version, "before": "env.4", "fingerprint": fingerprint}
    return {"changed": False, "settings_fingerprint": "k-new", "settings_adopted": known}


def refused(**more: Any) -> dict[str, Any]:
    return host(
        status={"changed": False, "settings_fingerprint": "k-old", "settings_adopted": None},
        installed=delivered("A"), trouble={"msg": "env.5 was taken back"}, **more,
    )  # fmt: skip


def test_a_host_that_took_them_in_an_earlier_run_goes_back_with_the_others() -> None:
    """`--limit app1` first, or a run that died after its first batch."""
    earlier = host(status=has_it("k-old"), installed=delivered(waiting=False), adopted={"changed": False})
    hosts = {"app1": earlier, "app2": refused()}
    assert outcome.judge(hosts)["undo"] == {"app1": "env.5", "app2": "env.5"}
    hosts["app1"] = {**earlier, "undone": {"changed": True, "generation": "shop-1.8"}}
    hosts["app2"] = refused(undone={"changed": False})
    closing = outcome.close(hosts)["closing"]
    assert closing.endswith("Outcome: app1 went back; the settings of before are in force on app1, app2.")


@pytest.mark.parametrize("status", [has_it("k-other"), has_it(None), has_it("k-old", "env.3"), {"failed": True}, None])
def test_one_that_cannot_go_back_to_what_the_others_have_is_named(status: dict[str, Any] | None) -> None:
    keeps = host(status=status, installed=delivered(waiting=False), adopted={"skipped": True})
    hosts = {"app1": keeps, "app2": refused(undone={"changed": False})}
    end = outcome.close(hosts, left_out=["app3"])
    assert end["undo"] == {"app2": "env.5"}
    assert end["closing"].startswith("The new settings are not in force everywhere. app2: env.5 was taken back.")
    assert "the settings of before are in force on app2. What was to be delivered is in force on app1" in end["closing"]
    assert end["closing"].endswith("Left out: app3.")


def test_nothing_is_claimed_of_a_host_that_was_not_asked() -> None:
    hosts = {"app1": host(lease=None), "app2": host(trouble={"msg": "the disk is full"})}
    closing = outcome.close(hosts)["closing"]
    assert "in force on" not in closing
    assert "Nothing was delivered to app1. What app2 has is not known" in closing


def test_a_host_that_could_not_go_back_is_named() -> None:
    hosts = {
        "app1": host(installed=delivered("A"), adopted=adopted(), undone={"failed": True, "msg": "no memory"}),
        "app2": host(installed=delivered("A"), trouble={"msg": "refused"}, undone={"changed": False}),
    }
    assert outcome.close(hosts)["closing"].endswith(
        "Outcome: the settings of before are in force on app2. app1 could not go back: no memory. Run this again."
    )


def test_a_host_that_nobody_reached_is_the_reason() -> None:
    hosts = {"app1": host(installed=delivered("A"), adopted={"skipped": True}), "app2": host(lease=None)}
    verdict = outcome.judge(hosts)
    assert "app2" in verdict["reasons"]
    assert "could not be reached" in verdict["reasons"]
    assert verdict["undo"] == {"app1": "env.5"}


# Filters


def test_hosts_get_the_key_of_one_that_had_it_before() -> None:
    def told(key: str, made: bool) -> dict[str, Any]:
        return {"__envdir_installed": {"key": key, "key_made": made}}

    names = ["app1", "app2", "app3"]
    hostvars = {"app1": told("aaaa", True), "app2": told("bbbb", False), "app3": {}}
    assert fingerprint_source(names, hostvars) == "app2"
    assert fingerprint_source(names, {**hostvars, "app2": told("bbbb", True)}) == "app1"
    assert fingerprint_source(names, {**hostvars, "app2": told("aaaa", False)}) == "", "there is one key already"


def test_what_a_release_needs_is_missed_by_name_and_host() -> None:
    def status(*names: str, processes: tuple[str, ...] = ("gunicorn",)) -> dict[str, Any]:
        return {"__release_status": {"processes": list(processes), "settings_names": list(names)}}

    hostvars = {"edge1": status(processes=()), "app1": status("A", "B"), "app2": status("A"), "old": {}}
    said = settings_missing(list(hostvars), hostvars, "shop-2", ["A", "B"])
    assert said.startswith("shop-2 needs the setting B (.slipway/settings), which is not in force on app2:")
    assert settings_missing(list(hostvars), hostvars, "shop-2", ["A"]) == ""
    assert settings_missing(list(hostvars), hostvars, "shop-2", []) == ""
