# ruff: noqa: ANN401 - changes of any field
"""Metrics that need no library: what they count as right."""

import json
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaljob.scoring import Metric
from evaljob.stats import Clusters, Stat, Weighted, accumulate_weighted
from evaljob_runner.metrics import REGISTRY, calls, instructions
from evaljob_runner.metrics.base import Verdict
from evaljob_runner.metrics.overlap import f1


def verdict(name: str, value: Any, *targets: str, **args: str) -> Verdict:
    metric = Metric(name=name, args=args)
    compare = REGISTRY[name].compare
    assert compare is not None
    return compare(metric)(value, targets)


@pytest.mark.parametrize(
    ("answer", "targets", "value"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 1),
        ("the cat sat", ["a cat stood up"], 2 * 1 / (2 + 3)),
        ("no idea", ["Paris"], 0),
        ("Paris", ["London", "Paris, France"], 2 / 3),
        ("", ["the"], 1),
        ("a word", [""], 0),
    ],
)
def test_token_f1_is_that_of_squad(answer: str, targets: list[str], value: float) -> None:
    assert verdict("token_f1", answer, *targets).value == pytest.approx(value)


def test_token_f1_counts_a_repeated_token_as_often_as_both_have_it() -> None:
    assert f1(["x", "x", "x"], ["x", "x"]) == pytest.approx(4 / 5)


def test_characters_are_the_tokens_of_a_language_without_spaces() -> None:
    assert verdict("token_f1", "北京。", "北京", tokenize="characters").value == 1
    assert verdict("token_f1", "北京市", "北京", tokenize="characters").value == pytest.approx(4 / 5)
    assert verdict("token_f1", "北京市", "北京").value == 0


def test_references_found_is_the_share_of_all_of_them() -> None:
    assert verdict("references_found", "It is Foo and bar.", "foo", "BAR", "baz").value == pytest.approx(
        2 / 3
    )


ADD = {"name": "add", "arguments": {"a": 1, "b": [2.5, "x"]}}
BFCL = [{"area": {"base": [10], "height": [5.0, 5], "unit": ["", "cm"]}}]


@pytest.mark.parametrize(
    ("answer", "target", "value"),
    [
        (ADD, [ADD], 1),
        ([ADD], [ADD], 1),
        (json.dumps(ADD), ADD, 1),
        (
            {"type": "function", "function": {"name": "add", "arguments": json.dumps(ADD["arguments"])}},
            [ADD],
            1,
        ),
        ({**ADD, "arguments": {"a": 1.0, "b": [2.5, "x"]}}, [ADD], 1),
        ({**ADD, "arguments": {"a": "1", "b": [2.5, "x"]}}, [ADD], 0),
        ({**ADD, "arguments": {"a": True, "b": [2.5, "x"]}}, [ADD], 0),
        ({**ADD, "arguments": {"a": 1}}, [ADD], 0),
        ({"name": "add", "arguments": {"a": 1, "b": [2.5, "x"], "c": 0}}, [ADD], 0),
        ([ADD, ADD], [ADD], 0),
        ([], [], 1),
        ({"name": "area", "arguments": {"base": 10, "height": 5}}, BFCL, 1),
        ({"name": "area", "arguments": {"base": 10, "height": 5, "unit": "cm"}}, BFCL, 1),
        ({"name": "area", "arguments": {"base": 10, "height": 5, "unit": "m"}}, BFCL, 0),
        ({"name": "area", "arguments": {"height": 5}}, BFCL, 0),
    ],
)
def test_a_call_is_right_with_its_name_and_typed_arguments(answer: Any, target: Any, value: float) -> None:
    assert verdict("tool_call", answer, json.dumps(target)) == (value, None)


@pytest.mark.parametrize(
    ("accepted", "argument", "right"),
    [
        ([{"name": ["John Doe"], "age": ["", 7]}], {"name": "John Doe"}, True),
        ([{"name": ["John Doe"], "age": ["", 7]}], {"name": "John Doe", "age": 7.0}, True),
        ([{"name": ["John Doe"], "age": ["", 7]}], {"name": "John Doe", "age": "7"}, False),
        ([{"name": ["John Doe"], "age": ["", 7]}], {"age": 7}, False),
        ([{"name": ["John Doe"]}], {"name": "John Doe", "age": 7}, False),
        ([{"name": ["John Doe"]}], {"name": ["John Doe"]}, False),
        (["", {"a": [1]}, {"b": [2]}], {"b": 2}, True),
        ([[{"field": ["age", "years"]}, {"field": ["job"]}]], [{"field": "years"}, {"field": "job"}], True),
        ([[{"field": ["age", "years"]}, {"field": ["job"]}]], [{"field": "job"}, {"field": "age"}], False),
        ([[{"field": ["age"]}]], [{"field": "age"}, {"field": "age"}], False),
        ([{"cards": [["7 of clubs", "8 of clubs"]]}], {"cards": ["7 of clubs", "8 of clubs"]}, True),
        ([["a", "b"], ["b", "a"]], ["b", "a"], True),
        ([{"format": "epoch_millis", "at": {"x": 1}}], {"format": "epoch_millis", "at": {"x": 1}}, True),
        ([{}], {}, True),
        ([{"at": [{"x": [1]}]}], {"at": {"x": 1}}, False),
        ([{"at": [{"x": "a"}]}], {"at": {"x": "A"}}, False),
        ([[["a"]]], [["A"]], False),
    ],
)
def test_accepted_values_of_bfcl_are_nested(accepted: Any, argument: Any, right: bool) -> None:
    target = json.dumps([{"f": {"x": accepted}}])
    call = {"name": "f", "arguments": {"x": argument}}
    assert verdict("tool_call", call, target).value == right


@pytest.mark.parametrize(
    ("accepted", "argument", "right"),
    [
        (["April 1, 2024"], "april 1 2024", True),
        (["Driver's name"], 'DRIVER"S_NAME', True),
        (["x^2 * y"], "x2y", True),
        (["San Francisco"], "San Francisco!", False),
        ([["New York", "L.A."]], ["new york", "la"], True),
        ([{"city": ["New York"]}], {"city": "new-york"}, True),
        ([{"New York": [1]}], {"new york": 1}, False),
        ([5.0], 5, True),
        ([5], 5.0, False),
        ([[5.0, 6.0]], [5, 6], False),
        ([1], True, False),
        ([True], 1, False),
        (["5"], 5, False),
        (["", "cm"], "", True),
        ([""], "", True),
        (["", 5], "", False),
        (["", ["a"]], "", False),
        (["", None], None, True),
        ([], None, False),
    ],
)
def test_arguments_are_read_as_bfcl_eval_reads_them(accepted: Any, argument: Any, right: bool) -> None:
    target = json.dumps([{"f": {"x": accepted}}])
    call = {"name": "f", "arguments": {"x": argument}}
    assert verdict("tool_call", call, target).value == right


def test_a_call_that_is_written_out_is_meant_as_it_stands() -> None:
    plain = {"name": "f", "arguments": {"x": {"tags": ["a", "b"]}}}
    assert verdict("tool_call", plain, json.dumps([plain])).value == 1
    other = {"name": "f", "arguments": {"x": {"tags": "a"}}}
    assert verdict("tool_call", other, json.dumps([plain])).value == 0
    other = {"name": "f", "arguments": {"x": {"tags": ["A", "b"]}}}
    assert verdict("tool_call", other, json.dumps([plain])).value == 0
    without = {"name": "f", "arguments": {}}
    empty = json.dumps([{"name": "f", "arguments": {"x": ""}}])
    assert verdict("tool_call", without, empty).value == 0
    assert verdict("tool_call_parts", without, empty).value == pytest.approx(1 / 2)


@pytest.mark.parametrize("answer", ["add(1, 2)", {"tool": "add"}, [ADD, 3], {"name": "f", "arguments": "{"}])
def test_a_malformed_call_is_wrong_and_says_so(answer: Any) -> None:
    target = json.dumps([ADD])
    assert verdict("tool_call", answer, target) == (0, "malformed")
    assert verdict("tool_call_valid", answer, target).value == 0
    assert verdict("tool_call_valid", ADD, target).value == 1


def test_parts_of_a_call_are_its_name_and_its_arguments() -> None:
    target = json.dumps([{"action": "add", "args": {"a": 1, "b": 2}}])
    assert verdict(
        "tool_call_parts", {"name": "add", "args": {"a": 1, "b": 3}}, target
    ).value == pytest.approx(2 / 3)
    assert verdict("tool_call_parts", {"name": "sub", "args": {}}, target).value == 0
    assert verdict("tool_call_parts", [], target).value == 0
    assert verdict("tool_call_parts", "nothing", target) == (0, "malformed")
    assert verdict("tool_call_parts", {"action": "add", "parameters": {"b": 2, "a": 1}}, target).value == 1


def test_the_order_of_calls_counts_unless_told_otherwise() -> None:
    sub = {"name": "sub", "arguments": {}}
    target = json.dumps([ADD, sub])
    assert verdict("tool_call", [ADD, sub], target).value == 1
    assert verdict("tool_call", [sub, ADD], target).value == 0
    assert verdict("tool_call", [sub, ADD], target, order="any").value == 1
    assert verdict("tool_call_name", [{**ADD, "arguments": {}}, sub], target).value == 1
    assert verdict("tool_call_name", [sub, ADD], target).value == 0
    assert verdict("tool_call_name", [sub, ADD], target, order="any").value == 1
    assert verdict("tool_call_name", [sub, sub], target, order="any").value == 0


@pytest.mark.parametrize("count", [2, 7, 40])
def test_any_order_is_any_order_of_any_number_of_calls(count: int) -> None:
    made = [{"name": "f", "arguments": {"x": i}} for i in range(count)]
    assert verdict("tool_call", made[::-1], json.dumps(made), order="any").value == 1
    assert verdict("tool_call", [*made[1:], made[1]], json.dumps(made), order="any").value == 0


@given(st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=5, max_size=5))
def test_any_order_is_found_where_there_is_one(accepted: list[set[int]]) -> None:
    """A call that several targets accept goes to the one that accepts no other."""
    target = json.dumps([{"f": {"x": sorted(values)}} for values in accepted])
    made = [{"name": "f", "arguments": {"x": i}} for i in range(5)]
    there_is = any(
        all(x in values for x, values in zip(order, accepted, strict=True))
        for order in permutations(range(5))
    )
    assert verdict("tool_call", made, target, order="any").value == there_is


@pytest.mark.parametrize("target", ["add", "[1]", '[{"add": {"a": 1}}]'])
def test_a_target_that_is_no_list_of_calls_is_refused(target: str) -> None:
    check = REGISTRY["tool_call"].check
    assert check is not None
    assert "must be a JSON list of calls" in str(check(target))
    assert check(json.dumps(BFCL)) is None


def test_json_values_are_equal_with_their_types() -> None:
    assert calls.same({"a": [1, None]}, {"a": [1.0, None]})
    assert not calls.same(1, "1")
    assert not calls.same(0, False)
    assert not calls.same([1], [1, 1])
    assert not calls.same({"a": 1}, {"b": 1})


def ifeval(*names: str, **options: Any) -> str:
    return json.dumps({"instructions": names, "kwargs": [options for _ in names]})


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("x", "must be"),
        ('{"instructions": []}', "must be"),
        (ifeval(), "0 instructions with 0 kwargs"),
        (ifeval("punctuation:no_dots"), "unknown instructions punctuation:no_dots"),
        (ifeval("keywords:existence"), "kwargs do not fit the instructions keywords:existence: KeyError"),
        (ifeval("keywords:existence", keywords=["("]), "kwargs do not fit"),
    ],
)
def test_instructions_that_cannot_be_verified_are_refused(target: str, words: str) -> None:
    assert words in str(instructions.problem(target))


def test_empty_kwargs_of_the_published_data_are_no_problem() -> None:
    """Its rows hold every option of every instruction, most of them null."""
    assert instructions.problem(ifeval("punctuation:no_comma", keywords=None, num_words=None)) is None


def test_a_weighted_mean_is_over_items_clustered_by_sample() -> None:
    """2 of 3 and 0 of 1 instructions: 2 of 4, and the error is that of the ratio."""
    unit = 10**12
    stat = accumulate_weighted([(Weighted(2 * unit, 3), None), (Weighted(0, 1), None)])
    assert stat == Stat(4, 2 * unit, -(-4 * unit * unit // 3), Clusters(2, 4 * unit**2, 6 * unit, 10))
    assert stat.value(unit) == 0.5
    between, within = (0.5**2 + 0.5**2) / 16, (4 / 3 - 1) * (1 / 12 - 1 / 16)
    assert stat.variance(unit) == pytest.approx(between + within)


def test_weighted_samples_of_one_cluster_are_one_cluster() -> None:
    stat = accumulate_weighted([(Weighted(1, 1), "p"), (Weighted(2, 2), "p"), (Weighted(1, 1), "q")])
    assert stat.clusters == Clusters(2, 9 + 1, 9 + 1, 9 + 1)
