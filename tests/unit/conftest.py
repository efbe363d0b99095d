"""What holds for every unit test."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _environment_of_ones_own() -> Iterator[None]:
    """A program under test may clear its environment; the next test has it back."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
