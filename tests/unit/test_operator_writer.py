"""Many writes at once."""

import asyncio
from collections.abc import Awaitable

import pytest

from evaljob_operator.api import ApiError
from evaljob_operator.writer import AT_ONCE, several


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
