"""One partition, from documents to a result. Read this file first."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from evaljob import metrics
from evaljob.names import Reason
from evaljob.plan import incompatible, programs_problem, repeats_problem
from evaljob.result import Lint, PartitionResult
from evaljob_runner import checkpoints, data, digest, generation, lint, report, tokens
from evaljob_runner.asking import Ask, Asker
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.base import Backend
from evaljob_runner.background import Background
from evaljob_runner.checkpoints import Checkpoint
from evaljob_runner.data import Sample
from evaljob_runner.errors import Fatal, Retry
from evaljob_runner.preview import Preview
from evaljob_runner.prompts import Prompt, Prompter
from evaljob_runner.report import Progress, Scored, Stopwatch
from evaljob_runner.samples import AnswerKey, InferenceLine, Outcome, SampleLog, without_prompt
from evaljob_runner.scoring import Scorer

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
    """Make the scores again from the sample log; ask the model nothing."""


def evaluate(work: Assignment, shell: Shell) -> PartitionResult:
    """Evaluate a partition. Everything that can be refused is refused before the model loads.

    Raises:
        Fatal: when trying again cannot help.
        Retry: when samples are left for another attempt.
    """
    refuse_unsupported(work)
    repeats = work.planned.dataset.repeats
    scorer = Scorer(work.task, repeats)
    confined_by = scorer.confine()
    selection = data.select(work.planned.dataset, work.task, work.partition, work.places)
    report.refuse_too_large(work, scorer, selection.counts)
    prompter = Prompter(work.task, selection.pools, chat=work.chat, seed=generation.example_seed(work))
    refuse_targets(scorer, prompter, selection.samples)
    for sample in selection.samples:
        scorer.document(sample)
    sampling = generation.resolve(work.generation, work.model.generation)
    with shell.stopwatch.phase("load"):
        checkpoint = checkpoints.find(work)
    inference_digest = digest.inference(work, sampling, checkpoint, selection.digest)
    folder = f"{work.partition.model}/{work.partition.dataset}"
    scored: list[Scored] = []
    found: tuple[Lint, ...] = ()
    device = "none"
    if selection.samples:
        first = [prompter.prompt(s) for s in selection.samples[: lint.FIRST_PROMPTS]]
        with (
            closing(SampleLog(work.places.out / folder, work.attempt, inference_digest)) as log,
            Background(scorer) as background,
        ):
            shell.watch(log)
            asks = [Ask(sample, n) for sample in selection.samples for n in range(repeats)]
            todo = [ask for ask in asks if ask.key not in log.finished]
            shell.progress.start(done=len(asks) - len(todo), total=len(asks))
            new: dict[AnswerKey, InferenceLine] = {}
            preview = Preview(shell.progress.out, work.task.primary.key)
            if todo:
                refuse_asking(shell, len(todo), len(asks), inference_digest)
                backend = shell.open_backend(work, checkpoint)
                device = backend.device
                asker = Asker(work, prompter, sampling, inference_digest, backend, scorer.document)
                new = _infer(asker, scorer, log, todo, shell, preview, background)
            scored = _score(background, log, asks, new, shell, preview)
        found = _look(first, scored)
        found += lint.outputs(lint.Ended(s.outcome, s.line.requests[0].output) for s in scored)
    for item in found:
        _log.warning("suspect: %s in %d samples", item.code, item.count)
    return report.result(
        work,
        selection,
        scored,
        scorer=scorer,
        confined_by=confined_by,
        inference_digest=inference_digest,
        prompt_digest=tokens.combined(s.line.requests[0].prompt_digest for s in scored if s.line.repeat == 0),
        lint=found,
        seconds=shell.stopwatch.seconds,
        device=device,
        weights=str(checkpoint) if checkpoint else "served",
        folder=folder,
    )


def refuse_unsupported(work: Assignment) -> None:
    """Refuse pairs that acceptance refuses too: a plan may come from elsewhere.

    Raises:
        Fatal: UnsupportedRequest or BadConfiguration.
    """
    if bad := metrics.problem(work.task):
        raise Fatal(Reason.BAD_CONFIGURATION, bad)
    if why := incompatible(work.model, work.task):
        raise work.unsupported(why)
    if problem := repeats_problem(work.planned.dataset, work.task, work.model):
        raise Fatal(Reason.BAD_CONFIGURATION, f"repeats: {problem}")
    if problem := programs_problem(work.planned):
        raise Fatal(Reason.BAD_CONFIGURATION, f"{problem}, and the dataset has no allowCodeExecution: true")


def refuse_targets(scorer: Scorer, prompter: Prompter, samples: Iterable[Sample]) -> None:
    """Refuse targets that a metric cannot read, before the model loads.

    Raises:
        Fatal: BadData.
    """
    if not scorer.checks:
        return
    for sample in samples:
        if problem := scorer.check(prompter.target(sample)):
            raise Fatal(Reason.BAD_DATA, f"{problem} ({sample.where})")


def refuse_asking(shell: Shell, left: int, total: int, inference_digest: str) -> None:
    """Refuse to load the model for what the log lacks, where only scores are to be made.

    Raises:
        Fatal: SamplesLeft.
    """
    if shell.score_only:
        raise Fatal(
            Reason.SAMPLES_LEFT,
            f"--score-only: {left} of {total} answers are not in the sample log under inference digest "
            f"{inference_digest[:12]}; run once without --score-only",
        )


def _look(first: Sequence[Prompt], scored: Iterable[Scored]) -> tuple[Lint, ...]:
    """Lint of the first prompts. What only a tokenizer sees is in the log: a finished partition loads none."""
    requests = {s.line.id: s.line.requests[0] for s in scored if s.line.repeat == 0}
    return lint.prompts(
        [lint.Looked(prompt, bool(requests[prompt.sample.id].doubled_bos)) for prompt in first]
    )


def _score(
    background: Background,
    log: SampleLog,
    asks: Sequence[Ask],
    new: Mapping[AnswerKey, InferenceLine],
    shell: Shell,
    preview: Preview,
) -> list[Scored]:
    """Score every answer, those of earlier attempts too: the task's metrics may have changed since."""
    scored = []
    with shell.stopwatch.phase("score"):
        lines = [new.get(ask.key) or log.finished[ask.key] for ask in asks]
        for ask, line, (outcome, scores) in zip(asks, lines, background.scores(lines), strict=True):
            if not log.holds(scores):
                log.append(scores)
                preview.show(line, scores)
            scored.append(Scored(ask.sample, line, outcome, scores, from_log=ask.key not in new))
    return scored


def _infer(
    asker: Asker,
    scorer: Scorer,
    log: SampleLog,
    todo: Iterable[Ask],
    shell: Shell,
    preview: Preview,
    background: Background,
) -> dict[AnswerKey, InferenceLine]:
    """Lines of all answers.

    Raises:
        Retry: when some got no answer; the others are in the log.
    """
    finished: dict[AnswerKey, InferenceLine] = {}
    left: list[InferenceLine] = []
    in_a_row = 0
    with shell.stopwatch.phase("infer"), closing(asker.lines(todo)) as lines:
        for line in lines:
            if line.outcome is Outcome.INFRA_ERROR:
                log.append(line)
                preview.show(line)
                left.append(line)
                in_a_row += 1
                if in_a_row >= GIVE_UP_AFTER:
                    break
                continue
            in_a_row = 0
            ended = line.model_copy(update={"outcome": scorer.outcome(line)})
            scores = background.begin(ended)
            log.append(ended, *([scores] if scores else []))
            preview.show(ended, scores)
            finished[line.id, line.repeat] = without_prompt(ended)
            shell.progress.step()
    if left:
        reason = Reason.SAMPLES_LEFT if finished else Reason.DEPENDENCY_UNAVAILABLE
        message = left[-1].error.message if left[-1].error else ""
        raise Retry(
            reason, f"{len(left)} samples got no answer, {len(finished)} did; the last said: {message}"
        )
    return finished
