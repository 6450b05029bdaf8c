"""A call that hangs is told of, all others are not."""

import queue
import threading
import time

from evaljob_runner.backends.watchdog import Watchdog


def test_a_call_that_does_not_return_in_time_is_told_of_once() -> None:
    told = queue.SimpleQueue[str]()
    watchdog = Watchdog(0.05, lambda: told.put("hung"))
    with watchdog.watching(), watchdog.guard():
        assert told.get(timeout=5) == "hung"
        time.sleep(0.1)
    assert told.empty()


def test_time_between_calls_does_not_count() -> None:
    """The consumer of answers may be slow: it scores them."""
    hung = threading.Event()
    watchdog = Watchdog(0.08, hung.set)
    with watchdog.watching():
        for _ in range(3):
            with watchdog.guard():
                pass
            assert not hung.wait(0.1)


def test_nothing_watches_afterwards() -> None:
    watchdog = Watchdog(0.05, lambda: None)
    before = threading.active_count()
    with watchdog.watching():
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
