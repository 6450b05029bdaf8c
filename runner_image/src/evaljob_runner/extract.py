"""Answers -> the values that metrics compare: small named pipelines."""

import json
import re
from collections.abc import Callable
from itertools import islice
from typing import Any, NoReturn

from evaljob.task import Step, Take, Task

Json = Any
"""A JSON value."""
Pipeline = Callable[[str], Json]
"""The value in an answer, or None: NoAnswer."""
_NUMBER = re.compile(r"(?:(?<![\w.])-)?\d+(?:,\d{3})*(?:\.\d+)?")
_FENCE = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
_STARTS_MAX = 1000
"""Brackets that are tried: a model may write a million of them."""
_VALUE_START = re.compile(r"[\[{]")


def pipelines(task: Task) -> dict[str, Pipeline]:
    """The task's pipelines by name."""
    return {name: _pipeline(steps) for name, steps in task.extract.items()}


def _pipeline(steps: tuple[Step, ...]) -> Pipeline:
    functions = [_step(step) for step in steps]

    def run(answer: str) -> Json:
        found: Json = answer
        for function in functions:
            found = function(found if isinstance(found, str) else json.dumps(found))
            if found is None:
                return None
        return found

    return run


def _step(step: Step) -> Pipeline:
    if step.regex is not None:
        return _regex(re.compile(step.regex), last=step.take is Take.LAST)
    if step.remove is not None:
        unwanted = re.compile(step.remove)
        return lambda text: unwanted.sub("", text)
    return _last_number if step.last_number is not None else first_json


def _regex(pattern: re.Pattern[str], *, last: bool) -> Pipeline:
    group = 1 if pattern.groups else 0

    def find(text: str) -> str | None:
        found = [match[group] for match in pattern.finditer(text)]
        return (found[-1] if last else found[0]) if found else None

    return find


def _last_number(text: str) -> str | None:
    found = _NUMBER.findall(text)
    return found[-1].replace(",", "") if found else None


def first_json(text: str) -> Json:
    """The whole text (or what a code fence holds) as JSON, else the first object or array; None without one."""
    try:
        return _first_json(text)
    except RecursionError:
        # Deeper than can be read or written: as good as none, and every inner bracket would end here again.
        return None


def _first_json(text: str) -> Json:
    fenced = _FENCE.search(text)
    for whole in (text, fenced[1] if fenced else ""):
        found, end = _decoded(whole, len(whole) - len(whole.lstrip()))
        if end and not whole[end:].strip():
            return found
    starts = islice(_VALUE_START.finditer(text), _STARTS_MAX)
    values = (_decoded(text, match.start()) for match in starts)
    return next((found for found, end in values if end), None)


def _decoded(text: str, start: int) -> tuple[Json, int]:
    """The JSON value that starts there and where it ends; 0 where none does."""
    try:
        found, end = _DECODER.raw_decode(text, start)
    except ValueError:
        return None, 0
    json.dumps(found)
    return found, end


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
