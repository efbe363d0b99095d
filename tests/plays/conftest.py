"""What holds for every test of a play."""

from tests.unit.conftest import _environment_of_ones_own

__all__ = ["_environment_of_ones_own"]
