"""What an API server tells, as it comes: the objects of a list, and events on their way to the event loop."""

import asyncio
import codecs
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

from evaljob_operator.api import ApiError, Json, UnreachableError

ITEMS = '"items":['
"""After this a list of the API has its objects, with commas and nothing else between them."""
AT_ONCE = 10
"""Events that are decoded at the same time, to five times their size as text."""


class Stream:
    """The events of one watch: one wake-up of the loop per batch. They wait as text, however many there are."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._events: deque[bytes] = deque()
        self._awake = asyncio.Event()
        self._called = False
        self._ended = False
        self._stopped = False
        self._error: ApiError | None = None
        self._shutdown: Callable[[], None] | None = None

    def put(self, event: bytes) -> None:
        """In the thread: one more event."""
        self._events.append(event)
        self._call()

    def end(self, error: ApiError | None) -> None:
        """In the thread: the stream is over."""
        self._error = error
        self._ended = True
        self._call()

    def opened(self, shutdown: Callable[[], None]) -> None:
        """In the thread: how to interrupt its reading."""
        self._shutdown = shutdown
        if self._stopped:
            raise UnreachableError("stopped")

    def _call(self) -> None:
        # Whoever clears `_called` drains afterwards, so what was appended before this test is not lost.
        if not self._called and not self._loop.is_closed():
            self._called = True
            self._loop.call_soon_threadsafe(self._awake.set)

    def stop(self) -> None:
        """In the loop: nobody listens any more."""
        self._stopped = True
        if self._shutdown is not None and not self._ended:
            try:
                self._shutdown()
            except (OSError, RuntimeError, ValueError):
                return  # It ended at this very moment.

    async def batches(self) -> AsyncIterator[list[Json]]:
        """In the loop: the events there are, at most `AT_ONCE` at a time.

        Raises:
            UnreachableError: one of them is no JSON.
        """
        while True:
            await self._awake.wait()
            self._awake.clear()
            self._called = False
            ended = self._ended
            for left in range(len(self._events), 0, -AT_ONCE):
                yield [self._next() for _ in range(min(left, AT_ONCE))]
            if ended:
                if self._error is not None:
                    raise self._error
                return

    def _next(self) -> Json:
        line = self._events.popleft()
        try:
            event: Json = json.loads(line)
        except ValueError as error:
            raise UnreachableError(f"an event that is no JSON: {line[:80]!r}") from error
        return event


def lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The whole lines of a body that comes in pieces; a torn last one is dropped."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line)


def objects(chunks: Iterable[bytes], take: Callable[[Json], object]) -> Json:
    """Give `take` the objects of a list, one after the other; what is left of the list.

    As a whole, 100 Jobs are 7 MiB of objects, and Python's garbage collector looks at all of them many times.

    Raises:
        ValueError: it is no JSON.
    """
    utf8 = codecs.getincrementaldecoder("utf-8")()
    text, head, begun, torn = "", "", 0, 0
    for chunk in chunks:
        text, begun = text[begun:] + utf8.decode(chunk), 0
        # An object of a mebibyte is not tried with each of its pieces.
        if len(text) < 2 * torn:
            continue
        if not head and (found := text.find(ITEMS)) >= 0:
            begun = found + len(ITEMS)
            head = text[:begun]
        if head:
            begun = _take_whole(text, begun, take)
            torn = len(text) - begun
    rest: Json = json.loads(head + text[begun:])
    for obj in rest.pop("items", None) or ():
        take(obj)
    return rest


def _take_whole(text: str, begun: int, take: Callable[[Json], object]) -> int:
    """Those that are there as a whole, separator included; where the next one begins."""
    decode = json.JSONDecoder().raw_decode
    while text.startswith("{", begun):
        try:
            obj, end = decode(text, begun)
        except ValueError:
            break
        if text[end : end + 1] != ",":
            break
        take(obj)
        begun = end + 1
    return begun
