"""What becomes of an answer: its line in the sample log, its scores, and what people see of it."""

import logging
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

from evaljob.names import Reason
from evaljob_runner.asking import Ask
from evaljob_runner.background import Background
from evaljob_runner.data import Entry
from evaljob_runner.errors import Retry
from evaljob_runner.preparing import Prepared
from evaljob_runner.preview import Preview
from evaljob_runner.progress import Progress
from evaljob_runner.samplelog import SampleLog
from evaljob_runner.samples import (
    AnswerKey,
    InferenceLine,
    ScoreLine,
    Unscored,
    without_prompt,
    without_words,
)
from evaljob_runner.tally import Scored

_log = logging.getLogger(__name__)
KEPT = 1024
"""Answers that are kept in memory."""
AHEAD = 1024
"""Answers that are being scored before the first of them is counted: enough to keep programs and judges busy."""


class Recorder:
    """Takes one attempt's answers to a partition.

    Args:
        prepared: the partition.
        log: of this attempt, with what earlier ones left.
        background: where scores that take time are made.
        progress: told of each finished answer.
    """

    def __init__(
        self, prepared: Prepared, log: SampleLog, background: Background, progress: Progress
    ) -> None:
        self._prepared, self._log, self._background, self._progress = prepared, log, background, progress
        self._preview = Preview(progress.out, prepared.work.task.primary.key)
        self._kept: dict[AnswerKey, tuple[InferenceLine, ScoreLine]] = {}
        self._late: set[AnswerKey] = set()
        """Answers whose scores take time, and are begun."""
        self._scores: dict[AnswerKey, ScoreLine] = {}
        """Not counted yet."""
        self._unscored: list[Unscored] = []
        self._failed = 0
        self._last: InferenceLine | None = None

    def left(self) -> int:
        """How many questions have no final answer yet. Progress begins here."""
        entries = self._prepared.selection.samples.entries()
        has = Counter(self._log.has((e.id, n)) for e in entries for n in self._prepared.repeats)
        self._progress.start(done=has[True], total=has.total())
        return has[False]

    def asks(self) -> Iterator[Ask]:
        """Those questions."""
        repeats = self._prepared.repeats
        samples = self._prepared.selection.samples.of(
            lambda name: not all(self._log.has((name, n)) for n in repeats)
        )
        return (Ask(sample, n) for sample in samples for n in repeats if not self._log.has((sample.id, n)))

    def record(self, line: InferenceLine) -> None:
        """Write down what came of a question; a final answer with its scores, unless they take time.

        Raises:
            Retry: when the log cannot be written, or a score cannot be made now.
            Fatal: when a score can never be made.
        """
        if not line.outcome.final:
            self._log.append(line)
            self._preview.show(line)
            self._failed, self._last = self._failed + 1, line
            return
        if (outcome := self._prepared.scorer.outcome(line)) is not line.outcome:
            line = line.model_copy(update={"outcome": outcome})
        scores = self._begin(line)
        self._log.append(line, *([scores] if scores else []))
        self._preview.show(line, scores)
        self._keep(line, scores)
        self._progress.step()
        self._note_ended()

    def refuse_gaps(self) -> None:
        """End the attempt if a question got no answer; the answers of the others are in the log.

        Raises:
            Retry: SamplesLeft, or DependencyUnavailable where there was no answer at all.
        """
        if self._last is None:
            return
        answers, error = self._log.written, self._last.error
        raise Retry(
            Reason.SAMPLES_LEFT if answers else Reason.DEPENDENCY_UNAVAILABLE,
            f"{self._failed} samples got no answer, {answers} did; the last said: {error.message if error else ''}",
        )

    def _keep(self, line: InferenceLine, scores: ScoreLine | None) -> None:
        """Few answers stay in memory with their scores; of many the log is read again."""
        if scores and self._log.written <= KEPT:
            self._kept[line.id, line.repeat] = without_prompt(line), scores
        else:
            self._kept.clear()

    def scored(self) -> Iterator[Scored]:
        """Every answer with its scores, in order; old ones are scored anew, as metrics may have changed.

        Raises:
            Fatal: when a metric cannot score at all.
            Retry: when it cannot now.
        """
        entries = self._prepared.selection.samples.entries
        repeats = self._prepared.repeats
        if len(self._kept) == len(self._prepared.selection.samples) * len(repeats):
            for entry in entries():
                for n in repeats:
                    line, scores = self._kept[entry.id, n]
                    yield Scored(entry, line, line.outcome, scores, from_log=False)
            return
        if waiting := self._background.waiting:
            _log.info("%d answers wait for their scores", waiting)
        ahead: deque[tuple[Entry, InferenceLine]] = deque()
        room = AHEAD if self._prepared.scorer.takes_time else 0
        for pair in self._begun():
            ahead.append(pair)
            if len(ahead) > room:
                yield from self._counted(*ahead.popleft())
        while ahead:
            yield from self._counted(*ahead.popleft())
        self._refuse_unscored()

    def _begun(self) -> Iterator[tuple[Entry, InferenceLine]]:
        """Every answer, read back; its scores are there or begun."""
        for entry, document in self._documents():
            for n in self._prepared.repeats:
                line = self._log.answer((entry.id, n)).model_copy(update={"doc": document})
                if (entry.id, n) not in self._late and (scores := self._begin(line)):
                    self._note(line, scores)
                yield entry, line

    def _documents(self) -> Iterator[tuple[Entry, dict[str, Any] | None]]:
        """What scoring needs of each document. The log has what it needed when the answer was written."""
        samples, scorer = self._prepared.selection.samples, self._prepared.scorer
        if not scorer.takes_time:
            return ((entry, None) for entry in samples.entries())
        return zip(samples.entries(), map(scorer.document, samples), strict=True)

    def _begin(self, line: InferenceLine) -> ScoreLine | None:
        scores = self._background.begin(line)
        if scores is None:
            self._late.add((line.id, line.repeat))
        return scores

    def _counted(self, entry: Entry, line: InferenceLine) -> Iterator[Scored]:
        """An answer with its scores; none from the first on that has not all of them."""
        key = line.id, line.repeat
        while key not in self._scores:
            self._note_ended(wait=True)
        scores = self._scores.pop(key)
        self._unscored += (scores.errors or {}).values()
        if not self._unscored:
            outcome = self._prepared.scorer.outcome(line)
            yield Scored(entry, line, outcome, scores, from_log=self._log.inherited(key))

    def _refuse_unscored(self) -> None:
        if self._unscored:
            raise Retry(
                Reason.SAMPLES_LEFT,
                f"{len(self._unscored)} scores are missing (ScorerError); the last: {self._unscored[-1].message}",
            )

    def _note_ended(self, *, wait: bool = False) -> None:
        for line, scores in self._background.ended(wait=wait):
            # With its prompt, which does not wait in memory.
            self._note(self._log.answer((line.id, line.repeat)), scores)

    def _note(self, line: InferenceLine, scores: ScoreLine) -> None:
        """Write down scores, and keep them until they are counted."""
        if not self._log.holds(scores):
            self._log.append(scores)
            self._preview.show(line, scores)
        self._scores[line.id, line.repeat] = without_words(scores)
