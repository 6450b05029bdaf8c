"""Metrics over weighed choices, with lm-eval's normalisations."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from evaljob.stats import NATS_MAX
from evaljob_runner.metrics.base import Choice, Definition


def best(choices: Sequence[Choice], choose: Callable[[Choice], float]) -> int:
    """The choice that a metric picks."""
    values = [choose(choice) for choice in choices]
    return values.index(max(values))


def _share(choices: Sequence[Choice], right: Collection[int]) -> float:
    """The part of the right choices in all of them (TruthfulQA's MC2, Lin et al. 2022)."""
    largest = max(choice.total for choice in choices)
    parts = [math.exp(choice.total - largest) for choice in choices]
    return math.fsum(parts[i] for i in right) / math.fsum(parts)


def _greedy(choices: Sequence[Choice], right: Collection[int]) -> float:
    """Whether the model, when it is asked to go on, says a right choice first (LAMBADA's accuracy)."""
    return float(any(choices[i].greedy for i in right))


def _nats(choices: Sequence[Choice], right: Collection[int]) -> float:
    """Of the likeliest right choice."""
    return min(-choices[i].total for i in right)


METRICS: Mapping[str, Definition] = {
    "acc": Definition(choose=lambda c: c.total),
    "acc_norm": Definition(choose=lambda c: c.total / c.characters),
    "acc_bytes": Definition(choose=lambda c: c.total / c.bytes),
    "mc2": Definition(right=_share),
    "greedy_match": Definition(right=_greedy),
    "perplexity": Definition(right=_nats, higher_is_better=False, floor=NATS_MAX),
}
