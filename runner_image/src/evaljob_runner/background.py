"""Scores that need programs to run: made beside the model, which need not wait for them."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from evaljob_runner.samples import AnswerKey, InferenceLine, Outcome, Score, ScoreLine, without_prompt
from evaljob_runner.sandbox import kernel, room
from evaljob_runner.scoring import Scorer


class Background:
    """Runs the programs of finished answers, a bounded number at once. To be closed: nothing runs on after that.

    Args:
        scorer: of the task. Only what it executes runs here; all else is scored where it is asked for.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._pool: ThreadPoolExecutor | None = None
        self._begun: dict[AnswerKey, Future[Mapping[str, Score]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def begin(self, line: InferenceLine) -> ScoreLine | None:
        """The scores of an answer, or None where they take programs, which then begin to run."""
        if self._scorer.memory is None:
            return self._scorer.scores(line)
        if self._pool is None:
            # When the model is loaded: what it left of the memory counts, and drivers look into their own /proc.
            kernel.hide()
            self._pool = ThreadPoolExecutor(room.workers(self._scorer.memory))
        self._begun[line.id, line.repeat] = self._pool.submit(self._scorer.executed, without_prompt(line))
        return None

    def scores(self, lines: Sequence[InferenceLine]) -> Iterator[tuple[Outcome, ScoreLine]]:
        """Outcomes and scores in order, as they are there.

        Raises:
            Fatal: BadData, for tests that can judge no program.
            Retry: when programs cannot be started.
        """
        if self._scorer.memory is None:
            yield from map(self._scorer.score, lines)
            return
        for line in lines:
            if (line.id, line.repeat) not in self._begun:
                self.begin(line)
        for line in lines:
            executed = self._begun.pop((line.id, line.repeat)).result()
            yield self._scorer.score(line, executed)
