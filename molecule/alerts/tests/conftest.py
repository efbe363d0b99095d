"""The webhook that the hosts are told to tell, with a certificate of the lab's authority."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lab import pki
from tests.outside import play, secrets
from tests.webhook import LOOK, Webhook


@pytest.fixture(scope="session")
def webhook(lab: dict[str, Any], app1: Any, data1: Any) -> Iterator[Webhook]:
    network = ipaddress.ip_network(f"{lab['edge_address']}/24", strict=False)
    address = str(network.network_address + 1)
    known = secrets(lab)
    authority = (known["ca_certificate"], known["ca_private_key"])
    made = Webhook(address, "".join(pki.new_server(authority, ["webhook.test"], [address])))
    made.up()
    told = play(lab, "molecule/alerts/told.yml")
    assert told.returncode == 0, told.stdout
    for host in (app1, data1):
        # As on a host on which nothing was ever wrong.
        host.check_output("rm -f /var/lib/slipway-alerts/state.json")
    yield made
    if made.server:
        made.down()


@pytest.fixture
def over(app1: Any, webhook: Webhook) -> Callable[[str], dict[str, Any]]:
    """Look until it is told that a problem is over: once to see it gone, and once after it has stayed away."""

    def look(key: str) -> dict[str, Any]:
        app1.check_output(f"{LOOK} && sleep 2.5 && {LOOK}")
        return webhook.wait(key, "over")

    return look


@pytest.fixture(autouse=True)
def _nothing_told_yet(webhook: Webhook, app1: Any) -> None:
    """Each test begins on a host that has told what there was to tell."""
    if webhook.server is None:
        webhook.up()
    app1.check_output(LOOK)
    webhook.forget()
