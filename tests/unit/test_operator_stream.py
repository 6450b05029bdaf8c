"""Events between the thread of a watch and the event loop."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from evaljob_operator.api import ApiError, Json, UnreachableError
from evaljob_operator.stream import AT_ONCE, Stream, objects


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


LISTS = [
    '{"kind":"JobList","metadata":{"continue":"x"},"items":[{"n":1},{"n":"ä]},{"},{"n":3}]}',
    '{"apiVersion":"v1","items":[{"n":1},{"n":"ä]},{"},{"n":3}],"kind":"JobList","metadata":{"continue":"x"}}',
    '{"kind": "JobList", "metadata": {"continue": "x"}, "items": [{"n": 1}, {"n": "ä]},{"}, {"n": 3}]}',
    '{"kind":"JobList","metadata":{"continue":"x"},"items":[{"n":1}, {"n":"ä]},{"}\n,{"n":3} ] }\n',
]


@pytest.mark.parametrize("text", LISTS)
@pytest.mark.parametrize("size", [1, 7, 33, 1000])
def test_the_objects_of_a_list_come_one_by_one_however_it_is_cut(text: str, size: int) -> None:
    """Kubernetes' own kinds have their metadata first, custom ones last; what lies between may write it anew."""
    found: list[Json] = []
    content = text.encode()
    rest = objects((content[i : i + size] for i in range(0, len(content), size)), found.append)
    assert [o["n"] for o in found] == [1, "ä]},{", 3]
    assert (rest["metadata"], rest["kind"]) == ({"continue": "x"}, "JobList")
    assert "items" not in rest


@pytest.mark.parametrize("items", ["[]", "null"])
def test_a_list_may_be_empty(items: str) -> None:
    found: list[Json] = []
    rest = objects([f'{{"items":{items},"metadata":{{}}}}'.encode()], found.append)
    assert (found, rest) == ([], {"metadata": {}})


def test_an_object_is_taken_before_the_list_has_ended() -> None:
    """So that there is never more than one of them."""
    found: list[Json] = []

    def pieces() -> Iterator[bytes]:
        yield b'{"items":['
        for number in range(5):
            yield b'{"n":%d},' % number
            assert found[-1] == {"n": number}
        yield b'{"n":5}],"metadata":{}}'

    objects(pieces(), found.append)
    assert len(found) == 6


@pytest.mark.parametrize("text", ['{"items":[{"n":1},{"n":2', "<html>", ""])
def test_a_torn_list_is_no_list(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|delimiter"):
        objects([text.encode()], lambda _: None)
