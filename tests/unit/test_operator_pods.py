"""How often pods that wait are looked at."""

import pytest

from evaljob_operator.pods import pause


@pytest.mark.parametrize(
    ("requests", "pods", "seconds"),
    [
        (1, 3, 15),
        (6, 5, 45),  # with the Warnings about five of them: what comes next is still told within a minute
        (11, 40, 45),
        (2, 600, 30),
        (7, 1000, 105),
        (20, 10_000, 300),
    ],
)
def test_whatever_waits_costs_a_request_in_fifteen_seconds(requests: int, pods: int, seconds: float) -> None:
    """0.08 reads per partition were spent on 10,000 pods that waited for some minutes."""
    assert pause(15, requests, pods) == seconds


def test_a_look_that_asked_for_nothing_is_not_repeated_at_once() -> None:
    assert pause(15, 0, 0) == 15
