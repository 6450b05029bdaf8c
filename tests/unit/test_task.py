"""The task language: what can never run is refused before anything runs."""

from typing import Any

import pytest
from pydantic import ValidationError

from evaljob.scoring import Step
from evaljob.task import Task
from tests.unit.builders import CHAT, LOG_LIKELIHOOD, ROLLING, TASK

GROUP = {"name": "g", "members": ["a", "b"]}
SUBSETS = {"subsets": {"column": "s"}}
LOG_LIKELIHOOD_ONLY = {k: LOG_LIKELIHOOD[k] for k in ("requestType", "choices")}


def reduced(reduce: dict[str, Any]) -> dict[str, Any]:
    return {**TASK, "metrics": [{"name": "a", "primary": True, "reduce": reduce}]}


def executed(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any field
    metric = {"name": "code_exec", "primary": True, "program": "{{ answer }}", "tests": "{{ a }}"} | changes
    return {**TASK, "metrics": [metric]}


@pytest.mark.parametrize(
    ("task", "primary"),
    [
        (TASK, "exact_match"),
        (LOG_LIKELIHOOD, "acc"),
        (ROLLING, "bits_per_byte"),
        (CHAT, "exact_match"),
    ],
)
def test_accepted(task: dict[str, Any], primary: str) -> None:
    assert Task.model_validate(task).primary.key == primary


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (
            {**TASK, "messages": "x"},
            "messages: only with requestType Chat (this one is Generate)",
        ),
        ({**CHAT, "messages": None}, "messages: not there, needed by requestType Chat"),
        (
            {**CHAT, "prompt": "x"},
            "prompt: only with requestType Generate or LogLikelihood (this one is Chat)",
        ),
        ({**TASK, "prompt": None}, "prompt: not there, needed by requestType Generate"),
        (
            {**TASK, "choices": {"values": ["A", "B"]}},
            "choices: only with requestType LogLikelihood (this one is Generate)",
        ),
        ({**LOG_LIKELIHOOD, "choices": None}, "choices: not there, needed by requestType LogLikelihood"),
        ({**LOG_LIKELIHOOD, "choices": {}}, "choices: give exactly one of values and template"),
        ({**LOG_LIKELIHOOD, "choices": {"values": ["", "x"]}}, "at least 1 character"),
        (
            {**LOG_LIKELIHOOD, "choices": {"values": ["A", "B"], "template": "x"}},
            "exactly one of values and template",
        ),
        (
            {**CHAT, "fewShot": {"count": 1}},
            "fewShot: only with requestType Generate or LogLikelihood (this one is Chat)",
        ),
        ({**TASK, "metrics": [{"name": "a"}]}, "metrics: exactly one must be primary"),
        (
            {**TASK, "metrics": [{"name": "a", "primary": True}, {"name": "b", "primary": True}]},
            "exactly one must be",
        ),
        ({**TASK, "metrics": [{"name": "a", "primary": True}, {"name": "a"}]}, "metrics: a stands twice"),
        (
            {**TASK, "metrics": [{"name": "a", "extract": "x", "primary": True}]},
            "a names extract 'x', which is not defined",
        ),
        ({**CHAT, "chatPrompt": "x"}, "chatPrompt: only with requestType Generate or LogLikelihood"),
        (executed(tests=None), "program and tests belong together"),
        (
            {
                **TASK,
                "metrics": [
                    {**executed()["metrics"][0], "reduce": {"passAtK": [1]}},
                    {**executed(tests="x")["metrics"][0], "primary": False},
                ],
            },
            "code_exec stands twice with different tests",
        ),
        (executed(program=None), "program and tests belong together"),
        (executed(program=None, tests=None, limits={}), "limits only with program"),
        (executed(limits={"memory": "64Mi"}), "64Mi holds no Python, at least 128Mi"),
        (executed(limits={"memory": "1G"}), "memory"),
        ({**TASK, "groups": [GROUP]}, "groups: need subsets"),
        ({**TASK, **SUBSETS, "groups": [GROUP, GROUP]}, "groups: g stands twice"),
        ({**TASK, **SUBSETS, "groups": [{"name": "g", "members": ["a", "a"]}]}, "groups: g holds a twice"),
        (
            {**TASK, **SUBSETS, "groups": [{"name": "g", "members": ["a"], "weights": {"a": 1}}]},
            "groups: g: weights: only with weighting Weights",
        ),
        (
            {
                **TASK,
                **SUBSETS,
                "groups": [
                    {"name": "g", "members": ["a", "b"], "weighting": "Weights", "weights": {"a": 1, "c": 1}}
                ],
            },
            "groups: g: weights: exactly one per member, look at b, c",
        ),
        (
            {**TASK, **SUBSETS, "groups": [{"name": "h", "members": ["g"]}, GROUP]},
            "h uses g, which must be defined before",
        ),
        (
            {**TASK, **SUBSETS, "groups": [{"name": "g", "members": ["g"]}]},
            "g uses g, which must be defined before it",
        ),
        ({**TASK, "extract": {"x": [{}]}}, "a step has exactly one operation, this one has none"),
        ({**TASK, "extract": {"x": [{"regex": "a", "remove": "b"}]}}, "exactly one operation"),
        ({**TASK, "extract": {"x": [{"json": {}, "take": "Last"}]}}, "take belongs to regex"),
        ({**TASK, "extract": {"x": [{"regex": "(a"}]}}, "not a regular expression of Python: missing )"),
        ({**TASK, "extract": {"x": [{"remove": "[a"}]}}, "not a regular expression of Python: unterminated"),
        ({**TASK, "extract": {"x": []}}, "at least 1 item"),
        (
            {**TASK, "requestType": "LogLikelihoodRolling"},
            "prompt: only with requestType Generate or LogLikelihood (this one is LogLikelihoodRolling)",
        ),
        ({**TASK, "repeats": 2}, "Extra inputs are not permitted"),
        ({**ROLLING, "references": "{{ a }}"}, "references: only with requestType Generate, Chat or"),
        ({**LOG_LIKELIHOOD, "truncate": "Start"}, "truncate: only with requestType Generate or Chat"),
        ({**ROLLING, "assistantPrefix": "x"}, "assistantPrefix: only with requestType Generate, Chat or"),
        ({**ROLLING, "fewShot": {"count": 1}}, "fewShot: only with requestType Generate or LogLikelihood"),
        ({**TASK, "turns": "Every"}, "turns: Every only with requestType Chat (this one is Generate)"),
        (
            {**CHAT, "turns": "Every", "metrics": reduced({"passAtK": [1]})["metrics"]},
            "reduce is not used with turns Every",
        ),
        ({**TASK, "tools": "{{ t }}"}, "tools: only with requestType Chat"),
        ({**TASK, "fewShot": {}}, "fewShot: give exactly one of count and ids"),
        ({**TASK, "fewShot": {"count": 1, "ids": ["a"], "sampler": "Fixed"}}, "exactly one of count and ids"),
        ({**TASK, "fewShot": {"ids": ["a"]}}, "fewShot.ids: needed by sampler Fixed, and only there"),
        ({**TASK, "fewShot": {"count": 1, "sampler": "Fixed"}}, "fewShot.ids: needed by sampler Fixed"),
        ({**CHAT, "description": "x"}, "description: only with requestType Generate or LogLikelihood"),
        (reduced({}), "reduce: give exactly one of passAtK and majority"),
        (reduced({"passAtK": [1], "majority": {}}), "reduce: give exactly one of passAtK and majority"),
        (reduced({"passAtK": [2, 1]}), "reduce.passAtK: must ascend, got [2, 1]"),
        (reduced({"majority": {}}), "reduce.majority counts equal extracted answers, so it needs extract"),
        (
            {**reduced({"passAtK": [1]}), **LOG_LIKELIHOOD_ONLY},
            "reduce is not used with requestType LogLikelihood",
        ),
        (
            {
                **TASK,
                "metrics": [
                    {"name": "a", "primary": True, "args": {"x": "1"}},
                    {"name": "a", "reduce": {"passAtK": [1]}},
                ],
            },
            "metrics: a stands twice with different args",
        ),
    ],
)
def test_refused(task: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as error:
        Task.model_validate(task)
    assert words in str(error.value)


def test_nested_groups_are_accepted_inside_out() -> None:
    groups = [GROUP, {"name": "all", "members": ["g", "c"], "weighting": "Equal"}]
    assert len(Task.model_validate({**TASK, **SUBSETS, "groups": groups}).groups) == 2


@pytest.mark.parametrize(
    "step",
    [
        {"regex": "a(.)", "take": "Last"},
        {"remove": "[,$]"},
        {"lastNumber": {}},
        {"json": {}},
        {"strip": {}},
        {"boxed": {}},
        {"codeFence": {}},
        {"firstCapital": {}},
    ],
)
def test_each_step_is_an_object_with_one_key(step: dict[str, Any]) -> None:
    assert Step.model_validate(step).model_dump(mode="json", by_alias=True, exclude_none=True) == step


def test_the_key_of_a_metric_names_its_extraction() -> None:
    task = Task.model_validate(
        {**TASK, "extract": {"strict": [{"json": {}}]},
         "metrics": [{"name": "exact_match", "extract": "strict", "primary": True}, {"name": "exact_match"}]}
    )  # fmt: skip
    assert [m.key for m in task.metrics] == ["exact_match,strict", "exact_match"]


def test_a_reduced_metric_is_named_by_its_estimate() -> None:
    task = Task.model_validate(reduced({"passAtK": [1, 10]}))
    assert (task.primary.key, task.primary.result_keys) == ("a", ("pass@1", "pass@10"))


def test_memory_is_counted_as_kubernetes_counts_it() -> None:
    limits = [Task.model_validate(executed(limits={"memory": m})).primary.limits for m in ("512Mi", "2Gi")]
    assert [limit and limit.memory_bytes for limit in limits] == [512 * 2**20, 2 * 2**30]


def test_a_chat_prompt_has_no_stop_of_the_text_prompt() -> None:
    """Those would end `def` in a fenced answer: a right program would score 0."""
    task = Task.model_validate(
        {**TASK, "chatPrompt": "Please: {{ q }}", "generation": {"stop": ["\ndef"], "maxTokens": 9}}
    )
    text, chat = task.generation_of(chat=False), task.generation_of(chat=True)
    assert (text.stop, text.max_tokens) == (("\ndef",), 9)
    assert (chat.stop, chat.max_tokens) == ((), 9)
    one_prompt = Task.model_validate({**TASK, "generation": {"stop": ["\n"]}})
    assert one_prompt.generation_of(chat=True).stop == ("\n",)
