"""All of a partition that can be known before its model loads, and everything that is refused until then."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaljob import judges, metrics
from evaljob.names import Reason
from evaljob.pairs import incompatible, programs_problem, repeats_problem
from evaljob.sizing import worst_case
from evaljob_runner import checkpoints, data, digest, generation, lint
from evaljob_runner.asking import Asker
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.base import Backend, Sampling
from evaljob_runner.checkpoints import Checkpoint
from evaljob_runner.data import Count, Selection
from evaljob_runner.errors import Fatal
from evaljob_runner.progress import Stopwatch
from evaljob_runner.prompts import Prompt, Prompter
from evaljob_runner.scoring import Scorer


@dataclass(frozen=True)
class Prepared:
    """A partition whose questions and metrics are known to be in order."""

    work: Assignment
    scorer: Scorer
    confined_by: str | None
    """By what the programs that metrics run are confined; None where none run."""
    selection: Selection
    prompter: Prompter
    sampling: Sampling
    checkpoint: Checkpoint | None
    """Of a local model; None for a server's."""
    digest: str
    """The inference digest."""
    first_prompts: tuple[Prompt, ...]
    """For lint; made before the model loads."""

    @property
    def repeats(self) -> range:
        """Of each sample."""
        return range(self.work.planned.dataset.repeats)

    def asker(self, backend: Backend) -> Asker:
        """What asks a backend."""
        return Asker(self.work, self.prompter, self.sampling, self.digest, backend, self.scorer.document)


def prepare(work: Assignment, stopwatch: Stopwatch, scratch: Path) -> Prepared:
    """Index the data, compile the task, look the model up.

    Args:
        work: the partition.
        stopwatch: told how long the model takes.
        scratch: a folder that stays while samples are read.

    Raises:
        Fatal: when trying again cannot help.
        Retry: when a hub or a bucket does not answer.
    """
    refuse_unsupported(work)
    scorer = Scorer(work.task, work.planned.dataset.repeats)
    confined_by = scorer.confine()
    selection = data.select(work.planned.dataset, work.task, work.partition, work.places, scratch)
    _refuse_too_large(work, scorer, selection.counts)
    prompter = Prompter(work.task, selection.pools, chat=work.chat, seed=generation.example_seed(work))
    _refuse_samples(scorer, prompter, selection)
    first_prompts = tuple(map(prompter.prompt, selection.samples.first(lint.FIRST_PROMPTS)))
    sampling = generation.resolve(work.generation, work.model.generation)
    with stopwatch.phase("load"):
        checkpoint = checkpoints.find(work)
    return Prepared(
        work=work,
        scorer=scorer,
        confined_by=confined_by,
        selection=selection,
        prompter=prompter,
        sampling=sampling,
        checkpoint=checkpoint,
        digest=digest.inference(work, sampling, checkpoint, selection.digest),
        first_prompts=first_prompts,
    )


def refuse_unsupported(work: Assignment) -> None:
    """Refuse pairs that acceptance refuses too: a plan may come from elsewhere.

    Raises:
        Fatal: UnsupportedRequest or BadConfiguration.
    """
    if bad := metrics.problem(work.task):
        raise Fatal(Reason.BAD_CONFIGURATION, bad)
    if missing := judges.problem(work.task, work.planned.judges):
        raise Fatal(Reason.BAD_CONFIGURATION, missing)
    if why := incompatible(work.model, work.task):
        raise work.unsupported(why)
    if problem := repeats_problem(work.planned.dataset, work.task, work.model):
        raise Fatal(Reason.BAD_CONFIGURATION, f"repeats: {problem}")
    if problem := programs_problem(work.planned):
        raise Fatal(Reason.BAD_CONFIGURATION, f"{problem}, and the dataset has no allowCodeExecution: true")


def _refuse_too_large(work: Assignment, scorer: Scorer, counts: Mapping[str, Count]) -> None:
    """Refuse a partition whose result would not fit its channel (ResultTooLarge)."""
    size = worst_case(
        partition=work.partition,
        metrics=scorer.info,
        subsets={name: (count.size, count.expected) for name, count in counts.items()},
        clustered=work.task.cluster is not None,
        labels=scorer.labels,
        largest=max([1.0, *(m.judge.largest for m in work.task.metrics if m.judge)]),
    )
    if problem := size.problem:
        raise Fatal(
            Reason.RESULT_TOO_LARGE,
            f"a result of {len(counts)} subsets x {len(scorer.info)} metrics can take {problem}: "
            "use fewer subsets, metrics or labels, or split the dataset in two",
        )


def _refuse_samples(scorer: Scorer, prompter: Prompter, selection: Selection) -> None:
    """Refuse expected answers and documents that a metric cannot read (BadData)."""
    if not (scorer.checks or scorer.takes_time):
        return
    for sample in selection.samples:
        for field, text in prompter.accepted(sample) if scorer.checks else ():
            if problem := scorer.check(text):
                raise Fatal(Reason.BAD_DATA, f"{field}: {problem} ({sample.where})")
        scorer.document(sample)
