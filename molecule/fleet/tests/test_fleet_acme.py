"""A certificate by ACME on an edge whose app is elsewhere: the first one, a renewal under load, a name that is refused.

What one host can show is in molecule/acme. As there, the tests are one story, in order."""

from __future__ import annotations

import pytest

from tests import fleet
from tests.acme import ASTRAY, NAME, WIPE, Acme, Site, is_trusted, shown, shows_another, start, told
from tests.outside import https, play

SITE = ("playbooks/site.yml", "--tags", "tls,nginx", "--limit", "edge1")


@pytest.fixture(scope="module")
def acme(lab, edge1, serving):
    server = Acme(lab, {NAME: lab["edge_address"], ASTRAY: "127.0.0.9"})
    server.start()
    edge1.check_output(WIPE)
    yield server
    server.remove()
    edge1.check_output(WIPE)
    edge1.check_output("systemctl reset-failed")
    done = play(lab, *SITE)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture(scope="module")
def root(acme, tmp_path_factory):
    return acme.save_root(tmp_path_factory.mktemp("acme") / "root.pem")


def apply(lab, acme, **variables):
    return play(lab, *SITE, **Site(lab, acme).variables | variables)


def test_an_edge_without_a_certificate_obtains_one_and_the_app_is_there(lab, edge1, acme, root, serving):
    done = apply(lab, acme)
    assert done.returncode == 0, done.stdout[-3000:]
    assert is_trusted(lab, root)
    answer = https({**lab, "ca": root})
    assert (answer.status, answer.headers["x-release"]) == (200, serving)


def test_a_renewal_under_load_loses_no_request_and_no_order(lab, edge1, acme, root, traffic):
    fleet.wait_until_all_answer({**lab, "ca": root}, edge1)
    before = shown(lab)
    with traffic("a renewal on the edge", ca=root) as seen:
        fine, said = start(edge1, "certbot.service")
        assert fine, said
        assert shows_another(lab, before)
    seen.assert_nothing_lost()


def test_a_name_that_is_refused_is_named_and_the_old_certificate_serves(lab, edge1, acme, root, serving):
    before = shown(lab)
    done = apply(lab, acme, tls_names=[NAME, ASTRAY])
    assert done.returncode != 0
    assert f"{ASTRAY}: " in told(done)
    assert "What was served before is served on" in told(done)
    assert shown(lab) == before
    assert https({**lab, "ca": root}).headers["x-release"] == serving
