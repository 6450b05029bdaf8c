"""One partition, from documents to a result. Read this file first."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from evaljob.names import Reason
from evaljob.result import Lint, PartitionResult
from evaljob_runner import lint, report
from evaljob_runner.asking import Asker
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.base import Backend
from evaljob_runner.background import Background, Programs
from evaljob_runner.checkpoints import Checkpoint
from evaljob_runner.errors import Fatal
from evaljob_runner.judging import Judges, OpenJudge
from evaljob_runner.opening import open_judge
from evaljob_runner.preparing import Prepared, prepare
from evaljob_runner.progress import Progress, Stopwatch
from evaljob_runner.recording import Recorder
from evaljob_runner.samplelog import SampleLog
from evaljob_runner.tally import Tally

GIVE_UP_AFTER = 10
"""Samples in a row without an answer: the server is gone, and each of them waited for all its retries."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shell:
    """What a partition needs of the outside."""

    open_backend: Callable[[Assignment, Checkpoint | None], Backend]
    progress: Progress
    stopwatch: Stopwatch
    watch: Callable[[SampleLog], None]
    """Told of the sample log, so that a signal can say whether anything was added."""
    score_only: bool = False
    """Make the scores again from the sample log; ask the model nothing, and judges only what is new to them."""
    open_judge: OpenJudge = open_judge


def evaluate(work: Assignment, shell: Shell) -> PartitionResult:
    """Evaluate a partition. Everything that can be refused is refused before the model loads.

    Raises:
        Fatal: when trying again cannot help.
        Retry: when samples are left for another attempt.
    """
    with TemporaryDirectory() as scratch:
        return _evaluate(prepare(work, shell.stopwatch, Path(scratch)), shell)


def _evaluate(prepared: Prepared, shell: Shell) -> PartitionResult:
    tally = Tally(prepared.scorer)
    device = "none"
    if len(prepared.selection.samples):
        with _recorder(prepared, shell) as recorder:
            if left := recorder.left():
                if shell.score_only:
                    raise _not_in_the_log(prepared, left)
                backend = shell.open_backend(prepared.work, prepared.checkpoint)
                device = backend.device
                with shell.stopwatch.phase("infer"):
                    _infer(prepared.asker(backend), recorder)
            with shell.stopwatch.phase("score"):
                tally.add(recorder.scored())
    return report.result(prepared, tally, _lint(prepared, tally), device, shell.stopwatch.seconds)


def _infer(asker: Asker, recorder: Recorder) -> None:
    """Ask the model, write down what it says.

    Raises:
        Retry: when some questions got no answer; the answers to the others are in the log.
    """
    in_a_row = 0
    with closing(asker.lines(recorder.asks())) as lines:
        for line in lines:
            recorder.record(line)
            in_a_row = 0 if line.outcome.final else in_a_row + 1
            if in_a_row >= GIVE_UP_AFTER:
                break
    recorder.refuse_gaps()


@contextmanager
def _recorder(prepared: Prepared, shell: Shell) -> Iterator[Recorder]:
    work, scorer = prepared.work, prepared.scorer
    with (
        closing(SampleLog(work.places.out / work.folder, work.attempt, prepared.digest)) as log,
        closing(Programs(scorer)) as programs,
        closing(Judges(work, scorer, log.judgements, shell.open_judge)) as judges,
    ):
        shell.watch(log)
        yield Recorder(prepared, log, Background(scorer, programs, judges), shell.progress)


def _not_in_the_log(prepared: Prepared, left: int) -> Fatal:
    total = len(prepared.selection.samples) * len(prepared.repeats)
    return Fatal(
        Reason.SAMPLES_LEFT,
        f"--score-only: {left} of {total} answers are not in the sample log under inference digest "
        f"{prepared.digest[:12]}; run once without --score-only",
    )


def _lint(prepared: Prepared, tally: Tally) -> tuple[Lint, ...]:
    """What makes the result suspect, said in the process's log too."""
    looked = [lint.Looked(*pair) for pair in zip(prepared.first_prompts, tally.doubled_bos, strict=True)]
    found = lint.prompts(looked) + tally.outputs.found()
    for item in found:
        _log.warning("suspect: %s in %d samples", item.code, item.count)
    return found
