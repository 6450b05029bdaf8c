"""Many writes at once, and summaries that come late."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from evaljob.packing import Packed
from evaljob.spec import EvalJob
from evaljob_operator.api import ApiError, ConflictError, Json
from evaljob_operator.backoff import Backoff
from evaljob_operator.informer import informers
from evaljob_operator.metrics import Metrics
from evaljob_operator.writer import AT_ONCE, Writer, several
from tests.unit import builders
from tests.unit.fakeapi import FakeApi


class Writes:
    """Counts what runs."""

    def __init__(self) -> None:
        self.running = self.most = self.begun = 0

    async def one(self, number: int, failing: int = -1) -> None:
        self.begun += 1
        self.running += 1
        self.most = max(self.most, self.running)
        # Those of even number take longer than the others.
        for _ in range(1 + 3 * (number % 2 == 0)):
            await asyncio.sleep(0)
        self.running -= 1
        if number == failing:
            raise ApiError(500, "InternalError", "broken")


def many(writes: Writes, failing: int = -1) -> Awaitable[None]:
    return several(writes.one(number, failing) for number in range(10 * AT_ONCE))


async def test_a_giant_leaves_requests_to_others() -> None:
    writes = Writes()
    await many(writes)
    assert (writes.begun, writes.most, writes.running) == (10 * AT_ONCE, AT_ONCE, 0)


async def test_after_an_error_no_further_write_begins_and_those_that_run_end() -> None:
    writes = Writes()
    with pytest.raises(ApiError, match="broken"):
        await many(writes, failing=AT_ONCE)
    assert AT_ONCE < writes.begun <= 3 * AT_ONCE
    assert writes.running == 0


async def test_when_the_time_is_up_no_further_write_begins() -> None:
    """While 250 Jobs were made one by one, outcomes waited for 15 seconds."""
    writes = Writes()
    await several((writes.one(number) for number in range(AT_ONCE)), 0.0)
    assert writes.begun == 0
    slow = (asyncio.sleep(0.03) for _ in range(100 * AT_ONCE))
    async with asyncio.timeout(1):
        await several(slow, 0.05)
    left = list(slow)
    assert left
    for write in left:
        write.close()


SUMMARY = "/api/v1/namespaces/evals/configmaps/nightly-summary"


def at(version: str) -> EvalJob:
    """The EvalJob as it was at that resourceVersion."""
    of = builders.evaljob()
    return of.model_copy(update={"metadata": of.metadata.model_copy(update={"resource_version": version})})


def text(words: str) -> Packed:
    return Packed({"summary.md": words}, {})


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def writer(api: FakeApi) -> Writer:
    watched = informers(api, "evals", lambda _: None, lambda: Backoff(lambda: 0.0))
    return Writer(api, "evals", watched, Metrics())


def written(api: FakeApi) -> str:
    found: str = api.objects[SUMMARY]["data"]["summary.md"]
    return found


@pytest.mark.parametrize("seen", ["6", "7"])
async def test_a_summary_of_mid_run_never_replaces_the_last(api: FakeApi, writer: Writer, seen: str) -> None:
    """A second operator had begun it when the first finished the EvalJob."""
    await writer.summary(at("6"), text("first"), over=False)
    await writer.summary(at("7"), text("last"), over=True)
    await writer.summary(at(seen), text("stale"), over=False)
    assert written(api) == "last"
    writes = len(api.writes)
    await writer.summary(at("7"), text("last"), over=True)
    assert len(api.writes) == writes


async def test_after_a_retry_the_last_summary_is_replaced(api: FakeApi, writer: Writer) -> None:
    await writer.summary(at("7"), text("last"), over=True)
    await writer.summary(at("9"), text("again"), over=False)
    assert written(api) == "again"
    await writer.summary(at("9"), text("more"), over=False)
    assert written(api) == "more"


async def test_a_summary_that_arrives_late_meets_a_newer_one(
    api: FakeApi, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await writer.summary(at("6"), text("first"), over=False)
    request = api.request

    async def late(method: str, path: str, **rest: Any) -> Json:  # noqa: ANN401 - as the API has them
        if method == "PATCH":
            monkeypatch.setattr(api, "request", request)
            await writer.summary(at("7"), text("last"), over=True)
        return await request(method, path, **rest)

    monkeypatch.setattr(api, "request", late)
    with pytest.raises(ConflictError):
        await writer.summary(at("6"), text("stale"), over=False)
    assert written(api) == "last"
