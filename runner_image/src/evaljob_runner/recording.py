"""What becomes of an answer: its line in the sample log, its scores, and what people see of it."""

from collections.abc import Iterator

from evaljob.names import Reason
from evaljob_runner.asking import Ask
from evaljob_runner.background import Background
from evaljob_runner.errors import Retry
from evaljob_runner.preparing import Prepared
from evaljob_runner.preview import Preview
from evaljob_runner.progress import Progress
from evaljob_runner.samples import AnswerKey, InferenceLine, SampleLog, without_prompt
from evaljob_runner.tally import Scored


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
        self._new: dict[AnswerKey, InferenceLine] = {}
        self._failed: list[InferenceLine] = []

    def missing(self) -> list[Ask]:
        """The questions that no attempt has a final answer to. Progress begins here."""
        asks = self._prepared.asks
        missing = [ask for ask in asks if ask.key not in self._log.finished]
        self._progress.start(done=len(asks) - len(missing), total=len(asks))
        return missing

    def record(self, line: InferenceLine) -> None:
        """Write down what came of a question; a final answer with its scores, unless they need programs.

        Raises:
            Retry: when the log cannot be written.
        """
        if not line.outcome.final:
            self._log.append(line)
            self._preview.show(line)
            self._failed.append(line)
            return
        line = line.model_copy(update={"outcome": self._prepared.scorer.outcome(line)})
        scores = self._background.begin(line)
        self._log.append(line, *([scores] if scores else []))
        self._preview.show(line, scores)
        self._new[line.id, line.repeat] = without_prompt(line)
        self._progress.step()

    def refuse_gaps(self) -> None:
        """End the attempt if a question got no answer; the answers of the others are in the log.

        Raises:
            Retry: SamplesLeft, or DependencyUnavailable where there was no answer at all.
        """
        if not self._failed:
            return
        reason = Reason.SAMPLES_LEFT if self._new else Reason.DEPENDENCY_UNAVAILABLE
        error = self._failed[-1].error
        raise Retry(
            reason,
            f"{len(self._failed)} samples got no answer, {len(self._new)} did; "
            f"the last said: {error.message if error else ''}",
        )

    def scored(self) -> Iterator[Scored]:
        """Every answer with its scores, in order; old ones are scored anew, as metrics may have changed.

        Raises:
            Fatal: when a metric cannot score at all.
            Retry: when it cannot now.
        """
        asks = self._prepared.asks
        lines = [self._new.get(ask.key) or self._log.finished[ask.key] for ask in asks]
        for ask, line, (outcome, scores) in zip(asks, lines, self._background.scores(lines), strict=True):
            if not self._log.holds(scores):
                self._log.append(scores)
                self._preview.show(line, scores)
            yield Scored(ask.sample, line, outcome, scores, from_log=ask.key not in self._new)
