"""Whatever goes wrong between the operator and the API server, the end is the same and no promise is broken.

The thinned sweep (every request of a run, the faults in turn) and the scenarios run at the same time, once; each
test looks up what came of its part. `make faults` is the full sweep, with the scenarios that take minutes.
"""

import asyncio

import pytest

from tests.faults import everything, scenarios, sweep
from tests.faults.everything import Results


@pytest.fixture(scope="module")
def results() -> Results:
    """Everything, run once."""
    wanted = list(scenarios.names(long=False).values())
    return asyncio.run(everything.run(everything.AT_ONCE, wanted, cases=True, thin=True))


def test_every_request_of_a_run_is_hit_once(results: Results) -> None:
    requests = results.cases[0].requests
    plans = sweep.request_plans(requests, thin=True)
    assert {p.number for p in plans} == set(range(1, requests + 1))
    assert len(results.cases) == 1 + len(plans) + len(sweep.watch_plans(thin=True))
    # The last requests of a run come or do not, as it is slow or fast.
    assert len([c.name for c in results.cases if not c.fired]) <= requests // 5


def test_every_case_converges_to_the_end_of_the_undisturbed_run(results: Results) -> None:
    assert [c.explain() for c in results.cases if not c.converged] == []


def test_no_promise_is_broken_on_the_way(results: Results) -> None:
    assert [c.explain() for c in results.cases if c.violations] == []


@pytest.mark.parametrize("name", list(scenarios.names(long=False)))
def test_scenario(results: Results, name: str) -> None:
    if error := results.scenarios[name]:
        raise error
