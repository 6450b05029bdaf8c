"""When a process is of no use any more, and when it only has to wait."""

import pytest

from evaljob_operator.vigil import QUIET, STALE, Freshness

FRESH, SILENT = 10.0, QUIET + 1


def told(jobs: float, pods: float, answered: float, seconds: float) -> list[str | None]:
    """What is said every five seconds, when nothing changes for so long."""
    freshness = Freshness()
    silences = (("evals", "jobs", jobs), ("evals", "pods", pods))
    return [freshness.stale(silences, answered, float(now)) for now in range(0, int(seconds) + 5, 5)]


def test_a_watch_that_stays_silent_while_others_speak_is_stale() -> None:
    *before, last = told(SILENT, FRESH, FRESH, STALE)
    assert set(before) == {None}
    assert last is not None
    assert last.startswith("evals/jobs: nothing heard for 131 s")


@pytest.mark.parametrize(
    ("jobs", "pods", "answered"),
    [(FRESH, FRESH, FRESH), (FRESH, FRESH, 3600.0), (3600.0, 3600.0, 3600.0)],
    ids=["all is well", "nothing to ask for", "an outage"],
)
def test_a_restart_would_not_help(jobs: float, pods: float, answered: float) -> None:
    assert set(told(jobs, pods, answered, 10 * STALE)) == {None}


def test_both_watches_are_stale_while_requests_are_answered() -> None:
    assert told(SILENT, SILENT, FRESH, STALE)[-1] is not None


def test_after_an_outage_each_watch_has_the_time_to_come_back() -> None:
    """Informers try again within a minute; what is counted begins when somebody else is answered."""
    freshness, watches = Freshness(), (("evals", "jobs", 3600.0),)
    assert freshness.stale(watches, 3600.0, 0.0) is None
    assert freshness.stale(watches, FRESH, 1000.0) is None
    assert freshness.stale((("evals", "jobs", FRESH),), FRESH, 1000.0 + STALE) is None
    assert freshness.stale(watches, FRESH, 1001.0 + STALE) is None
