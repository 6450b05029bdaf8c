"""Judges in an EvalJob: what is refused, what a verdict is worth, and who is asked."""

from typing import Any

import pytest
from pydantic import ValidationError

from evaljob.metrics import binary
from evaljob.plan import Plan
from evaljob.planning import make_plan
from evaljob.rubric import Rubric
from evaljob.spec import InvalidSpecError
from evaljob.task import Task
from evaljob_cli.catalogue import catalogue
from evaljob_cli.inputs import identified
from tests.unit import builders
from tests.unit.builders import TASK, dataset, evaljob, model

LABELS = {
    "name": "gpt",
    "prompt": "{{ answer }} or {{ target }}?",
    "extract": "grade",
    "labels": {"C": 1, "I": 0},
}
JUDGE: dict[str, Any] = {"name": "gpt", "openai": {"url": "http://judge/v1", "model": "j"}}


def rubric(**changes: Any) -> Rubric:  # noqa: ANN401 - any field
    return Rubric.model_validate({k: v for k, v in {**LABELS, **changes}.items() if v is not None})


def judged(*rubrics: dict[str, Any], **metric: Any) -> dict[str, Any]:  # noqa: ANN401 - any field
    metrics = [
        {"name": "llm_judge", "alias": f"m{i}", "judge": LABELS | r, **metric} for i, r in enumerate(rubrics)
    ]
    return {
        **TASK,
        "extract": {"grade": [{"strip": {}}]},
        "metrics": [metrics[0] | {"primary": True}, *metrics[1:]],
    }


def plan(*judges: dict[str, Any], **spec: Any) -> Plan:  # noqa: ANN401 - any field
    return builders.plan(evaljob(datasets=[dataset(task=judged({}))], judges=list(judges), **spec))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompt": None}, "exactly one of prompt and messages"),
        ({"messages": "{{ m }}"}, "exactly one of prompt and messages"),
        ({"labels": None}, "exactly one of labels and scale"),
        ({"scale": {"min": 1, "max": 5}}, "exactly one of labels and scale"),
        ({"labels": {"Yes": 1, "yes ": 0}}, "yes stands twice, upper and lower case are the same"),
        ({"labels": {"A": float("nan")}}, "finite"),
        ({"labels": {}}, "at least 1"),
        ({"labels": None, "scale": {"min": 5, "max": 5}}, "min must be less than max, got 5 and 5"),
        ({"extract": None}, "extract"),
    ],
)
def test_a_rubric_that_gives_no_score_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        rubric(**changes)


@pytest.mark.parametrize(
    ("verdict", "score"),
    [("C", 1), ("c ", 1), ("\nI", 0), ("CI", None), ("", None), ("1", None), ("correct", None)],
)
def test_a_label_is_a_whole_word_in_any_case(verdict: str, score: float | None) -> None:
    assert rubric().score(verdict) == score


@pytest.mark.parametrize(
    ("verdict", "score"),
    [("7", 7), (" 7.5", 7.5), ("1", 1), ("10", 10), ("0.9", None), ("11", None), ("7/10", None), ("nan", None),
     ("inf", None), ("", None), ("seven", None)],
)  # fmt: skip
def test_a_number_counts_within_its_scale_only(verdict: str, score: float | None) -> None:
    assert rubric(labels=None, scale={"min": 1, "max": 10}).score(verdict) == score


def test_a_sample_without_an_answer_has_the_lowest_score() -> None:
    assert rubric(labels={"good": 1, "bad": -1}).lowest == -1
    assert rubric(labels=None, scale={"min": 1, "max": 10}).lowest == 1


def test_only_labels_of_0_and_1_make_a_proportion() -> None:
    def is_binary(changes: dict[str, Any]) -> bool:
        return binary(Task.model_validate(judged(changes)).metrics[0])

    assert is_binary({})
    assert not is_binary({"labels": {"C": 1, "P": 0.5, "I": 0}})
    assert not is_binary({"labels": None, "scale": {"min": 0, "max": 1}})


def test_two_judged_metrics_of_a_task_have_names_of_their_own() -> None:
    task = Task.model_validate(judged({}, {"name": "other"}))
    assert [m.key for m in task.metrics] == ["m0", "m1"]
    with pytest.raises(ValidationError, match="llm_judge stands twice: give one an alias"):
        Task.model_validate(judged({}, {"name": "other"}, alias=None))


def test_a_pipeline_of_the_judge_must_be_there() -> None:
    with pytest.raises(
        ValidationError, match=r"llm_judge names judge.extract 'grades', which is not defined"
    ):
        Task.model_validate(judged({"extract": "grades"}))


def test_a_dataset_is_planned_with_the_judges_that_its_metrics_name() -> None:
    other = JUDGE | {"name": "other"}
    datasets = [dataset("a", judged({})), dataset("b", judged({"name": "other"})), dataset("c")]
    found = builders.plan(evaljob(datasets=datasets, judges=[JUDGE, other]))
    assert [[j.name for j in d.judges] for d in found.datasets] == [["gpt"], ["other"], []]


@pytest.mark.parametrize(
    ("judges", "words"),
    [
        ([], "spec.datasets[d].taskSpec.metrics[0].judge.name: 'gpt' is not in spec.judges, which is empty"),
        ([JUDGE | {"name": "g4"}], "which has g4: add judges: [{name: gpt, openai: {url:"),
        ([JUDGE, JUDGE | {"name": "g4"}], "spec.judges[g4]: no metric names it: remove it"),
        ([{**JUDGE, "openai": {**JUDGE["openai"], "apiKeySecretRef": {"name": "prod", "key": "k"}}}],
         "spec.judges[gpt].openai.apiKeySecretRef.name: 'prod' must begin with 'eval-'"),
        ([JUDGE, JUDGE], "judges: gpt stands twice"),
    ],
)  # fmt: skip
def test_judges_that_do_not_fit_the_metrics_are_refused(judges: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        plan(*judges)
    assert words in str(caught.value)


@pytest.mark.parametrize("offered", [[], [JUDGE]])
def test_a_task_of_the_catalogue_says_which_judge_it_needs(offered: list[dict[str, Any]]) -> None:
    def planned(judges: list[dict[str, Any]]) -> Plan:
        mt_bench = {"name": "d", "task": "mt-bench", "source": "pvc://data/mt-bench.jsonl"}
        of = evaljob([model(promptFormat="Chat")], [mt_bench], judges=judges)
        return make_plan(of, catalogue(), builders.SETTINGS, builders.DATE)

    with pytest.raises(InvalidSpecError) as caught:
        planned(offered)
    said = str(caught.value)
    assert said.startswith("spec.datasets[d].task.metrics[0].judge.name: 'judge' is not in spec.judges")
    assert "add judges: [{name: judge, openai: {url: ..., model: ...}}]" in said
    assert planned([JUDGE | {"name": "judge"}]).datasets[0].judges[0].name == "judge"


def test_another_judge_is_no_reason_to_ask_the_model_again() -> None:
    """A served model's answers count under the local uid."""

    def uid(**changes: Any) -> str:  # noqa: ANN401 - any field
        return identified(evaljob(datasets=[dataset(task=judged({}))], judges=[JUDGE | changes])).metadata.uid

    assert uid() == uid(openai={"url": "http://new/v1", "model": "k"}) == uid(generation={"maxTokens": 5})
    assert uid() != identified(evaljob([model("n")], [dataset(task=judged({}))], judges=[JUDGE])).metadata.uid
