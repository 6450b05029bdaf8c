"""Every task of the catalogue from rows to a score: a right and a wrong answer to each of its rows."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from evaljob import framing
from evaljob.backends import PromptFormat
from evaljob.corpus import CORPORA
from evaljob.requests import RequestType
from evaljob.result import PartitionResult
from evaljob_runner.assignment import Assignment
from evaljob_runner.backends.scripted import ScriptedBackend
from tests.runner_plans import tiny_model
from tests.stub_server import Script, serve
from tests.unit.test_catalogue import ROWS, TASKS, prompts, work
from tests.unit.test_runner_evaluate import run

CHAT = tiny_model(promptFormat="Chat")


def evaluated(on: Assignment, backend: ScriptedBackend) -> PartitionResult:
    found = run(on, backend)
    assert framing.decode(framing.encode(found)) == found
    return found


def primary(found: PartitionResult) -> float:
    """The primary metric over all subsets, from 0 to 1."""
    i, metric = next((i, m) for i, m in enumerate(found.metrics) if m.primary)
    if corpus := CORPORA.get(metric.aggregation):
        (subset,) = found.subsets
        return corpus.score(subset.ngrams[metric.key]) / 100
    states = [subset.stats[i] for subset in found.subsets]
    value = sum(states[1:], start=states[0]).value(metric.unit)
    assert value is not None
    return value


def answers(task: str, which: str) -> list[str]:
    lines = (ROWS / task / "answers.jsonl").read_text().splitlines()
    return [json.loads(line)[which] for line in lines]


def answering(task: str, which: str) -> ScriptedBackend:
    """A model that gives the n-th answer to the n-th row."""
    turn = iter(answers(task, which))
    assert len(answers(task, which)) == len(prompts(task, PromptFormat.CHAT))
    return ScriptedBackend(answer=lambda _: next(turn))


def weighing(task: str, *, right: bool) -> ScriptedBackend:
    """A model for which one choice of each row is certain: a right one, or a wrong one."""
    favoured: Mapping[str, str] = {}
    for prompt in prompts(task, PromptFormat.CHAT):
        accepted = {int(prompt.target), *map(int, prompt.references)}
        index = next(i for i, _ in enumerate(prompt.choices) if (i in accepted) == right)
        favoured = {**favoured, prompt.messages[-1]["content"]: prompt.delimiter + prompt.choices[index]}

    def weight(context: str, continuation: str) -> float:
        wanted = next(choice for question, choice in favoured.items() if question.strip() in context)
        return 0.0 if continuation.strip() == wanted.strip() else -1000.0

    return ScriptedBackend(weight=weight)


JUDGED = [name for name, task in TASKS.items() if any(metric.judge for metric in task.metrics)]
ROLLING = [name for name, task in TASKS.items() if task.request_type is RequestType.LOG_LIKELIHOOD_ROLLING]


@pytest.mark.parametrize("task", sorted(TASKS.keys() - {*ROLLING, *JUDGED}))
def test_right_answers_score_one_and_wrong_ones_do_not(task: str, tmp_path: Path) -> None:
    weighs = TASKS[task].request_type is RequestType.LOG_LIKELIHOOD
    scores = {}
    for which in ("right", "wrong"):
        backend = weighing(task, right=which == "right") if weighs else answering(task, which)
        scores[which] = primary(evaluated(work(task, CHAT, tmp_path / which), backend))
    assert scores["right"] == pytest.approx(1)
    assert scores["wrong"] < 0.3


@pytest.mark.parametrize("task", ROLLING)
def test_a_text_that_the_model_knows_takes_no_bits(task: str, tmp_path: Path) -> None:
    known = evaluated(work(task, CHAT, tmp_path / "known"), ScriptedBackend())
    guessed = ScriptedBackend(weight=lambda _, text: -len(text.encode()) * math.log(2))
    unknown = evaluated(work(task, CHAT, tmp_path / "unknown"), guessed)
    assert primary(known) == 0
    assert primary(unknown) == pytest.approx(1)  # a bit for each byte


@pytest.mark.parametrize(
    ("said", "score"),
    [
        ("It is right.\n\nRATING: 7", 7),
        ("Rating: 3 at first sight, but:\n**RATING: 8.5/10**", 8.5),
        ("Rating: [[10]]", 10),
    ],
)
@pytest.mark.parametrize("task", JUDGED)
def test_what_a_judge_says_of_each_turn_is_the_score(
    task: str, said: str, score: float, tmp_path: Path
) -> None:
    script = Script(answer=said)
    with serve(script) as url:
        found = evaluated(work(task, CHAT, tmp_path, judge=url), ScriptedBackend())
    assert primary(found) == score
    assert len(script.requests) == sum(len(prompt.turns) for prompt in prompts(task, PromptFormat.CHAT))
