"""How often pods that wait are looked at, and those of finished Jobs."""

from datetime import UTC, datetime

import pytest

from evaljob.planning import Settings
from evaljob_operator.api import Json
from evaljob_operator.pods import PodLists, pause
from evaljob_operator.world import World
from tests.unit.builders import job_view
from tests.unit.fakeapi import FakeApi


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


async def test_a_job_that_goes_while_its_pods_are_listed_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is made again has not been looked up."""
    api, jobs = FakeApi(), {"a": job_view("a", uid="1"), "b": job_view("b", uid="2")}
    request = api.request

    async def told_meanwhile(*of: str, **rest: object) -> Json:
        jobs.clear()
        jobs["a"] = job_view("a", uid="3")
        return await request(*of, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(api, "request", told_meanwhile)
    lists = PodLists(_world(api), "evals", "nightly")
    await lists.look_up(("a", "b", "c"), jobs)
    assert lists.listed == {"1"}


def _world(api: FakeApi) -> World:
    return World(
        api=api,
        informers={},
        catalogue={},
        settings=Settings(),
        now=lambda: datetime.now(UTC),
        monotonic=lambda: 0.0,
        random=lambda: 0.0,
    )
