"""Answers -> scores. A metric's semantics are lm-eval's where it has one of that name.

A family is a module with a mapping `METRICS`. A new metric is added there and to `evaljob.metrics.KINDS`, a new
family to `REGISTRY` below.
"""

from collections.abc import Mapping

from evaljob_runner.metrics import (
    calls,
    choices,
    instructions,
    mathematics,
    overlap,
    programs,
    structured,
    text,
)
from evaljob_runner.metrics.base import Definition

REGISTRY: Mapping[str, Definition] = {
    name: found
    for family in (choices, text, structured, overlap, calls, mathematics, instructions, programs)
    for name, found in family.METRICS.items()
}
