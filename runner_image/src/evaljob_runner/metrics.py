"""Answers -> scores. The semantics are lm-eval's where it has a metric of that name."""

import json
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evaljob.names import Reason
from evaljob.result import MetricInfo
from evaljob.task import Metric, RequestType, Task
from evaljob_runner.errors import Fatal
from evaljob_runner.extract import Json, first_json

Args = Mapping[str, str]


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
    """A metric of the registry. `score` compares an extracted answer, `choose` weighs choices: one of both."""

    score: Callable[[Json, str, Args], bool] | None = None
    choose: Callable[[Choice], float] | None = None
    """What is maximised; the first of equal choices wins, as with numpy's argmax."""
    args: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    binary: bool = True
    higher_is_better: bool = True
    floor: float = 0.0
    """The score of a sample without an answer."""


def as_text(value: Json) -> str:
    """A text as it is, any other JSON value in one spelling."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _normal(text: str, args: Args) -> str:
    """lm-eval's order: case, punctuation, numbers."""
    if args.get("ignore_case") == "true":
        text = text.lower()
    if args.get("ignore_punctuation") == "true":
        text = text.translate(str.maketrans("", "", string.punctuation))
    if args.get("ignore_numbers") == "true":
        text = re.sub("[0-9]", "", text)
    return text


def _exact_match(value: Json, target: str, args: Args) -> bool:
    return _normal(as_text(value), args) == _normal(target, args)


def _contains(value: Json, target: str, args: Args) -> bool:
    return _normal(target, args) in _normal(as_text(value), args)


def _json_valid(value: Json, _target: str, _args: Args) -> bool:
    return not isinstance(value, str) or first_json(value) is not None


def _field_match(value: Json, target: str, args: Args) -> bool:
    found = first_json(value) if isinstance(value, str) else value
    field = args["field"]
    return isinstance(found, dict) and field in found and as_text(found[field]) == target


_NORMALISATIONS = frozenset({"ignore_case", "ignore_punctuation", "ignore_numbers"})
REGISTRY: Mapping[str, Definition] = {
    "contains": Definition(_contains, args=_NORMALISATIONS),
    "exact_match": Definition(_exact_match, args=_NORMALISATIONS),
    "json_valid": Definition(_json_valid),
    "field_match": Definition(_field_match, args=frozenset({"field"}), required=frozenset({"field"})),
    "acc": Definition(choose=lambda c: c.total),
    "acc_norm": Definition(choose=lambda c: c.total / c.characters),
    "acc_bytes": Definition(choose=lambda c: c.total / c.bytes),
}


def info(task: Task) -> tuple[MetricInfo, ...]:
    """What the task's numbers mean.

    Raises:
        Fatal: BadConfiguration, for an unknown metric or argument, or one that does not fit the request type.
    """
    return tuple(_info(metric, task) for metric in task.metrics)


def _info(metric: Metric, task: Task) -> MetricInfo:
    if problem := _problem(metric, task):
        raise Fatal(Reason.BAD_CONFIGURATION, f"metrics: {metric.key}: {problem}")
    definition = REGISTRY[metric.name]
    return MetricInfo(
        key=metric.key,
        primary=metric.primary,
        higher_is_better=definition.higher_is_better,
        binary=definition.binary,
    )


def _problem(metric: Metric, task: Task) -> str | None:
    definition = REGISTRY.get(metric.name)
    if definition is None:
        return f"unknown, use one of {', '.join(sorted(REGISTRY))}"
    weighs = task.request_type is RequestType.LOG_LIKELIHOOD
    if weighs != (definition.choose is not None):
        fitting = sorted(n for n, d in REGISTRY.items() if (d.choose is not None) == weighs)
        return f"not for requestType {task.request_type}, use one of {', '.join(fitting)}"
    if weighs and metric.extract:
        return "a log-likelihood metric has no extract"
    if unknown := metric.args.keys() - definition.args:
        known = ", ".join(sorted(definition.args)) or "none"
        return f"unknown args {', '.join(sorted(unknown))}; known: {known}"
    if missing := definition.required - metric.args.keys():
        return f"needs args {', '.join(sorted(missing))}"
    flags = {n: v for n, v in metric.args.items() if n in _NORMALISATIONS and v not in ("true", "false")}
    return f"args {flags}: must be 'true' or 'false'" if flags else None


def best(choices: Sequence[Choice], choose: Callable[[Choice], float]) -> int:
    """The choice that a log-likelihood metric picks."""
    values = [choose(choice) for choice in choices]
    return values.index(max(values))
