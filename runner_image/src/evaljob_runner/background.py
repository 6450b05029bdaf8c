"""Scores that take time (programs, judges): made beside the model, which need not wait for them."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Barrier
from typing import NamedTuple, Protocol

from evaljob_runner.samples import AnswerKey, InferenceLine, Made, ScoreLine, without_prompt
from evaljob_runner.sandbox import kernel, room
from evaljob_runner.sandbox.run import START_SECONDS
from evaljob_runner.scoring import Scorer


class Worker(Protocol):
    """Makes some of an answer's scores."""

    def begin(self, line: InferenceLine) -> list[Future[Made]]:
        """What it makes of a finished answer, later; none where it has nothing to do."""

    def close(self) -> None:
        """Make nothing more."""


class Programs:
    """Runs the programs of finished answers, a bounded number at once. To be closed.

    Args:
        scorer: of the task.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._pool: ThreadPoolExecutor | None = None

    def begin(self, line: InferenceLine) -> list[Future[Made]]:
        """The scores by metrics that execute programs.

        The future raises Fatal (BadData, for tests that can judge no program) and Retry, where none can be started.
        """
        if self._scorer.memory is None:
            return []
        if self._pool is None:
            # When the model is loaded: what it left of the memory counts, and drivers look into their own /proc.
            kernel.hide()
            self._pool = _all_started(room.workers(self._scorer.memory))
        return [self._pool.submit(self._scorer.executed, line)]

    def close(self) -> None:
        """End what runs."""
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


def _all_started(workers: int) -> ThreadPoolExecutor:
    """A pool whose threads are there before any program runs, which may leave no room for another."""
    pool, together = ThreadPoolExecutor(workers), Barrier(workers, timeout=START_SECONDS)
    list(pool.map(lambda _: together.wait(), range(workers)))
    return pool


class _Begun(NamedTuple):
    line: InferenceLine
    parts: list[Future[Made]]


class Background:
    """Scores answers with the help of workers.

    Args:
        scorer: of the task. What no worker makes is scored where it is asked for.
        workers: their owner closes them.
    """

    def __init__(self, scorer: Scorer, *workers: Worker) -> None:
        self._scorer, self._workers = scorer, workers
        self._begun: dict[AnswerKey, _Begun] = {}
        self._ended: SimpleQueue[AnswerKey] = SimpleQueue()
        self._parts: Counter[AnswerKey] = Counter()
        """How many are there, of each answer begun."""

    def begin(self, line: InferenceLine) -> ScoreLine | None:
        """The scores of an answer, or None where they take time: `ended` has them later."""
        if not self._scorer.takes_time:
            return self._scorer.scores(line)
        key, line = (line.id, line.repeat), without_prompt(line)
        parts = [part for worker in self._workers for part in worker.begin(line)]
        if not parts:
            return self._scorer.scores(line)
        self._begun[key] = _Begun(line, parts)
        for part in parts:
            part.add_done_callback(lambda _: self._ended.put(key))
        return None

    @property
    def waiting(self) -> int:
        """Answers that were begun and have not ended."""
        return len(self._begun)

    def ended(self, *, wait: bool = False) -> Iterator[tuple[InferenceLine, ScoreLine]]:
        """Answers whose scores have come since the last call, in any order.

        Args:
            wait: for the next one, if any is still to come.

        Raises:
            Fatal, Retry: what a worker raised.
        """
        while self._begun and (wait or not self._ended.empty()):
            key = self._ended.get()
            self._parts[key] += 1
            line, parts = self._begun[key]
            if self._parts[key] < len(parts):
                continue
            del self._begun[key], self._parts[key]
            made: Made = {name: score for part in parts for name, score in part.result().items()}
            yield line, self._scorer.scores(line, made)
            wait = False
