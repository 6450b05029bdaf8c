"""What a metric is. Each family of metrics is one module beside this one; the package collects them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from evaljob_runner.extract import Json

Args = Mapping[str, str]
FLAG = "true|false"
TEXT = "(?s:.+)"


class Verdict(NamedTuple):
    """The score of one answer."""

    value: float
    explanation: str | None = None
    """Why, where the number does not say it; goes to the sample log."""


Compare = Callable[[Json, str], Verdict]
"""(extracted answer, target) -> verdict."""


@dataclass(frozen=True)
class Choice:
    """What a log-likelihood metric sees of one choice."""

    total: float
    """Sum of natural log-probabilities."""
    characters: int
    bytes: int
    """In UTF-8, without the delimiter, as are `characters`."""


@dataclass(frozen=True)
class Definition:
    """A metric of the registry: `compare` for answers or `choose` for weighed choices, one of both."""

    compare: Callable[[Args], Compare] | None = None
    """Called once per process, before the model loads: heavy libraries are imported here and nowhere else."""
    choose: Callable[[Choice], float] | None = None
    """What is maximised; the first of equal choices wins, as with numpy's argmax."""
    args: Mapping[str, str] = field(default_factory=dict)
    """Known arguments, each with the pattern of its values."""
    required: frozenset[str] = frozenset()
    binary: bool = True
    """Scores are 0 or 1. Otherwise any finite number."""
    higher_is_better: bool = True
    floor: float = 0.0
    """The score of a sample without an answer."""


def simple(score: Callable[[Json, str, Args], float]) -> Callable[[Args], Compare]:
    """The comparison of a metric that needs no preparation."""
    return lambda args: lambda value, target: Verdict(float(score(value, target, args)))


def as_text(value: Json) -> str:
    """A text as it is, any other JSON value in one spelling."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
