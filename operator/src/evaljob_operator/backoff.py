"""Waiting longer: after each failure, and after what has taken long."""

from collections.abc import Callable

RARELY = 10
"""The time between two expensive looks is at least so many times as long as the last one took."""


def rest(interval: float, took: float) -> float:
    """Seconds to leave something alone that took so many, and is otherwise due each `interval`."""
    return max(interval, RARELY * took)


class Backoff:
    """Delays in seconds that double from `lowest` to `highest`, each shortened by up to half at random.

    The jitter keeps many failing EvalJobs from asking in step.
    """

    def __init__(self, random: Callable[[], float], lowest: float = 1.0, highest: float = 60.0) -> None:
        self._random = random
        self._lowest = lowest
        self._highest = highest
        self._next = lowest

    def after_failure(self) -> float:
        """How long to wait now."""
        delay = self._next * (0.5 + self._random() / 2)
        self._next = min(self._next * 2, self._highest)
        return delay

    def reset(self) -> None:
        """It worked: the next failure waits the shortest time again."""
        self._next = self._lowest
