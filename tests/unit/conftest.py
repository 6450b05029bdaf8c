"""Unit tests do not wait: time jumps, and property tests try few examples (HYPOTHESIS_PROFILE=thorough: many)."""

import os
from collections.abc import Mapping

from hypothesis import HealthCheck, settings

from tests.unit.hurried import HurriedLoop

_SLOW = [HealthCheck.too_slow]
settings.register_profile(
    "quick", max_examples=10, deadline=None, suppress_health_check=_SLOW, derandomize=True, database=None
)
settings.register_profile("thorough", max_examples=2000, deadline=None, suppress_health_check=_SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


def pytest_asyncio_loop_factories() -> Mapping[str, type[HurriedLoop]]:
    """The event loop of every unit test."""
    return {"hurried": HurriedLoop}
