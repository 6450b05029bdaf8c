"""Metrics over weighed choices, with lm-eval's normalisations."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from evaljob_runner.metrics.base import Choice, Definition

METRICS: Mapping[str, Definition] = {
    "acc": Definition(choose=lambda c: c.total),
    "acc_norm": Definition(choose=lambda c: c.total / c.characters),
    "acc_bytes": Definition(choose=lambda c: c.total / c.bytes),
    "mc2": Definition(share=lambda c: c.total),
}


def best(choices: Sequence[Choice], choose: Callable[[Choice], float]) -> int:
    """The choice that a metric picks."""
    values = [choose(choice) for choice in choices]
    return values.index(max(values))


def right_share(choices: Sequence[Choice], share: Callable[[Choice], float], right: Collection[int]) -> float:
    """The part of the right choices in all of them (TruthfulQA's MC2, Lin et al. 2022)."""
    logs = [share(choice) for choice in choices]
    parts = [math.exp(log - max(logs)) for log in logs]
    return math.fsum(parts[i] for i in right) / math.fsum(parts)
