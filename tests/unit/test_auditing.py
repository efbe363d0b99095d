"""The catalogue refuses what is not whole, the report tells what was seen, and the verdict follows from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from plugins.auditing import catalogue, page, report
from plugins.auditing.catalogue import Known

DONE = {"id": "5.2.7", "title": "Ensure root is out", "state": "done", "where": "hardening/sshd", "check": "true"}
OFF = {"id": "1.4.1", "title": "Ensure a boot password", "state": "off", "reason": "nobody is there to type it"}


@pytest.fixture
def repository(tmp_path: Path):
    """A repository with these controls."""
    (tmp_path / "roles/hardening/tasks").mkdir(parents=True)
    (tmp_path / "roles/hardening/tasks/sshd.yml").write_text("---\n[]\n")
    (tmp_path / "roles/hardening/templates").mkdir()
    (tmp_path / "roles/hardening/templates/limits.conf.j2").write_text("")
    (tmp_path / catalogue.CONTROLS).mkdir(parents=True)

    def make(*controls, lynis=()):
        (tmp_path / catalogue.CONTROLS / "sshd.yml").write_text(yaml.safe_dump(list(controls)))
        (tmp_path / catalogue.LYNIS).write_text(yaml.safe_dump(list(lynis)))
        return catalogue.load(tmp_path)

    return make


def test_a_whole_catalogue_has_no_problem(repository):
    known = repository(DONE, OFF, {**DONE, "id": "5.2.10", "where": "hardening/limits"})
    assert known.problems == []
    assert [control.id for control in known.controls] == ["1.4.1", "5.2.7", "5.2.10"]
    assert known.by_id()["5.2.7"].topic == "sshd"


@pytest.mark.parametrize(
    ("control", "sentence"),
    [
        ({**DONE, "id": 5.2}, "has no id such as"),
        ({**DONE, "id": "9.9"}, "has no id such as"),
        ({**DONE, "titel": "x"}, "has a field 'titel', which nothing reads"),
        ({**DONE, "state": "ok"}, "has a state that is none of done"),
        ({**OFF, "state": False}, 'none of done, "off" (quoted'),
        ({**DONE, "check": ""}, "is done and has no check"),
        ({**DONE, "where": "hardening/nothing"}, "is done in hardening/nothing, which is no role/topic"),
        ({**DONE, "where": "../../etc/passwd"}, "which is no role/topic"),
        ({**DONE, "reason": "because"}, "is done and has a reason"),
        ({**DONE, "needs": "luck"}, "needs something other than 'kernel'"),
        ({**DONE, "level": 3}, "has a level that is neither 1 nor 2"),
        ({**DONE, "groups": "edge"}, "has groups that is no list"),
        ({**DONE, "also": ["5.2.8"]}, "says that its break violates 5.2.8, which is none"),
        ({**OFF, "reason": " "}, "has a reason that is empty"),
        ({"id": "1.4.1", "title": "x", "state": "na"}, "is 'na' and has no reason"),
        ({**OFF, "check": "true"}, "is 'off' and has a check"),
        ("5.2.7", "is not a set of fields"),
    ],
)
def test_what_is_not_whole_is_named_with_its_file(repository, control, sentence):
    known = repository(control)
    assert any(sentence in problem for problem in known.problems), known.problems
    assert all(problem.startswith("roles/audit/files/controls/sshd.yml: control ") for problem in known.problems)


def test_an_id_is_there_once(repository):
    assert repository(DONE, DONE).problems == [
        "roles/audit/files/controls/sshd.yml: control 5.2.7 is in roles/audit/files/controls/sshd.yml already."
    ]


def test_what_lynis_may_say_has_a_reason(repository):
    known = repository(DONE, lynis=[{"id": "SSH-7408", "reason": ""}, {"id": "nonsense", "reason": "x"}])
    assert known.lynis == []
    assert len(known.problems) == 2


def test_a_reason_holds_for_what_it_is_about():
    port = Known("SSH-7408", "a closed port 22 is closed by the firewall", "Port (set")
    said = {"id": "SSH-7408", "text": "Consider hardening SSH configuration", "details": "Port (set 22 to )"}
    assert port.explains(said)
    assert not port.explains({**said, "details": "MaxAuthTries (set 6 to 3)"})
    assert not port.explains({**said, "id": "SSH-7440"})
    assert Known("SSH-7408", "all of it").explains(said)


@pytest.mark.parametrize(
    ("exceptions", "sentence"),
    [
        ("5.2.7", "is not a list"),
        ([{"id": "5.2.8", "reason": "x"}], "names 5.2.8, which is no control"),
        ([{"id": "1.4.1", "reason": "x"}], "names 1.4.1, which no role does anyway"),
        ([{"id": "5.2.7", "reason": " "}], "gives no reason for 5.2.7"),
        ([{"id": "5.2.7"}], "gives no reason for 5.2.7"),
        ([{"id": "5.2.7", "reason": "x", "until": "May"}], "which is no {id, reason}"),
        ([{"id": "5.2.7", "reason": "x"}, {"id": "5.2.7", "reason": "y"}], "names 5.2.7 twice"),
    ],
)
def test_an_exception_that_cannot_be_honoured_is_refused(repository, exceptions, sentence):
    refused = catalogue.refused(exceptions, repository(DONE, OFF))
    assert any(sentence in problem for problem in refused), refused


def test_an_exception_may_name_a_control_or_a_test_of_lynis(repository):
    exceptions = [{"id": "5.2.7", "reason": "the old backup"}, {"id": "SSH-7408", "reason": "so"}]
    assert catalogue.refused(exceptions, repository(DONE)) == []


def test_a_plan_checks_what_can_be_seen_on_this_host(repository):
    known = repository(
        DONE, OFF, {**DONE, "id": "4.1.1", "needs": "kernel"}, {**DONE, "id": "slipway-edge", "groups": ["edge"]}
    )

    def treatments(groups, container_limits):
        planned = catalogue.plan(known, [], groups, container_limits)
        return {one["id"]: one["treatment"] for one in planned}

    assert treatments(["edge"], False) == {"1.4.1": "off", "4.1.1": "check", "5.2.7": "check", "slipway-edge": "check"}
    assert treatments(["data"], True) == {
        "1.4.1": "off", "4.1.1": "unseen", "5.2.7": "check", "slipway-edge": "elsewhere",
    }  # fmt: skip


# What comes of it.

LYNIS = {
    "score": 90, "version": "3.0.8", "tests": 240, "profile": {"path": "/etc/lynis/default.prf", "sha256": "0" * 64},
    "altered": [], "seconds": 60.0, "warnings": [],
    "suggestions": [{"id": "SSH-7408", "text": "Consider hardening SSH configuration", "details": "Port (set 22 to )"}],
}  # fmt: skip
FACTS = {
    "host": "app1", "environment": "lab", "commit": "abc", "applied": "abc", "system": "Debian", "actor": "me",
    "began": "2026-01-01T00:00:00Z", "seconds": 1.0, "variables": {}, "lynis_wanted": True, "troubles": [],
}  # fmt: skip


def planned(repository, exceptions=(), **treatments):
    known = repository(DONE, OFF, {**DONE, "id": "5.2.10"})
    plan = catalogue.plan(known, list(exceptions), [], False)
    for one in plan:
        one["treatment"] = treatments.get(one["id"], one["treatment"])
    return plan


def composed(repository, answers, lynis=None, known=(), before=(), exceptions=(), floor=88, unknown_fails=True):
    controls = report.results(planned(repository, exceptions), answers)
    judged = report.judge_lynis(lynis, known, exceptions) if lynis else None
    return report.compose(FACTS, controls, judged, list(before), floor, unknown_fails)


GOOD = [{"id": "5.2.7", "ok": True}, {"id": "5.2.10", "ok": True}]
BAD = [{"id": "5.2.7", "ok": False, "code": 1, "output": ["permitrootlogin yes"]}, {"id": "5.2.10", "ok": True}]
EXPLAINED = [Known("SSH-7408", "so")]


def test_what_is_well_passes_and_says_so(repository):
    made = composed(repository, GOOD, LYNIS, EXPLAINED)
    assert (made["verdict"], made["findings"]) == ("passed", [])
    assert made["closing"] == "app1: 2 of 2 controls are as they should be, Lynis 90; the audit is passed."


def test_a_control_that_is_not_as_it_should_be_is_named(repository):
    made = composed(repository, BAD)
    assert made["findings"] == ["5.2.7 Ensure root is out (done by hardening/sshd): permitrootlogin yes"]
    assert made["closing"] == "app1: 1 of 2 controls are as they should be; the audit FAILED for 1 reason."


def test_what_was_not_answered_was_not_seen(repository):
    made = composed(repository, GOOD[:1])
    assert made["counts"]["failed"] == 1
    assert "was not checked" in made["findings"][0]


@pytest.mark.parametrize(
    ("change", "arguments", "sentence"),
    [
        ({"score": 87}, {}, "Lynis gives 87, under the floor of 88"),
        (
            {"altered": ["/etc/lynis/custom.prf is read as well"]},
            {},
            "Lynis' score counts for nothing: /etc/lynis/custom",
        ),
        ({}, {"known": ()}, "Lynis' suggestion SSH-7408 has no reason"),
        ({"warnings": [{"id": "PKGS-7392", "text": "old packages", "details": ""}]}, {}, "Lynis' warning PKGS-7392"),
    ],
)
def test_what_lynis_says_can_fail_it(repository, change, arguments, sentence):
    made = composed(repository, GOOD, {**LYNIS, **change}, **{"known": EXPLAINED, **arguments})
    assert len(made["findings"]) == 1
    assert sentence in made["findings"][0]


def test_what_lynis_says_without_a_reason_can_be_a_line_in_the_report_only(repository):
    made = composed(repository, GOOD, LYNIS, (), unknown_fails=False)
    assert made["verdict"] == "passed"
    assert "**no reason is given**" in report.render(made)


def test_an_exception_is_told_and_does_not_fail_it(repository):
    exceptions = [{"id": "5.2.7", "reason": "the old backup"}, {"id": "SSH-7408", "reason": "as agreed"}]
    made = composed(repository, BAD, LYNIS, exceptions=exceptions)
    control = next(one for one in made["controls"] if one["id"] == "5.2.7")
    assert (control["result"], control["reason"], control["as_it_should_be"]) == ("excepted", "the old backup", False)
    assert made["verdict"] == "passed"
    assert made["lynis"]["suggestions"][0]["reason"] == "as agreed"
    assert "1 excepted" in made["closing"]
    assert "the old backup" in report.render(made)


def test_it_is_compared_with_the_last(repository):
    first = composed(repository, BAD, LYNIS, EXPLAINED)
    assert first["compared"] is None
    assert "no earlier report" in report.render(first)
    other = {**LYNIS, "score": 92, "suggestions": []}
    middle = {**composed(repository, BAD), "date": "2026-01-02T00:00:00Z"}
    second = composed(repository, GOOD, other, EXPLAINED, before=[middle, first])
    assert second["compared"]["mended"] == ["5.2.7"]
    # The one between had no score: that is compared with the last that has one.
    assert (second["compared"]["score_before"], second["compared"]["score_change"]) == (90, 2)
    assert second["compared"]["suggestions_gone"] == ["SSH-7408 Consider hardening SSH configuration"]
    assert "Lynis 92 (+2); since 2026-01-02T00:00:00Z mended: 5.2.7; the audit is passed." in second["closing"]
    third = composed(repository, BAD, LYNIS, EXPLAINED, before=[second])
    assert third["compared"]["new_failures"] == ["5.2.7"]
    assert "new failures: 5.2.7" in report.render(third)


def test_a_control_that_is_no_longer_seen_is_told(repository):
    first = composed(repository, GOOD)
    controls = report.results(planned(repository, **{"5.2.7": "unseen"}), GOOD)
    second = report.compose(FACTS, controls, None, [first], 88, True)
    assert second["compared"]["no_longer_seen"] == ["5.2.7"]


def test_the_reports_of_a_host_are_found_newest_first(tmp_path):
    for date, host in (("01", "app1"), ("03", "app1"), ("02", "app1"), ("04", "other-app1")):
        content = {"schema": report.SCHEMA, "host": host, "date": date, "controls": []}
        (tmp_path / f"2026-01-{date}T00-00-00Z-{host}.json").write_text(json.dumps(content))
    (tmp_path / "2026-01-05T00-00-00Z-app1.json").write_text('{"schema": 1')
    troubles: list[str] = []
    assert [one["date"] for one in report.earlier(tmp_path, "app1", troubles)] == ["03", "02", "01"]
    assert troubles == ["2026-01-05T00-00-00Z-app1.json cannot be compared with: JSONDecodeError"]
    assert report.earlier(tmp_path / "nowhere", "app1", troubles) == []


def test_a_page_of_a_report_is_whole_and_holds_its_tables(repository):
    bad = [{**BAD[0], "output": ["a | b", "c"]}, BAD[1]]
    text = report.render(composed(repository, bad, LYNIS, EXPLAINED))
    assert "| 5.2.7 | Ensure root is out | hardening/sshd | a \\| b / c |" in text
    assert "nobody is there to type it" in text
    assert "as the package brought it" in text


def test_what_was_last_applied_is_told_as_the_host_says_it():
    whole = {"commit": "abc", "dirty": None, "at": "2026-01-01T00:00:00Z", "by": "me on here", "parts": {}}
    part = {**whole, "commit": "def", "dirty": "123", "parts": {"tags": "nginx"}}
    assert report.applied(json.dumps({"whole": whole, "since": [part]})) == (
        "abc on 2026-01-01T00:00:00Z by me on here; then "
        "def with changes on 2026-01-01T00:00:00Z by me on here (tags nginx)"
    )
    for nothing in ("", "{}", "[]", "no json", '{"whole": {"commit": "abc"}}'):
        assert report.applied(nothing) == "the host does not say"


# The page of all controls.


def test_the_page_shows_each_control_each_exception_and_what_lynis_may_say(repository):
    known = repository(
        {**DONE, "needs": "kernel", "level": 2, "groups": ["edge"]}, OFF, lynis=[{"id": "BOOT-5122", "reason": "VPS"}]
    )
    text = page.write(known, [("group_vars/production/main.yml", "5.2.7", "the old backup")])
    assert "| 5.2.7 | Ensure root is out | done | [hardening/sshd](../../roles/hardening/" in text
    assert "(hosts of edge) | K, level 2 |" in text
    assert "| 1.4.1 | Ensure a boot password | switched off | nobody is there to type it |" in text
    assert "| group_vars/production/main.yml | 5.2.7 | the old backup |" in text
    assert "| BOOT-5122 | all | VPS |" in text
    assert "No environment of this repository has an exception." in page.write(known, [])


def test_exceptions_are_found_where_environments_set_them(tmp_path):
    (tmp_path / "group_vars/production").mkdir(parents=True)
    (tmp_path / "group_vars/production/main.yml").write_text(
        "---\nsecret: !vault x\nhardening_exceptions:\n  - {id: '5.2.7', reason: the old backup}\n"
    )
    assert page.exceptions(tmp_path) == [("group_vars/production/main.yml", "5.2.7", "the old backup")]


def test_some_controls_can_be_asked_for_alone() -> None:
    known = catalogue.load()
    planned = catalogue.plan(known, [], ["edge"], False, ["5.2.7"])
    assert [control["id"] for control in planned] == ["5.2.7"]
    assert catalogue.strangers(["5.2.7"], known) == []
    assert catalogue.strangers(["9.9.9"], known) == [
        "audit_only names 9.9.9, which is no control: docs/ops/cis.md lists them."
    ]
