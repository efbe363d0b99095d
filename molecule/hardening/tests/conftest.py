"""What is tested here is sshd, PAM and fail2ban: where there is a firewall it would answer in their place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

OPENING = (
    "if command -v iptables >/dev/null; then for chain in INPUT OUTPUT; do"
    " iptables {0} $chain -j ACCEPT && ip6tables {0} $chain -j ACCEPT || exit 1; done; fi"
)


@pytest.fixture(scope="session", autouse=True)
def unfiltered(app1: Any, data1: Any) -> Iterator[None]:
    """Every packet passes UFW; fail2ban's own table, which is another one, still says no."""
    for host in (app1, data1):
        host.check_output(OPENING.format("-I"))
    yield
    for host in (app1, data1):
        # A guard that fired, or a firewall that was loaded anew, has taken them away already.
        host.run(OPENING.format("-D"))
