"""Ends an attempt whose engine no longer answers."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watchdog:
    """Calls `hung` when a guarded call has not returned in time.

    A thread and not a signal: Python runs a signal's handler only when the call that hangs has returned.

    Args:
        seconds: how long a call may take.
        hung: told once; usually leaves the process.
    """

    def __init__(self, seconds: float, hung: Callable[[], object]) -> None:
        self._seconds, self._hung = seconds, hung
        self._until = float("inf")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look after the calls guarded inside."""
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(over,), name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(min(1.0, self._seconds / 4)):
            if time.monotonic() > self._until:
                self._hung()
                return

    @contextmanager
    def guard(self) -> Iterator[None]:
        """One call that may hang."""
        self._until = time.monotonic() + self._seconds
        try:
            yield
        finally:
            self._until = float("inf")
