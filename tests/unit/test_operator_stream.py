"""Events between the thread of a watch and the event loop."""

import asyncio
import json

import pytest

from evaljob_operator.api import ApiError, Json, UnreachableError
from evaljob_operator.stream import AT_ONCE, Stream


async def taken(stream: Stream) -> list[list[Json]]:
    return [batch async for batch in stream.batches()]


async def test_a_burst_is_decoded_in_small_batches_and_in_order() -> None:
    """While a pass takes seconds, thousands of events come; decoded, they would take five times the room."""
    stream, count = Stream(asyncio.get_running_loop()), 2 * AT_ONCE + 1
    for number in range(count):
        stream.put(json.dumps({"n": number}).encode())
    stream.end(None)
    batches = await taken(stream)
    assert [len(b) for b in batches] == [AT_ONCE, AT_ONCE, 1]
    assert [event["n"] for b in batches for event in b] == list(range(count))


async def test_events_before_an_error_are_not_lost() -> None:
    stream = Stream(asyncio.get_running_loop())
    stream.put(b'{"n": 1}')
    stream.end(ApiError(500, "InternalError", "broken"))
    batches = stream.batches()
    assert await anext(batches) == [{"n": 1}]
    with pytest.raises(ApiError, match="broken"):
        await anext(batches)


async def test_an_event_that_is_no_json_ends_the_watch() -> None:
    stream = Stream(asyncio.get_running_loop())
    stream.put(b'{"n": ')
    with pytest.raises(UnreachableError, match="no JSON"):
        await taken(stream)
