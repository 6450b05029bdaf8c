"""What becomes of an answer: its line in the sample log, its scores, and what people see of it."""

from collections import Counter
from collections.abc import Iterator

from evaljob.names import Reason
from evaljob_runner.asking import Ask
from evaljob_runner.background import Background
from evaljob_runner.errors import Retry
from evaljob_runner.preparing import Prepared
from evaljob_runner.preview import Preview
from evaljob_runner.progress import Progress
from evaljob_runner.samples import AnswerKey, InferenceLine, SampleLog, ScoreLine, without_prompt
from evaljob_runner.tally import Scored

KEPT = 1024
"""Answers that are kept in memory."""


class Recorder:
    """Takes one attempt's answers to a partition.

    Args:
        prepared: the partition.
        log: of this attempt, with what earlier ones left.
        background: where scores that need programs are made.
        progress: told of each finished answer.
    """

    def __init__(
        self, prepared: Prepared, log: SampleLog, background: Background, progress: Progress
    ) -> None:
        self._prepared, self._log, self._background, self._progress = prepared, log, background, progress
        self._preview = Preview(progress.out, prepared.work.task.primary.key)
        self._kept: dict[AnswerKey, tuple[InferenceLine, ScoreLine]] = {}
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
        """Write down what came of a question; a final answer with its scores, unless they need programs.

        Raises:
            Retry: when the log cannot be written.
        """
        if not line.outcome.final:
            self._log.append(line)
            self._preview.show(line)
            self._failed, self._last = self._failed + 1, line
            return
        if (outcome := self._prepared.scorer.outcome(line)) is not line.outcome:
            line = line.model_copy(update={"outcome": outcome})
        scores = self._background.begin(line)
        self._log.append(line, *([scores] if scores else []))
        self._preview.show(line, scores)
        self._keep(line, scores)
        self._progress.step()

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
        lines = (self._log.answer((e.id, n)) for e in entries() for n in repeats)
        asked = (e for e in entries() for _ in repeats)
        for entry, (line, outcome, scores) in zip(asked, self._background.scores(lines), strict=True):
            if not self._log.holds(scores):
                self._log.append(scores)
                self._preview.show(line, scores)
            inherited = self._log.inherited((line.id, line.repeat))
            yield Scored(entry, line, outcome, scores, from_log=inherited)
