"""`make kill-test`, thinned: it runs with every change."""

from pathlib import Path

import pytest

from tests.benchmarks import kill

pytestmark = pytest.mark.torch


def test_a_partition_that_is_killed_ten_times_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    found = kill.run(tmp_path, samples=100, batch=1, kills=10, seed=1)
    assert found.clean, found
    assert found.equal
    assert found.kills == 10
