"""A summary is made between other things."""

import asyncio

import pytest

from evaljob import framing, packing
from evaljob.names import State
from evaljob.observe import observe
from evaljob.report import Ended, Report
from evaljob_operator.publisher import in_slices
from tests.unit import builders
from tests.unit.builders import UID, dataset, evaljob, job_view, scored

DATASETS = 20


def report() -> Report:
    plan = builders.plan(evaljob(datasets=[dataset(f"d{n}") for n in range(DATASETS)]))
    jobs = {
        name: job_view(name, finished="Complete", record=framing.encode(scored(partition)))
        for name, partition in plan.named
    }
    return Report(plan, Ended(observe(plan, UID, jobs, ()).observations), State.RUNNING)


async def turns(of: Report) -> int:
    """How often others get their turn while a summary is made."""
    making, count = asyncio.create_task(in_slices(of)), 0
    while not making.done():
        await asyncio.sleep(0)
        count += 1
    return count


async def test_others_get_their_turn_after_each_dataset() -> None:
    made = report()
    assert await turns(made) >= DATASETS
    assert made.packed == report().packed


async def test_one_that_does_not_fit_is_given_up_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 45 subsets in each of 10,000 cells half a minute was spent on it, and 840 MiB."""
    monkeypatch.setattr("evaljob.packing.BYTES_MAX", 5)
    made = report()
    assert await turns(made) <= 3
    for _ in range(2):
        with pytest.raises(packing.SummaryTooLargeError):
            made.packed  # noqa: B018 - whether it fits
