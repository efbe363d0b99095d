"""What holds for every test of a whole program."""

from tests.unit.conftest import _environment_of_ones_own
from tests.unit.releasectl.conftest import django

__all__ = ["_environment_of_ones_own", "django"]
