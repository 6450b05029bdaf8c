"""Metrics over weighed choices, with lm-eval's normalisations."""

from collections.abc import Callable, Mapping, Sequence

from evaljob_runner.metrics.base import Choice, Definition

METRICS: Mapping[str, Definition] = {
    "acc": Definition(choose=lambda c: c.total),
    "acc_norm": Definition(choose=lambda c: c.total / c.characters),
    "acc_bytes": Definition(choose=lambda c: c.total / c.bytes),
}


def best(choices: Sequence[Choice], choose: Callable[[Choice], float]) -> int:
    """The choice that a metric picks."""
    values = [choose(choice) for choice in choices]
    return values.index(max(values))
