"""What is tested here is sshd, PAM and fail2ban: where there is a firewall it would answer in their place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

OPEN = (
    "if command -v iptables >/dev/null; then for chain in INPUT OUTPUT; do"
    " iptables -I $chain -j ACCEPT && ip6tables -I $chain -j ACCEPT || exit 1; done; fi"
)
# A guard that fired, or a firewall that was loaded anew, has taken some away already; another may have put them back.
CLOSE = (
    "if command -v iptables >/dev/null; then for chain in INPUT OUTPUT; do for tables in iptables ip6tables; do"
    " while $tables -C $chain -j ACCEPT 2>/dev/null; do $tables -D $chain -j ACCEPT; done; done; done; fi"
)


@pytest.fixture(scope="session", autouse=True)
def unfiltered(app1: Any, data1: Any) -> Iterator[None]:
    """Every packet passes UFW; fail2ban's own table, which is another one, still says no."""
    for host in (app1, data1):
        host.check_output(OPEN)
    yield
    for host in (app1, data1):
        host.check_output(CLOSE)
