"""The hosts of a fleet, and load on its edge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests import namespaces
from tests.fleet import Traffic, wait_until_all_answer


@pytest.fixture(scope="session")
def host(lab: dict[str, Any]) -> Callable[[str], Any]:
    """A host of the lab by its name, asked from inside."""
    return lambda name: namespaces.host(lab["hosts"][name]["container"])


@pytest.fixture(scope="session")
def edge1(host: Callable[[str], Any]) -> Any:
    return host("edge1")


@pytest.fixture(scope="session")
def app2(host: Callable[[str], Any]) -> Any:
    return host("app2")


@pytest.fixture(scope="session")
def worker1(host: Callable[[str], Any]) -> Any:
    return host("worker1")


@pytest.fixture
def traffic(lab, edge1, record_property, capsys):  # type: ignore[no-untyped-def]
    """Load on the edge; what was lost is printed, and is in the closing lines of bin/test."""
    made: list[Traffic] = []

    def begin(title: str, ca: str = "") -> Traffic:
        made.append(Traffic({**lab, "ca": ca or lab["ca"]}, edge1, title))
        return made[-1]

    yield begin
    for one in made:
        if one.gets:
            record_property("told", one.told())
            with capsys.disabled():
                print(f"\n{one.told()}")


@pytest.fixture(scope="session")
def serving(lab, edge1, ops, edge, cargo):  # type: ignore[no-untyped-def]
    """A release is live on all hosts, what is there or else good-1, and the edge takes each of the app's."""
    release = ops.have_live(edge, cargo["good-1"])
    wait_until_all_answer(lab, edge1)
    return release
