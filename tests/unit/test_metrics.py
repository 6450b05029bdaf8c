"""What a task may say about metrics, and that the runner computes exactly these."""

from typing import Any

import pytest

from evaljob.corpus import CORPORA
from evaljob.metrics import KINDS, problem
from evaljob.requests import RequestType
from evaljob.task import Task
from evaljob_cli.catalogue import catalogue
from evaljob_runner.metrics import REGISTRY
from tests.unit.builders import CHAT, LOG_LIKELIHOOD, TASK

PROGRAM = {"program": "{{ answer }}", "tests": "{{ a }}"}
MANY = {"references": "{{ all }}"}
F1: dict[str, Any] = {"name": "f1_macro", "args": {"labels": "0|1"}}
X = {"extract": "x"}
EXTRACT: dict[str, Any] = {"extract": {"x": [{"strip": {}}]}}


JUDGE = {"name": "gpt", "prompt": "{{ answer }}", "extract": "x", "labels": {"C": 1, "I": 0}}


def said(task: dict[str, Any], **metric: Any) -> str | None:  # noqa: ANN401 - any field
    return problem(Task.model_validate({**task, "metrics": [{"primary": True, **metric}]}))


@pytest.mark.parametrize(
    ("task", "metric", "words"),
    [
        (TASK, {"name": "exactmatch"}, "metrics[0]: exactmatch: unknown, use one of bleu, chrf, chrf_pp, code"),
        (LOG_LIKELIHOOD, {"name": "exactmatch"}, "unknown, use one of acc, acc_bytes, acc_norm, f1_macro"),
        (TASK, {"name": "acc"}, "metrics[0]: acc: not for requestType Generate, use one of bleu, chrf"),
        (CHAT, {"name": "acc_norm"}, "not for requestType Chat, use one of bleu, chrf"),
        (LOG_LIKELIHOOD, {"name": "contains"}, "not for requestType LogLikelihood, use one of acc, acc_bytes"),
        (
            LOG_LIKELIHOOD | EXTRACT,
            {"name": "acc", "extract": "x"},
            "acc,x: extract: not used with requestType LogLikelihood",
        ),
        (TASK, {"name": "f1_macro", "args": {"labels": "a|b"}}, "counts what a pipeline finds: needs extract"),
        (TASK | MANY | EXTRACT, F1 | X, "f1_macro,x: references: a sample has one label"),
        (LOG_LIKELIHOOD | MANY, F1, "f1_macro: references: a sample has one label"),
        *(
            (TASK | EXTRACT, {"name": name, "reduce": {"majority": {}}} | X | more, "reduce: made of counts")
            for name, more in [("bleu", {}), ("chrf", {}), ("chrf_pp", {}), ("ter", {}), ("f1_macro", F1)]
        ),
        (TASK | EXTRACT, F1 | X | {"reduce": {"passAtK": [1]}}, "reduce: made of counts"),
        (TASK, {"name": "code_exec"}, "program and tests: needed by code_exec, and only there"),
        (TASK, {"name": "contains"} | PROGRAM, "program and tests: needed by code_exec, and only there"),
        (TASK | EXTRACT, {"name": "contains", "judge": JUDGE}, "judge: needed by llm_judge, and only there"),
        (TASK, {"name": "llm_judge"}, "judge: needed by llm_judge, and only there"),
        (
            TASK | EXTRACT,
            {"name": "llm_judge", "judge": JUDGE | {"unless": "llm_judge"}},
            "judge.unless: 'llm_judge': must be a metric that compares to 0 or 1 (none here)",
        ),
        (TASK, {"name": "contains", "args": {"case": "no"}}, "unknown args case; known: ignore_case"),
        (
            TASK,
            {"name": "contains", "args": {"regexes_to_ignore": ",\n(a"}},
            r"args.regexes_to_ignore: '(a': not a regular expression",
        ),
        (TASK, {"name": "json_valid", "args": {"x": "no"}}, "unknown args x; known: none"),
        (TASK, {"name": "field_match"}, "needs args field"),
        (TASK, {"name": "contains", "args": {"ignore_case": "yes"}}, "args.ignore_case: 'yes' does not match true"),
        (TASK, {"name": "token_f1", "reduce": {"passAtK": [1]}}, "reduce.passAtK needs a metric whose scores"),
    ],
)  # fmt: skip
def test_what_can_never_be_computed_is_named_with_the_fix(
    task: dict[str, Any], metric: dict[str, Any], words: str
) -> None:
    assert words in (said(task, **metric) or "")


def test_the_second_metric_is_named_by_its_place() -> None:
    metrics = [{"name": "contains", "primary": True}, {"name": "contians"}]
    assert (problem(Task.model_validate({**TASK, "metrics": metrics})) or "").startswith(
        "metrics[1]: contians"
    )


@pytest.mark.parametrize(
    ("task", "metric"),
    [
        (TASK, {"name": "contains", "args": {"ignore_case": "true"}}),
        (TASK | EXTRACT, {"name": "f1_macro", "extract": "x", "args": {"labels": "a|b"}}),
        (LOG_LIKELIHOOD, {"name": "f1_macro", "args": {"labels": "0|1"}}),
        (TASK, {"name": "code_exec", "reduce": {"passAtK": [1]}} | PROGRAM),
        (TASK, {"name": "field_match", "args": {"field": "a\nb"}}),
        (CHAT, {"name": "rougeL", "args": {"tokenize": "characters", "stemmer": "false"}}),
    ],
)
def test_what_can_be_computed_is_accepted(task: dict[str, Any], metric: dict[str, Any]) -> None:
    assert said(task, **metric) is None


def test_the_runner_computes_exactly_the_metrics_that_tasks_may_name() -> None:
    assert REGISTRY.keys() == KINDS.keys()


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_metric_takes_what_its_request_types_give(name: str) -> None:
    kind, found = KINDS[name], REGISTRY[name]
    answers = kind.requests & {RequestType.GENERATE, RequestType.CHAT}
    assert bool(found.choose or found.right) == (RequestType.LOG_LIKELIHOOD in kind.requests)
    assert bool(found.measure) == (RequestType.LOG_LIKELIHOOD_ROLLING in kind.requests)
    assert bool(found.compare or found.count) == (bool(answers) and not (kind.executes or kind.judged))
    assert bool(found.judge) == kind.judged
    assert bool(found.count) == (kind.aggregation in CORPORA)
    assert bool(found.execute) == kind.executes


def test_all_tasks_of_the_catalogue_can_be_computed() -> None:
    assert {name: why for name, task in catalogue().items() if (why := problem(task))} == {}
