"""Answers -> scores. A metric's semantics are lm-eval's where it has one of that name.

A family is a module with a mapping `METRICS`; a new one is added to `REGISTRY` below and nowhere else.
"""

import re
from collections.abc import Mapping

from evaljob.names import Reason
from evaljob.scoring import Metric
from evaljob.task import RequestType, Task
from evaljob_runner.errors import Fatal
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


def definition(metric: Metric, task: Task) -> Definition:
    """The definition that a task's metric names.

    Raises:
        Fatal: BadConfiguration, for an unknown metric or argument, or one that does not fit the request type.
    """
    if problem := _problem(metric, task):
        raise Fatal(Reason.BAD_CONFIGURATION, f"metrics: {metric.key}: {problem}")
    return REGISTRY[metric.name]


def _problem(metric: Metric, task: Task) -> str | None:
    found = REGISTRY.get(metric.name)
    if found is None:
        return f"unknown, use one of {', '.join(sorted(REGISTRY))}"
    weighs = task.request_type is RequestType.LOG_LIKELIHOOD
    if not _fits(found, weighs=weighs):
        fitting = sorted(n for n, d in REGISTRY.items() if _fits(d, weighs=weighs))
        return f"not for requestType {task.request_type}, use one of {', '.join(fitting)}"
    if weighs == bool(metric.extract) and (weighs or found.labelled):
        return (
            "a log-likelihood metric has no extract"
            if weighs
            else "counts what a pipeline finds: needs extract"
        )
    if (metric.program is None) != (found.execute is None):
        return "program and tests: needed by code_exec, and only there"
    if metric.reduce and metric.reduce.pass_at_k and not found.binary:
        return "reduce.passAtK needs a metric whose scores are 0 or 1"
    return _argument_problem(metric, found)


def _fits(found: Definition, *, weighs: bool) -> bool:
    return found.choose is not None if weighs else (found.compare or found.execute) is not None


def _argument_problem(metric: Metric, found: Definition) -> str | None:
    if unknown := metric.args.keys() - found.args.keys():
        known = ", ".join(sorted(found.args)) or "none"
        return f"unknown args {', '.join(sorted(unknown))}; known: {known}"
    if missing := found.required - metric.args.keys():
        return f"needs args {', '.join(sorted(missing))}"
    for name, value in metric.args.items():
        if not re.fullmatch(found.args[name], value):
            return f"args.{name}: {value!r} does not match {found.args[name]}"
    return None
