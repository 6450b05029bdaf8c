"""How a process ends: its report, its exit code, and what signals do.

A report is written in place: the termination log is a bind mount, where a rename would replace nothing.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from evaljob.framing import TooLargeError, encode
from evaljob.jobs import EXIT_NEVER_AGAIN
from evaljob.names import Reason
from evaljob.result import PartitionResult, failure
from evaljob_runner.errors import Fatal, Retry, Stop
from evaljob_runner.samplelog import SampleLog

EXIT_COMPLETE = 0
EXIT_FAILED = 1
EXIT_TRY_AGAIN = 75
"""EX_TEMPFAIL of sysexits.h."""


class Ending:
    """Writes exactly one report.

    Args:
        result: the file of the report, usually the container's termination log.
    """

    def __init__(self, result: Path) -> None:
        self._result = result
        self._attempt: str | None = None
        self._log: SampleLog | None = None
        self._durable = False

    def know(self, *, attempt: str, durable: bool) -> None:
        """What only the plan says: which attempt this is, and whether its log outlives it."""
        self._attempt, self._durable = attempt, durable

    def watch(self, log: SampleLog) -> None:
        """The sample log that a signal has to close."""
        self._log = log

    def handle_signals(self) -> None:
        """End at once on SIGTERM and SIGINT: Python ignores SIGTERM as PID 1 unless there is a handler."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._interrupted)

    def set_deadline(self, seconds: float) -> None:
        """End softly after this many seconds, a grace period before the pod is killed."""
        signal.signal(signal.SIGALRM, self._too_late)
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))

    def complete(self, result: PartitionResult) -> int:
        """Report a result; from here on no signal can replace it."""
        try:
            text = encode(result)
        except TooLargeError as error:
            raise Fatal(Reason.RESULT_TOO_LARGE, str(error)) from error
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        self._write(text)
        return EXIT_COMPLETE

    def stop(self, end: Stop) -> int:
        """Report an end without a result."""
        self._write(encode(failure(end.reason, str(end), self._attempt)))
        return EXIT_NEVER_AGAIN if isinstance(end, Fatal) else EXIT_TRY_AGAIN

    def crash(self, error: Exception) -> int:
        """Report what should not have happened."""
        message = f"{type(error).__name__}: {error}"
        self._write(encode(failure(Reason.RUNNER_FAILED, message, self._attempt)))
        return EXIT_FAILED

    def _write(self, text: str) -> None:
        with self._result.open("w") as file:
            file.write(text)

    def _interrupted(self, number: int, _frame: FrameType | None) -> NoReturn:
        name = signal.Signals(number).name
        self.leave(Retry(Reason.INTERRUPTED, f"ended by {name}; {self._added()}"))

    def _too_late(self, _number: int, _frame: FrameType | None) -> NoReturn:
        """Another attempt helps only if it can go on where this one stopped."""
        added = self._log is not None and self._log.written + self._log.judged > 0
        kind = Retry if self._durable and added else Fatal
        advice = "" if kind is Retry else "; raise partitionDeadlineSeconds, use more shards, or set output"
        self.leave(
            kind(Reason.DEADLINE_EXCEEDED, f"partitionDeadlineSeconds is over; {self._added()}{advice}")
        )

    def _added(self) -> str:
        answers, judged = (self._log.written, self._log.judged) if self._log else (0, 0)
        return f"this attempt added {answers} samples to the log" + (
            f" and judged {judged}" if judged else ""
        )

    def leave(self, end: Stop) -> NoReturn:
        """Leave at once, from a signal handler or another thread: unwinding could wait for a forward pass."""
        if self._log:
            # Raised from here, it would end up in whatever code the signal came to.
            with contextlib.suppress(Stop):
                self._log.close()
        code = self.stop(end)
        sys.stdout.flush()
        os._exit(code)
