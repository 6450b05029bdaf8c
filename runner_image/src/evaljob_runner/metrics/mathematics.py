"""Mathematical equality of an answer and a gold answer, by math-verify in a child process.

The library stops long computations with SIGALRM, which is the runner's deadline here, and sympy can hang in C:
a process of its own can always be ended.
"""

import json
import sys
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector
from subprocess import PIPE, Popen

from evaljob.names import Reason
from evaljob.scoring import Metric
from evaljob_runner.errors import Retry
from evaljob_runner.extract import Json
from evaljob_runner.metrics.base import Compare, Definition, Verdict, as_text, library

LIMIT_SECONDS = 30
"""For one answer. The child's own limits, 5 s for each step, come first."""
_START_SECONDS = 120
_COMMAND = (sys.executable, "-m", "evaljob_runner.metrics.math_child")


class Verifier:
    """A child process that compares. It ends with this object, or with the process: its standard input closes.

    Args:
        limit: seconds for one comparison.
        command: what the child runs.
    """

    def __init__(self, limit: float = LIMIT_SECONDS, command: Sequence[str] = _COMMAND) -> None:
        self._limit, self._command = limit, command
        self._child: Popen[str] | None = None

    def equal(self, gold: str, answer: str) -> Verdict:
        """1 where both are the same in mathematics; an answer that takes too long is not."""
        self._child = self._child or self._start()
        reply = _reply(self._child, json.dumps([gold, answer]), self._limit)
        if reply:
            return Verdict(float(json.loads(reply)))
        self._child = None
        return Verdict(0, f"the comparison was ended after {self._limit:g} seconds, or crashed")

    def _start(self) -> "Popen[str]":
        child = Popen(self._command, stdin=PIPE, stdout=PIPE, text=True)
        weakref.finalize(self, _end, child)
        if not _reply(child, '["1", "1"]', _START_SECONDS):
            raise Retry(Reason.DEPENDENCY_UNAVAILABLE, "the process that compares mathematics did not start")
        return child


def _reply(child: "Popen[str]", line: str, limit: float) -> str:
    """The child's next line; "" where none comes in time, and then the child is gone."""
    if child.stdin is None or child.stdout is None:
        raise ValueError("a child without pipes")
    with DefaultSelector() as selector, suppress(BrokenPipeError):
        selector.register(child.stdout, EVENT_READ)
        print(line, file=child.stdin, flush=True)
        if selector.select(limit) and (reply := child.stdout.readline()):
            return reply
    _end(child)
    return ""


def _end(child: "Popen[str]") -> None:
    child.kill()
    child.communicate()  # closes the pipes, also where a line is still unwritten


def _math_equal(metric: Metric) -> Compare:
    library("math_verify")
    verifier = Verifier()
    extracted = metric.extract is not None

    def compare(value: Json, targets: Sequence[str]) -> Verdict:
        # An extracted answer is bare LaTeX; in a whole answer the library looks for the last formula.
        answer = f"${as_text(value)}$" if extracted else as_text(value)
        verdicts = [verifier.equal(target, answer) for target in targets]
        return max(verdicts, key=lambda verdict: verdict.value)

    return compare


METRICS: Mapping[str, Definition] = {"math_equal": Definition(_math_equal)}
