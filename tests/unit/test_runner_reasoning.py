# ruff: noqa: ANN401 - changes of any field
"""Models that think: what is scored, what is cut, what is counted."""

from pathlib import Path
from typing import Any

import pytest

from evaljob.backends import Reasoning
from evaljob.pairs import incompatible
from evaljob.spec import Model
from evaljob.task import Task
from evaljob_runner.backends.base import Answer, Finish
from evaljob_runner.reasoning import split
from tests.runner_plans import assignment, planned, tiny_model
from tests.unit.builders import LOG_LIKELIHOOD
from tests.unit.test_runner_data import lines, task
from tests.unit.test_runner_evaluate import answers, logged, run

THINKS = Reasoning(max_tokens=100)
OPEN = Reasoning(max_tokens=100, starts_open=True)


def said(
    text: str, reasoning: Reasoning | None = THINKS, thoughts: str | None = None
) -> tuple[str, str | None]:
    reply = Answer("k", text, Finish.STOP, prompt_tokens=1, output_tokens=1, thoughts=thoughts)
    found = split(reply, reasoning, stop=("\n",))
    return found.thoughts, found.answer


@pytest.mark.parametrize(
    ("text", "reasoning", "found"),
    [
        ("<think>a\nb</think>\n\nParis\nmore", THINKS, ("a\nb", "Paris")),
        ("a\nb</think>Paris", OPEN, ("a\nb", "Paris")),
        # A template may have opened the thoughts without saying so.
        ("a\nb</think>Paris", THINKS, ("a\nb", "Paris")),
        ("Paris\nmore", THINKS, ("", "Paris")),
        ("<think>a\nb", THINKS, ("<think>a\nb", None)),
        ("a\nb", OPEN, ("a\nb", None)),
        ("<think></think>", THINKS, ("", "")),
        ("<think>a</think>x </think> y", THINKS, ("a", "x </think> y")),
        ("<t>a</t>b", Reasoning(start="<t>", end="</t>", max_tokens=1), ("a", "b")),
        ("<think>a</think>b\nc", None, ("", "<think>a</think>b\nc")),
    ],
)
def test_an_output_is_taken_apart(
    text: str, reasoning: Reasoning | None, found: tuple[str, str | None]
) -> None:
    assert said(text, reasoning) == found


def test_a_server_may_have_taken_it_apart() -> None:
    assert said("Paris\nmore", thoughts="hm") == ("hm", "Paris")
    assert said("", thoughts="hm") == ("hm", None)
    assert said("Paris", None, thoughts="hm") == ("hm", "Paris")


def test_what_stands_between_thoughts_and_answer_is_no_answer_from_a_server_either() -> None:
    assert said("\n\nParis\nmore", thoughts="hm") == ("hm", "Paris")
    assert said("\n\nParis", None, thoughts="hm") == ("hm", "Paris")
    assert said("\n\n", thoughts="hm") == ("hm", "")
    assert said("  return 1", None) == ("", "  return 1")


def thinking(tmp_path: Path, **more: Any) -> Any:
    rows = [{"q": f"q{i}", "a": "Paris"} for i in range(2)]
    dataset = planned(task(generation={"maxTokens": 10, "stop": ["\n"]}), inline={"jsonl": lines(rows)})
    model = tiny_model(reasoning={"maxTokens": 30} | more)
    return assignment(model, dataset, tmp_path)


def test_stop_texts_do_not_end_thoughts_and_thoughts_are_not_scored(tmp_path: Path) -> None:
    backend = answers(lambda _: "<think>Paris\nor</think>Rome\nParis")
    found = run(thinking(tmp_path), backend)
    sampling = backend.asked[0].sampling  # type: ignore[union-attr]
    assert (sampling.max_tokens, sampling.stop) == (40, ())
    assert found.subsets[0].stats[0].total == 0
    assert found.tokens.reasoning == 2 * len("Paris\nor")
    request = logged(tmp_path)[0]["requests"][0]
    assert (request["output"], request["reasoning"]) == ("Rome", "Paris\nor")


@pytest.mark.parametrize(
    ("text", "outcome"), [("<think>Paris", "no_answer"), ("<think>Paris" + "." * 100, "truncated")]
)
def test_thoughts_without_an_end_are_no_answer(tmp_path: Path, text: str, outcome: str) -> None:
    found = run(thinking(tmp_path), answers(lambda _: text))
    assert getattr(found.outcomes, outcome) == 2
    assert found.subsets[0].stats[0].total == 0


def test_thoughts_change_the_inference_digest(tmp_path: Path) -> None:
    changes: list[dict[str, Any]] = [{}, {"maxTokens": 31}, {"end": "</t>"}]
    found = {
        run(thinking(tmp_path / str(i), **more), answers(lambda _: "x")).inference_digest
        for i, more in enumerate(changes)
    }
    assert len(found) == 3


def test_choices_are_not_weighed_by_a_model_that_thinks() -> None:
    why = incompatible(tiny_model(reasoning={"maxTokens": 1}), Task.model_validate(LOG_LIKELIHOOD))
    assert why == "requestType LogLikelihood weighs answers without thoughts, model tiny has reasoning"


def test_variables_of_the_chat_template_are_json_or_text(tmp_path: Path) -> None:
    model: Model = tiny_model(promptFormat="Chat", chatTemplateArgs={"think": "false", "effort": "low"})
    dataset = planned(task(), inline={"jsonl": lines([{"q": "q", "a": "a"}])})
    work = assignment(model, dataset, tmp_path)
    assert work.template_args == {"think": False, "effort": "low"}
    plain = assignment(tiny_model(promptFormat="Chat"), dataset, tmp_path)
    digests = {run(w, answers(lambda _: "a")).inference_digest for w in (work, plain)}
    assert len(digests) == 2
    asked = [x["requests"][0]["prompt"] for x in logged(tmp_path) if x["kind"] == "inference"]
    assert "<think=False><effort=low><user>q<assistant>" in asked
