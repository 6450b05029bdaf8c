"""Scores that need programs to run: made beside the model, which need not wait for them."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from evaljob_runner.samples import AnswerKey, InferenceLine, Outcome, Score, ScoreLine, without_prompt
from evaljob_runner.sandbox import kernel, room
from evaljob_runner.scoring import Scorer

AHEAD = 256
"""Answers of earlier attempts whose programs may wait for a place: enough to keep every process busy."""


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

    def scores(self, lines: Iterable[InferenceLine]) -> Iterator[tuple[InferenceLine, Outcome, ScoreLine]]:
        """Answers with their outcomes and scores, in order, as they are there.

        Raises:
            Fatal: BadData, for tests that can judge no program.
            Retry: when programs cannot be started.
        """
        if self._scorer.memory is None:
            for line in lines:
                yield line, *self._scorer.score(line)
            return
        ahead: deque[InferenceLine] = deque()
        for line in lines:
            if (line.id, line.repeat) not in self._begun:
                self.begin(line)
            ahead.append(line)
            if len(ahead) > AHEAD:
                yield self._executed(ahead.popleft())
        while ahead:
            yield self._executed(ahead.popleft())

    def _executed(self, line: InferenceLine) -> tuple[InferenceLine, Outcome, ScoreLine]:
        executed = self._begun.pop((line.id, line.repeat)).result()
        return line, *self._scorer.score(line, executed)
