"""More than one host: none gets a release that another one refuses.

data1 plays the second host of the app, with a stand-in for releasectl that does nothing but answer and note what it was
asked; app1 is real."""

from __future__ import annotations

import pytest

STAND_IN = """#!/bin/sh
echo "$1" >> /run/stand-in.asked
if [ "$1" = "$(cat /run/stand-in.refuses)" ]; then
  echo '{"ok": false, "changed": false, "message": "The stand-in refuses.", "journal": ["no", "never"]}'
  exit 1
fi
echo '{"ok": true, "changed": true, "message": "Done.", "token": "t", "live": {"release": "LIVE"}, "release": "LIVE"}'
"""


@pytest.fixture
def fleet(data1, live, tmp_path):
    """An inventory in which data1 is one of the app's hosts."""
    hosts = tmp_path / "hosts.yml"
    hosts.write_text("app: {hosts: {data1: {}}}\n")
    data1.check_output("mkdir -p /opt/app && install -d -g deployers -m 1770 /opt/app/incoming")
    data1.check_output(": > /run/stand-in.asked")
    yield "-i", str(hosts)
    data1.check_output("rm -rf /opt/app /usr/local/sbin/releasectl /run/stand-in.*")


@pytest.fixture
def refusing(data1, live):
    def install(verb):
        data1.check_output(f"echo {verb} > /run/stand-in.refuses")
        script = STAND_IN.replace("LIVE", live).replace("'", "'\\''")
        data1.check_output(f"printf %s '{script}' > /usr/local/sbin/releasectl && chmod 755 /usr/local/sbin/releasectl")

    return install


@pytest.fixture
def fresh(ops, cargo):
    """A release that app1 does not have."""
    there = {release["id"] for release in ops.status()["releases"]}
    return next(release for name, release in cargo.items() if name.startswith("good") and release["id"] not in there)


def asked(data1):
    return data1.check_output("cat /run/stand-in.asked").split()


@pytest.mark.full
def test_a_host_without_releasectl_keeps_the_others_from_going_on(ops, edge, app1, live, fleet, fresh):
    run = ops.deploy(fresh["artifact"], *fleet)
    assert run.code != 0
    assert "data1: releasectl is not on this host" in run.closing
    assert f"nothing was switched, {live} still serves" in run.closing
    assert not app1.file(f"/opt/app/releases/{fresh['id']}").exists, "a host kept the half release"
    assert ops.status()["lease"] is None
    assert edge.get("/").release == live


@pytest.mark.full
def test_a_host_that_cannot_build_keeps_the_database_as_it_is(ops, data1, live, fleet, refusing, fresh):
    refusing("prepare")
    run = ops.deploy(fresh["artifact"], *fleet)
    assert run.code != 0
    assert "data1: The stand-in refuses." in run.closing
    assert "Migrate the database" not in run.output
    assert asked(data1) == ["status", "lock", "prepare", "unlock"]
    assert ops.status()["lease"] is None
    assert ops.live() == live


@pytest.mark.full
def test_a_refusal_in_the_second_batch_takes_the_first_one_back(ops, edge, data1, live, fleet, refusing, fresh):
    refusing("activate")
    run = ops.deploy(fresh["artifact"], *fleet)
    assert run.code != 0
    assert "data1: The stand-in refuses." in run.closing
    assert f"app1 went back to {live}" in run.closing
    assert "  | never" in run.output
    assert asked(data1) == ["status", "lock", "prepare", "activate", "discard", "unlock"]
    assert edge.get("/").release == live
    assert ops.status()["lease"] is None
