"""The site is closed for a deploy and opened after it, and what an operator closed is left alone."""

import json
import re
from dataclasses import replace

import pytest

from releasectl import cli, migrations, status
from releasectl.errors import Refusal
from releasectl.lock import Locks
from releasectl.maintenance import Site
from releasectl.migrations import Record, Schema
from tests.unit.releasectl.conftest import make_release, request_of


@pytest.fixture
def edge(config, tmp_path):
    return replace(
        config,
        edge=True,
        maintenance_file=tmp_path / "slipway" / "maintenance.json",
        maintenance_history=tmp_path / "log" / "maintenance.jsonl",
    )


@pytest.fixture
def host(edge, systemd, unhealthy, monkeypatch):
    """An edge with the releases a and b, whose verbs are run as the command line has them."""
    for number, name in enumerate(("a", "b")):
        make_release(edge, name, number)
    monkeypatch.setattr(cli, "Systemd", lambda: systemd)
    monkeypatch.setattr(cli.build, "sweep", lambda _config: [])
    return edge


def run(config, *words):
    asked = request_of(*words)
    if asked["verb"] in ("lock", "unlock"):
        return cli._lease(config, Locks(config.private_run, config.state), asked)
    return cli.execute(config, asked, lambda _line: None, wait=0)


def test_a_deploy_closes_the_site_and_giving_the_lease_back_opens_it(host):
    token = run(host, "lock", "--purpose=deploy of b")["token"]
    closed = run(host, "maintenance", "--state=on", "--because=it renames", f"--token={token}")
    assert closed["changed"]
    record = json.loads(host.maintenance_file.read_text())
    assert (record["by"], record["because"], record["with"]) == ("me", "it renames", "deploy")
    assert host.maintenance_file.stat().st_mode & 0o777 == 0o644
    assert not run(host, "maintenance", "--state=on", "--because=again", f"--token={token}")["changed"]
    opened = run(host, "unlock", f"--token={token}")
    assert opened["message"] == "The lease was given back. The site is open again."
    assert not host.maintenance_file.exists()
    history = [json.loads(line) for line in host.maintenance_history.read_text().splitlines()]
    assert [entry["state"] for entry in history] == ["on", "off"]


@pytest.mark.parametrize("content", ['{"by": "ops", "at": "2026", "because": "moving"}', "", "no json"])
def test_what_an_operator_closed_stays_closed(host, content):
    host.maintenance_file.parent.mkdir()
    host.maintenance_file.write_text(content)
    token = run(host, "lock", "--purpose=deploy of b")["token"]
    assert not run(host, "maintenance", "--state=on", f"--token={token}")["changed"]
    assert not run(host, "unlock", f"--token={token}")["opened"]
    refused = run(host, "maintenance", "--state=off")
    assert not refused["ok"]
    assert "playbooks/maintenance.yml -e maintenance=off opens it" in refused["message"]
    assert host.maintenance_file.read_text() == content


def dead_deploy(host):
    token = run(host, "lock", "--purpose=deploy of b", "--seconds=10")["token"]
    run(host, "maintenance", "--state=on", "--because=it renames", f"--token={token}")
    locks = Locks(host.private_run, host.state)
    lease = locks.read_lease()
    locks.lease_path.write_text(json.dumps({**lease.__dict__, "expires": 1.0}))
    return locks


@pytest.mark.parametrize("verb", ["reconcile", "rollback"])
def test_what_a_dead_deploy_closed_is_shown_and_the_next_verb_opens_it(host, systemd, verb):
    for release in ("a", "b"):
        assert run(host, "activate", f"--id={release}")["ok"]
    locks = dead_deploy(host)
    shown = status.report(cli.Lifecycle(host, systemd), locks)
    assert any("closed by a deploy that is gone (it renames)" in line for line in shown["drift"])
    assert re.search(r"^closed    for maintenance by me since \S+: it renames$", status.as_text(shown), re.MULTILINE)
    answer = run(host, verb)
    assert "the site, which a deploy that died had closed, was opened" in answer["message"]
    assert not host.maintenance_file.exists()
    assert status.report(cli.Lifecycle(host, systemd), locks)["drift"] == []


def test_a_verb_that_fails_leaves_it_closed(host):
    assert run(host, "activate", "--id=a")["ok"]
    dead_deploy(host)
    assert not run(host, "rollback")["ok"]
    assert host.maintenance_file.exists()


def test_a_host_that_is_no_edge_has_no_site_to_close(config):
    site = Site(config)
    with pytest.raises(Refusal, match="no edge"):
        site.close("me", "why", deploy=True)
    assert site.record() is None


def test_a_rollback_as_it_is_typed_minds_the_schema(host):
    first, second = Record("shop.m1", "compatible"), Record("shop.m2", "destructive")
    migrations.keep(host.release_dir("a"), [first])
    migrations.keep(host.release_dir("b"), [first, second])
    run(host, "activate", "--id=a")
    assert list(Schema(host.state).read()) == ["shop.m1"]
    run(host, "activate", "--id=b")
    refused = run(host, "rollback")
    assert not refused["ok"]
    assert "shop.m2" in refused["message"]
    accepted = run(host, "rollback", "--accept-schema")
    assert (accepted["ok"], accepted["breaking"]) == (True, ["shop.m2"])


def test_what_a_release_that_is_thrown_away_left_in_the_database_is_recorded(host):
    third = Record("shop.m3", "incompatible")
    migrations.keep(host.release_dir("b"), [Record("shop.m2", "compatible"), third])
    assert run(host, "discard", "--id=b", "--applied=shop.m3,other.m1")["ok"]
    assert Schema(host.state).read() == {"shop.m3": third}
