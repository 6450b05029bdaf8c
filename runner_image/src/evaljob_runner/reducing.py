"""The scores of a sample's repeats -> one score per sample, as a metric's `reduce` says."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import comb, fsum
from typing import NamedTuple

from evaljob.metrics import KINDS, binary
from evaljob.result import MetricInfo
from evaljob.scoring import Metric
from evaljob_runner.metrics.base import Definition
from evaljob_runner.samples import Score


class Reduced(NamedTuple):
    """The score of a sample, and how many items it is the mean of."""

    value: float
    weight: int


@dataclass(frozen=True)
class Reduction:
    """One number of a result: a metric, and how the repeats of a sample become one score."""

    metric: Metric
    info: MetricInfo
    floor: float
    """The score of a sample without an answer."""
    k: int | None = None
    """Of pass@k."""

    def reduce(self, repeats: Sequence[Score]) -> Reduced:
        """The score of one sample."""
        return Reduced(self._value(repeats), repeats[0].weight)

    def _value(self, repeats: Sequence[Score]) -> float:
        if self.k is not None:
            return float(pass_at_k(sum(score.value == 1 for score in repeats), len(repeats), self.k))
        if self.metric.reduce and self.metric.reduce.majority:
            return majority(repeats, self.floor)
        return float(sum(Fraction(score.value) for score in repeats) / len(repeats))


def reductions(metric: Metric, definition: Definition, repeats: int, *, turns: bool) -> list[Reduction]:
    """The numbers that a metric gives, in order; the first of a primary metric is the primary one.

    Args:
        metric: the metric.
        definition: how it is computed.
        repeats: answers per sample.
        turns: whether the score of an answer is itself a mean, over the turns of a conversation.
    """
    ks = (metric.reduce and metric.reduce.pass_at_k) or (None,)
    kind = KINDS[metric.name]
    votes = bool(metric.reduce and metric.reduce.majority)
    return [
        Reduction(
            metric,
            MetricInfo(
                key=key,
                primary=metric.primary and key == metric.result_keys[0],
                higher_is_better=definition.higher_is_better,
                # Only then is the score of a sample still 0 or 1.
                binary=binary(metric) and not turns and (repeats == 1 or votes or k == repeats),
                weighted=definition.weight is not None,
                aggregation=kind.aggregation,
            ),
            definition.lowest(metric),
            k,
        )
        for k, key in zip(ks, metric.result_keys, strict=True)
        if k is None or k <= repeats
    ]


def pass_at_k(passed: int, n: int, k: int) -> Fraction:
    """The chance that at least one of k answers, drawn from n of which some passed, is right.

    The unbiased estimator of Chen et al. (2021), "Evaluating Large Language Models Trained on Code", equation 1.
    """
    return 1 - Fraction(comb(n - passed, k), comb(n, k))


def majority(repeats: Sequence[Score], floor: float) -> float:
    """The score of the most frequent extracted answer; of equally frequent ones the first counts.

    Repeats without an answer do not vote; without any vote the score is the floor.
    """
    votes = Counter(score.extracted for score in repeats if score.extracted is not None)
    if not votes:
        return floor
    ((winner, _),) = votes.most_common(1)
    return next(score.value for score in repeats if score.extracted == winner)


def mean(turns: list[Score], *, weighted: bool) -> Score:
    """The score of a conversation."""
    items = sum(score.weight for score in turns)
    value = fsum(score.value * score.weight for score in turns) / items
    return Score(value=value, weight=items if weighted else 1, turns=turns)
