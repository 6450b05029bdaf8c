"""A process that is of no use any more ends by itself; whoever started it starts a new one.

Two ways to be of no use: the event loop stands still, or one watch has fallen silent for good while the API server
answers everybody else. An outage is neither: then nobody is answered, and a restart would help nothing.
"""

import asyncio
import faulthandler
import logging
import os
import time
from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)
BLOCKED = 120.0
"""Seconds that one turn of the event loop may take. Merging 10,000 partitions takes two, on a busy machine ten."""
QUIET = 130.0
"""Seconds in which each watch is heard of: bookmarks come every 60, a silent one is dialled again after 68."""
STALE = 180.0
"""Seconds that a watch may be quiet for longer than that, while others are heard of."""
INTERVAL = 5.0
EXIT_CODE = 70
"""EX_SOFTWARE of sysexits.h."""


Silence = tuple[str, str, float]
"""Namespace, resource, and seconds since its watch was last heard of."""


class Freshness:
    """Whether one of several watches has fallen silent for good while the API server answers everybody else."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str], float] = {}
        """When each of those that are silent was first found so."""

    def stale(self, silences: Iterable[Silence], answered: float, now: float) -> str | None:
        """What is stale, in words.

        Args:
            silences: of all watches.
            answered: seconds since the last answer to a request.
            now: the time, in seconds of a monotonic clock.
        """
        ages = {(namespace, resource): seconds for namespace, resource, seconds in silences}
        spoken = min([answered, *ages.values()]) <= QUIET
        silent = [watch for watch, seconds in ages.items() if seconds > QUIET] if spoken else []
        self._since = {watch: self._since.get(watch, now) for watch in silent}
        for watch, since in self._since.items():
            if now - since >= STALE:
                return (
                    f"{watch[0]}/{watch[1]}: nothing heard for {ages[watch]:.0f} s while others are answered"
                )
        return None


async def keep(
    silences: Callable[[], Iterable[Silence]],
    answered_at: Callable[[], float],
    clock: Callable[[], float] = time.monotonic,
    blocked: float = BLOCKED,
) -> None:
    """Watch over this process until cancelled, and end it when it is of no use any more.

    The timer is a thread of the interpreter in C: Python code that never returns cannot hold it up. What all threads
    were doing goes to standard error.
    """
    freshness = Freshness()
    try:
        while True:
            faulthandler.dump_traceback_later(blocked, exit=True)
            if why := freshness.stale(silences(), clock() - answered_at(), clock()):
                log.critical("%s: ending, to begin anew", why)
                os._exit(EXIT_CODE)
            await asyncio.sleep(INTERVAL)
    finally:
        faulthandler.cancel_dump_traceback_later()
