"""No EvalJob that the API server accepts stops the operator, delays others, or raises what nobody expected.

40 of them; `make fuzz COUNT=1000` tries more.
"""

import asyncio

import pytest

from tests.faults import fuzz
from tests.faults.fuzz import Report


@pytest.fixture(scope="module")
def report() -> Report:
    """One run; always the same EvalJobs."""
    return asyncio.run(fuzz.run(40, 0))


def test_enough_of_them_are_accepted(report: Report) -> None:
    """So that the others are about something."""
    assert report.accepted >= 10
    assert report.run >= 5


def test_each_gets_an_answer(report: Report) -> None:
    assert report.unanswered == []


def test_nothing_goes_wrong(report: Report) -> None:
    """No exception that was not foreseen, no restart, no promise broken, and no good EvalJob that waits long."""
    assert report.problems == []
