"""With a list that tells the hosts apart: who may reach what, and names whose answers change."""

from __future__ import annotations

import pytest

from tests.inside import FAMILIES, reaches
from tests.outside import is_open


def resolve(host, family):
    return host.check_output(f"getent ahosts{family[2:]} moving.test | head -n1").split()[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_database_is_out_of_reach_from_outside_the_private_network(narrowed, app1, places, family):
    address = places.of("data1", family)
    for port in (5432, 6379):
        assert reaches(app1, address, port)
        assert not is_open(address, port)
    assert is_open(address, 22)


@pytest.mark.parametrize("family", FAMILIES)
def test_ssh_is_reached_from_the_listed_network_only(narrowed, data1, places, family):
    address = places.of("app1", family)
    assert is_open(address, 22)
    # data1's own rules let it go there: it is app1 that lets nobody in but the controller.
    assert not reaches(data1, address, 22)
    # Neither is what everybody reaches on the list of where data1 may go.
    assert is_open(address, 443)
    assert not reaches(data1, address, 443)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_name_is_followed_wherever_its_answer_leads(zone, app1, places, family):
    zone.lead_to(113)
    first, second = places.near(family, 113), places.near(family, 114)
    assert resolve(app1, family) == first
    assert reaches(app1, first, 8080)
    assert not reaches(app1, first, 9999)
    zone.lead_to(114)
    assert resolve(app1, family) == second
    assert reaches(app1, "moving.test", 8080)
    assert reaches(app1, second, 8080)
    # Whoever still holds the former answer goes on with it.
    assert reaches(app1, first, 8080)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_address_that_was_never_an_answer_is_not_reached(zone, app1, places, family):
    zone.lead_to(115)
    assert not reaches(app1, places.near(family, 115), 8080)
    resolve(app1, family)
    assert reaches(app1, places.near(family, 115), 8080)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_outage_of_resolvers_closes_nothing(zone, app1, places, family):
    zone.lead_to(116)
    assert resolve(app1, family) == places.near(family, 116)
    zone.stop()
    app1.check_output("systemctl restart slipway-resolver")
    try:
        assert app1.run("getent ahosts moving.test").rc != 0
        assert reaches(app1, places.near(family, 116), 8080)
    finally:
        zone.start()
