"""An audit says what is so, on hosts that it leaves as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

FLOOR = 88


def test_a_whole_host_passes_and_is_left_as_it_is(audit, app1, data1, tmp_path):
    for host in (app1, data1):
        host.check_output("touch /run/slipway-audit-test && sleep 0.1")
    seen = audit()
    assert seen.code == 0, seen.output[-3000:]
    for name in ("app1", "data1"):
        report = seen.reports[name]
        assert report["verdict"] == "passed"
        assert report["counts"]["failed"] == 0
        assert report["counts"]["passed"] > 5
        assert report["closing"] in seen.output
        assert report["compared"] is None
        assert report["how"]
        page = next(tmp_path.glob(f"*-{name}.md")).read_text()
        assert report["closing"] in page
        for control in report["controls"]:
            assert control["id"] in page
    for host in (app1, data1):
        changed = host.check_output("find /etc /usr /opt /root /home -newer /run/slipway-audit-test ! -type d")
        assert changed == ""
    for path in tmp_path.iterdir():
        assert path.stat().st_mode & 0o007 == 0, "a report says what is weak, and is not for everybody"


@pytest.fixture
def patched(app1, data1):
    """What became known since the hosts were made is brought in, as they do by themselves each day."""
    for host in (app1, data1):
        host.check_output("apt-get --quiet update")
        if "ecurity" in host.check_output("apt-get --simulate upgrade"):
            host.check_output("unattended-upgrade")


@pytest.mark.usefixtures("patched")
def test_lynis_gives_what_is_promised_and_says_nothing_without_a_reason(audit, app1):
    seen = audit(audit_lynis=True)
    for name in ("app1", "data1"):
        lynis = seen.reports[name]["lynis"]
        assert lynis["altered"] == []
        assert lynis["profile"]["sha256"] == app1.check_output("sha256sum /etc/lynis/default.prf").split()[0]
        assert lynis["tests"] > 200
        assert [one for kind in ("warnings", "suggestions") for one in lynis[kind] if not one["reason"]] == []
        assert lynis["score"] >= FLOOR
    assert seen.code == 0, seen.output[-3000:]


@pytest.mark.parametrize(
    ("exceptions", "sentence"),
    [
        ([{"id": "9.9.9", "reason": "so"}], "hardening_exceptions names 9.9.9, which is no control"),
        ([{"id": "slipway-hsts", "reason": " "}], "hardening_exceptions gives no reason for slipway-hsts"),
        ([{"id": "slipway-hsts"}], "reason found in hardening_exceptions"),
    ],
    ids=["unknown", "blank", "no reason"],
)
def test_an_exception_that_cannot_be_honoured_stops_it_before_a_host_is_looked_at(audit, exceptions, sentence):
    seen = audit(hardening_exceptions=exceptions)
    assert seen.code != 0
    assert sentence in " ".join(seen.output.split())
    assert seen.reports == {}
    assert "TASK [audit : See for each control" not in seen.output


def test_an_exception_is_told_with_its_reason(audit, app1, tmp_path):
    app1.check_output("chmod 0644 /etc/slipway/tls/live/privkey.pem")
    try:
        named = audit("--limit", "app1")
        assert named.code != 0
        assert [c["id"] for c in named.reports["app1"]["controls"] if c["result"] == "failed"] == ["slipway-tls-key"]
        assert "app1: slipway-tls-key Ensure that" in named.output

        excepted = audit("--limit", "app1", hardening_exceptions=[{"id": "slipway-tls-key", "reason": "a test of it"}])
        assert excepted.code == 0, excepted.output[-3000:]
        control = next(c for c in excepted.reports["app1"]["controls"] if c["id"] == "slipway-tls-key")
        assert (control["result"], control["reason"]) == ("excepted", "a test of it")
        assert "a test of it" in max(Path(tmp_path).glob("*-app1.md")).read_text()
    finally:
        app1.check_output("chmod 0600 /etc/slipway/tls/live/privkey.pem")
