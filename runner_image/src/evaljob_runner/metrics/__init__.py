"""Answers -> scores. A metric's semantics are lm-eval's where it has one of that name.

A family is a module with a mapping `METRICS`. A new metric is added there and to `evaljob.metrics.KINDS`, a new
family to `REGISTRY` below.
"""

from collections.abc import Mapping

from evaljob_runner.metrics import (
    calls,
    choices,
    instructions,
    judged,
    mathematics,
    overlap,
    perplexity,
    programs,
    structured,
    text,
)
from evaljob_runner.metrics.base import Definition

FAMILIES = (
    choices,
    perplexity,
    text,
    structured,
    overlap,
    calls,
    mathematics,
    instructions,
    programs,
    judged,
)
REGISTRY: Mapping[str, Definition] = {
    name: found for family in FAMILIES for name, found in family.METRICS.items()
}
