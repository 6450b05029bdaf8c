"""Two runs of one case -> every difference, with its reason where it has one."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

TOLERANCE = 1e-4
"""Of log-likelihoods in float32: batches of another shape round differently."""
RELATIVE = 1e-6
"""Of sums over a thousand tokens, which lm-eval makes in float32, and of scores made of them."""
OVERFLOW = "ContextOverflow"
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """What one side asked about a document and what came of it."""

    ids: tuple[Ids, ...]
    """The prompt's token ids; for choices context and continuation of each."""
    output: str | None
    weights: tuple[tuple[float, bool | None], ...]
    """Log-likelihood and whether it is greedy, per choice; of a text lm-eval does not tell the latter."""
    scores: Mapping[str, float]
    overflow: bool = False
    """Ours alone: the prompt does not fit the window."""


@dataclass(frozen=True)
class Run:
    """All samples by index, and the metrics with their standard errors."""

    samples: Mapping[int, Sample]
    metrics: Mapping[str, tuple[float, float | None]]


@dataclass(frozen=True)
class Difference:
    """Something that is not equal."""

    case: str
    kind: str
    where: str
    ours: object
    theirs: object
    why: str | None = None
    """Where it has a reason (docs/parity.md): its name."""


def compare(case: str, ours: Run, theirs: Run, precision: float) -> Iterator[Difference]:
    """Every difference between two runs; metrics may differ by `precision`, relative to their value."""
    if ours.samples.keys() != theirs.samples.keys():
        yield Difference(case, "samples", "all", sorted(ours.samples), sorted(theirs.samples))
        return
    for i, mine in ours.samples.items():
        yield from _sample(case, str(i), mine, theirs.samples[i])
    if ours.metrics.keys() != theirs.metrics.keys():
        yield Difference(case, "metrics", "all", sorted(ours.metrics), sorted(theirs.metrics))
        return
    why = OVERFLOW if any(sample.overflow for sample in ours.samples.values()) else None
    for name, (value, error) in ours.metrics.items():
        their_value, their_error = theirs.metrics[name]
        if not math.isclose(value, their_value, rel_tol=precision):
            yield Difference(case, "metric", name, value, their_value, why)
        if error is None or their_error is None:
            continue  # lm-eval has none for perplexities
        if not math.isclose(error, their_error, rel_tol=precision, abs_tol=1e-12):
            yield Difference(case, "stderr", name, error, their_error, why)


def _sample(case: str, where: str, ours: Sample, theirs: Sample) -> Iterator[Difference]:
    if ours.overflow:
        yield Difference(case, "sample", where, "ContextOverflow", theirs.ids, OVERFLOW)
        return
    if ours.ids != theirs.ids:
        yield Difference(case, "tokens", where, ours.ids, theirs.ids)
    if ours.output != theirs.output:
        yield Difference(case, "generation", where, ours.output, theirs.output)
    if len(ours.weights) != len(theirs.weights):
        yield Difference(case, "choices", where, len(ours.weights), len(theirs.weights))
    for (mine, greedy), (their, their_greedy) in zip(ours.weights, theirs.weights, strict=False):
        if not math.isclose(mine, their, rel_tol=RELATIVE, abs_tol=TOLERANCE):
            yield Difference(case, "log-likelihood", where, mine, their)
        if greedy != their_greedy:
            yield Difference(case, "greedy", where, greedy, their_greedy)
    if not _alike(ours.scores, theirs.scores):
        yield Difference(case, "score", where, ours.scores, theirs.scores)


def _alike(ours: Mapping[str, float], theirs: Mapping[str, float]) -> bool:
    return ours.keys() == theirs.keys() and all(
        math.isclose(ours[key], theirs[key], rel_tol=RELATIVE) for key in ours
    )
