"""An event loop that never sleeps: when there is nothing to do, its clock jumps to the next timer."""

import asyncio
import selectors


class _Selector(selectors.DefaultSelector):
    """Looks for what is ready, and lets the clock jump instead of waiting for it.

    Attributes:
        now: The loop's time, in seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout:
            self.now += timeout
        return ready


class HurriedLoop(asyncio.SelectorEventLoop):
    """Waits cost nothing, and a busy machine changes no order of events. For code without threads and sockets."""

    def __init__(self) -> None:
        self._jumping = _Selector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """The time of the jumping clock."""
        return self._jumping.now
