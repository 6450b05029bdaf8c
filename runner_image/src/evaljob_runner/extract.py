"""Answers -> the values that metrics compare: small named pipelines."""

import json
import re
from collections.abc import Callable
from itertools import islice
from typing import Any, NoReturn

from evaljob.scoring import Empty, Step, Take
from evaljob.task import Task
from evaljob_runner.surrogates import half, replaced

Json = Any
"""A JSON value."""
Pipeline = Callable[[str], Json]
"""The value in an answer, or None: NoAnswer."""
_NUMBER = re.compile(r"(?:(?<![\w.])-)?\d+(?:,\d{3})*(?:\.\d+)?")
_FENCE = re.compile(r"```\w*\n(.*?)```", re.DOTALL)
_CODE = re.compile(r"```[\w+-]*[^\S\n]*\n(.*?)(?:\n?```|\Z)", re.DOTALL)
_TOOL_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_BOX = re.compile(r"\\f?box(?:ed)?\s*\{")
_BRACE = re.compile(r"\\[{}\\]|[{}]")
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
    functions: tuple[tuple[Empty | None, Pipeline], ...] = (
        (step.last_number, _last_number),
        (step.strip, str.strip),
        (step.boxed, _boxed),
        (step.code_fence, _code_fence),
        (step.first_capital, _first_capital),
        (step.json_value, first_json),
        (step.tool_calls, tool_calls),
    )
    return next(function for given, function in functions if given is not None)


def _regex(pattern: re.Pattern[str], *, last: bool) -> Pipeline:
    def find(text: str) -> str | None:
        found = list(pattern.finditer(text))
        return _kept(found[-1 if last else 0]) if found else None

    return find


def _kept(match: re.Match[str]) -> str | None:
    """The whole match, its group, or of several groups the first that holds something, as in lm-eval."""
    groups = match.groups()
    if len(groups) > 1:
        return next(filter(None, groups), None)
    return groups[0] if groups else match[0]


def _last_number(text: str) -> str | None:
    found = _NUMBER.findall(text)
    return found[-1].replace(",", "") if found else None


def _boxed(text: str) -> str | None:
    """The last box that closes: models write unfinished ones when they run out of tokens."""
    for match in reversed(list(_BOX.finditer(text))):
        if (end := _closing(text, match.end())) is not None:
            return text[match.end() : end]
    return None


def _closing(text: str, start: int) -> int | None:
    """Where the brace that is open at `start` closes; escaped braces are text."""
    depth = 1
    for brace in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if not depth:
            return brace.start()
    return None


def _code_fence(text: str) -> str:
    found = _CODE.search(text)
    return found[1] if found else text


def _first_capital(text: str) -> str | None:
    found = re.search("[A-Z]", text)
    return found[0] if found else None


def tool_calls(text: str) -> Json:
    """The calls that a local model writes, in the form of a server's: a list; None where one of them is no JSON."""
    blocks = _TOOL_CALL.findall(text)
    if not blocks:
        return first_json(text)
    found = [first_json(block) for block in blocks]
    return None if None in found else found


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
    written = json.dumps(found, ensure_ascii=False)
    # What a text spells as \\ud83d alone is half a character, which no log can hold.
    return (json.loads(replaced(written)) if half(written) else found), end


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
