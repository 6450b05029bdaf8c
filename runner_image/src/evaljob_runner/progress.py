"""What is told while a partition runs, and how long its phases take."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

PROGRESS_SECONDS = 10


@dataclass
class Progress:
    """One JSON line at the start, each 10 seconds, and at the end.

    Args:
        out: where lines go.
        clock: monotonic seconds.
    """

    out: TextIO
    clock: Callable[[], float] = time.monotonic
    _total: int = 0
    _done: int = 0
    _before: int = 0
    _started: float = 0.0
    _told: float = 0.0

    def start(self, *, done: int, total: int) -> None:
        """Inference begins; `done` samples were finished by earlier attempts."""
        self._total, self._done, self._before = total, done, done
        self._started = self._told = self.clock()
        self._tell(self._started)

    def step(self) -> None:
        """One more sample is finished."""
        self._done += 1
        now = self.clock()
        if now - self._told >= PROGRESS_SECONDS or self._done == self._total:
            self._told = now
            self._tell(now)

    def _tell(self, now: float) -> None:
        rate = (self._done - self._before) / max(now - self._started, 1e-3)
        line = {
            "type": "progress",
            "done": self._done,
            "total": self._total,
            "rate": round(rate, 3),
            "secondsLeft": round((self._total - self._done) / rate) if rate else None,
        }
        print(json.dumps(line), file=self.out, flush=True)


@dataclass
class Stopwatch:
    """Wall time by phase."""

    seconds: Counter[str] = field(default_factory=Counter)
    clock: Callable[[], float] = time.monotonic

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of a block to a phase."""
        begin = self.clock()
        try:
            yield
        finally:
            self.add(name, self.clock() - begin)

    def add(self, name: str, seconds: float) -> None:
        """Add to a phase."""
        self.seconds[name] += seconds  # type: ignore[assignment]
