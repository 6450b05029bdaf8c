"""Function calls: which, in which order, with which arguments.

An answer is a JSON object or a list of them: `{"name": …, "arguments": {…}}`, also spelled `action` and `args`
(T-Eval) or `parameters` (Llama), or OpenAI's tool call around it with arguments as JSON in a text, or each in a
`<tool_call>`, as Hermes and Qwen write them. A target is a JSON list of such calls, or of BFCL's
`{name: {argument: [accepted values]}}`, where the accepted value "" means that the argument may be absent.

Written-out calls are meant as they stand. BFCL's are read as bfcl-eval reads Python's, but for what it takes from the
functions' declarations, which are no part of a target: texts, also in a list or an object, are equal but for case,
blanks, some punctuation and the kind of quotation mark. Members of an accepted object have lists of accepted values
in turn; what is nested deeper is meant as it stands.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from evaljob.scoring import Metric
from evaljob_runner.extract import Json, tool_calls
from evaljob_runner.metrics.base import Compare, Definition, Verdict

_ABSENT = ""
_UNIMPORTANT = str.maketrans("'", '"', " ,./-_*^")
_NAMES, _ARGUMENTS = ("name", "action"), ("arguments", "args", "parameters")


@dataclass(frozen=True)
class Call:
    """One call in an answer."""

    name: str
    arguments: Mapping[str, Json]


@dataclass(frozen=True)
class Expected:
    """One call in a target: each argument with the values that are accepted."""

    name: str
    arguments: Mapping[str, Sequence[Json]]
    is_one: Callable[[Json, Sequence[Json]], bool]
    """(argument, accepted values) -> whether it is one of them."""
    optional: frozenset[str] = frozenset()
    """Arguments that may be absent."""

    def accepts(self, call: Call) -> bool:
        """Whether name, arguments and their types are right."""
        return not call.arguments.keys() - self.arguments.keys() and all(self.parts(call))

    def parts(self, call: Call) -> list[bool]:
        """What is right: the name, then each expected argument."""
        return [call.name == self.name, *_members(call.arguments, self.arguments, self.is_one, self.optional)]


def _members(
    found: Mapping[str, Json],
    wanted: Mapping[str, Sequence[Json]],
    is_one: Callable[[Json, Sequence[Json]], bool],
    optional: frozenset[str],
) -> list[bool]:
    return [
        is_one(found[name], accepted) if name in found else name in optional
        for name, accepted in wanted.items()
    ]


def _optional(wanted: Mapping[str, Sequence[Json]]) -> frozenset[str]:
    """What may be absent, as BFCL says it."""
    return frozenset(name for name, accepted in wanted.items() if _ABSENT in accepted)


def _is_bfcl_value(found: Json, accepted: Sequence[Json]) -> bool:
    # The type of an argument is that of its values: among others than texts, "" is no value.
    texts = all(isinstance(value, str | None) for value in accepted)
    return any(_equals_value(found, value) for value in accepted if texts or value != _ABSENT)


def _equals_value(found: Json, value: Json) -> bool:
    if isinstance(found, list) and isinstance(value, list):
        return len(found) == len(value) and all(map(_equals_item, found, value))
    # An integer is a number, though not in a list.
    return _equals_item(found, value) or (type(found) is int and type(value) is float and found == value)


def _equals_item(found: Json, value: Json) -> bool:
    if isinstance(found, dict) and isinstance(value, dict):
        # Some objects of BFCL hold bare values.
        wanted = {name: v if isinstance(v, list) else [v] for name, v in value.items()}
        parts = _members(found, wanted, _is_bfcl_member, _optional(wanted))
        return found.keys() <= wanted.keys() and all(parts)
    return type(found) is type(value) and _equals_member(found, value)


def _is_bfcl_member(found: Json, accepted: Sequence[Json]) -> bool:
    return any(_equals_member(found, value) for value in accepted)


def _equals_member(found: Json, value: Json) -> bool:
    if isinstance(found, str) and isinstance(value, str):
        return _plain(found) == _plain(value)
    return bool(found == value)


def _plain(text: str) -> str:
    return text.translate(_UNIMPORTANT).lower()


def _is_same(found: Json, accepted: Sequence[Json]) -> bool:
    return any(same(found, value) for value in accepted)


def same(a: Json, b: Json) -> bool:
    """Equality of JSON values with their types: 1 is 1.0, but neither true nor "1"."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    return (numbers or type(a) is type(b)) and bool(a == b)


def calls(value: Json) -> list[Call] | None:
    """The calls in an answer; None where it is malformed."""
    found = tool_calls(value) if isinstance(value, str) else value
    items = found if isinstance(found, list) else [found]
    read = [_call(item) for item in items]
    return [call for call in read if call] if all(read) else None


def _call(item: Json) -> Call | None:
    if isinstance(item, dict) and isinstance(item.get("function"), dict):
        item = item["function"]
    if not isinstance(item, dict):
        return None
    name = next((item[k] for k in _NAMES if k in item), None)
    arguments: Json = next((item[k] for k in _ARGUMENTS if k in item), {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    return Call(name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else None


def expected(target: str) -> list[Expected]:
    """The calls of a target.

    Raises:
        ValueError: when it has another form.
    """
    found = json.loads(target)
    return [_expected(item) for item in (found if isinstance(found, list) else [found])]


def _expected(item: Any) -> Expected:  # noqa: ANN401 - JSON
    if (call := _call(item)) is not None:
        return Expected(call.name, {name: [value] for name, value in call.arguments.items()}, _is_same)
    if isinstance(item, dict) and len(item) == 1:
        ((name, arguments),) = item.items()
        if isinstance(arguments, dict) and all(isinstance(v, list) for v in arguments.values()):
            return Expected(name, arguments, _is_bfcl_value, _optional(arguments))
    raise ValueError(f"neither {{name, arguments}} nor {{name: {{argument: [values]}}}}: {str(item)[:80]}")


def _problem(target: str) -> str | None:
    try:
        expected(target)
    except ValueError as error:
        return f"must be a JSON list of calls: {error}"
    return None


def _tool_call(metric: Metric) -> Compare:
    any_order = metric.args.get("order") == "any"

    def compare(value: Json, targets: Sequence[str]) -> Verdict:
        made = calls(value)
        if made is None:
            return Verdict(0, "malformed")
        return Verdict(float(any(_matches(made, expected(t), any_order=any_order) for t in targets)))

    return compare


def _matches(made: Sequence[Call], wanted: Sequence[Expected], *, any_order: bool) -> bool:
    if len(made) != len(wanted):
        return False
    if any_order:
        return _all_matched([[i for i, call in enumerate(made) if e.accepts(call)] for e in wanted])
    return all(e.accepts(call) for e, call in zip(wanted, made, strict=True))


def _all_matched(fitting: Sequence[Sequence[int]]) -> bool:
    """Whether each of some calls can have one that fits for itself alone: by augmenting paths, as Kuhn does.

    Args:
        fitting: for each the numbers of those that fit.
    """
    taken_by: dict[int, int] = {}

    def find(one: int, tried: set[int]) -> bool:
        for call in fitting[one]:
            if call not in tried:
                tried.add(call)
                if call not in taken_by or find(taken_by[call], tried):
                    taken_by[call] = one
                    return True
        return False

    return all(find(one, set()) for one in range(len(fitting)))


def _tool_call_name(metric: Metric) -> Compare:
    arranged = sorted if metric.args.get("order") == "any" else list

    def compare(value: Json, targets: Sequence[str]) -> Verdict:
        made = calls(value)
        if made is None:
            return Verdict(0, "malformed")
        names = arranged(call.name for call in made)
        return Verdict(float(any(names == arranged(e.name for e in expected(t)) for t in targets)))

    return compare


def _tool_call_parts(_metric: Metric) -> Compare:
    """The share of names and arguments that are right, call by call; more calls than expected cost nothing."""

    def compare(value: Json, targets: Sequence[str]) -> Verdict:
        made = calls(value)
        if made is None:
            return Verdict(0, "malformed")
        return Verdict(max(_share(made, expected(t)) for t in targets))

    return compare


def _share(made: Sequence[Call], wanted: Sequence[Expected]) -> float:
    none = Call("", {})
    parts = [part for e, c in zip_longest(wanted, made[: len(wanted)]) for part in e.parts(c or none)]
    return sum(parts) / len(parts) if parts else float(not made)


def _tool_call_valid(_metric: Metric) -> Compare:
    return lambda value, _targets: Verdict(float(calls(value) is not None))


METRICS: Mapping[str, Definition] = {
    "tool_call": Definition(_tool_call, check=_problem),
    "tool_call_name": Definition(_tool_call_name, check=_problem),
    "tool_call_parts": Definition(_tool_call_parts, check=_problem),
    "tool_call_valid": Definition(_tool_call_valid),
}
