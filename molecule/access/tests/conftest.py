"""The people of the story."""

from __future__ import annotations

from typing import Any

import pytest

from tests.crew import Crew, forget


@pytest.fixture(scope="session")
def crew(lab: dict[str, Any], app1: Any, data1: Any) -> Any:
    made = Crew(lab)
    yield made
    # The hosts forget all of them.
    for host in (app1, data1):
        forget(host, made.run)
