"""A hundred partitions against a real API server: what the control side costs, where numbers do not depend on load.

`make bench-control N=10000` measures the rest.
"""

import asyncio
from typing import Any

import pytest

from tests.benchmarks.control.bench import run


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """One run, with as many Jobs of others in the same namespace; without what is only about seconds."""
    return asyncio.run(run(100, 100, 10, compare=False, spread=False))


def test_a_partition_costs_two_writes(report: dict[str, Any]) -> None:
    """Beside some that do not grow: dry runs, one per model, plan, status and summary, of a small EvalJob too."""
    assert 2 <= report["writes_per_partition"] <= 2.6


def test_jobs_are_watched_and_not_asked_for(report: dict[str, Any]) -> None:
    """A few configurations are, in all."""
    assert report["reads_per_partition"] <= 0.3


def test_a_restart_writes_nothing(report: dict[str, Any]) -> None:
    assert report["restart_writes"] == 0


def test_memory_stays_within_its_budget(report: dict[str, Any]) -> None:
    assert report["rss_idle_mib"] <= 90
    assert report["rss_peak_mib"] <= 110
