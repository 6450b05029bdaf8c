"""The catalogue: what each task makes of rows in its dataset's own schema (tests/catalogue/<task>)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from evaljob import judges
from evaljob.backends import PromptFormat
from evaljob.judges import Judge
from evaljob.requests import RequestType
from evaljob.spec import Dataset, Model
from evaljob_cli.catalogue import catalogue
from evaljob_runner import data
from evaljob_runner.assignment import Assignment
from evaljob_runner.prompts import Prompt, Prompter
from evaljob_runner.scoring import Scorer
from tests.runner_plans import assignment, planned, tiny_model

ROWS = Path(__file__).parent.parent / "catalogue"
TASKS = catalogue()


def work(
    task: str, model: Model, out: Path = ROWS, *, limit: int | None = None, judge: str = "http://nobody/v1"
) -> Assignment:
    """A task of the catalogue on its rows; `judge` is where its judge is, if it has one."""
    path = task if TASKS[task].splits else f"{task}/data.jsonl"
    runs_code = any(metric.program for metric in TASKS[task].metrics)
    more = {"source": f"pvc://rows/{path}", "allowCodeExecution": runs_code, "limit": limit}
    offered = Judge.model_validate({"name": "judge", "openai": {"url": judge, "model": "j"}})
    judged = {"judges": judges.named(TASKS[task], [offered])}
    dataset = planned(TASKS[task], name=task, **more).model_copy(update=judged)
    return assignment(model, dataset, out, rows=ROWS)


def prompts(task: str, prompt_format: PromptFormat) -> list[Prompt]:
    on = work(task, tiny_model(promptFormat=prompt_format))
    dataset: Dataset = on.planned.dataset
    selection = data.select(dataset, on.task, on.partition, on.places, on.places.out)
    prompter = Prompter(on.task, selection.pools, chat=on.chat)
    return [prompter.prompt(sample) for sample in selection.samples]


def shown(prompt: Prompt) -> str:
    parts = [prompt.text] if prompt.text else [f"<{m['role']}>\n{m['content']}" for m in prompt.messages]
    parts += [f"<choice {i}>\n{prompt.delimiter}{choice}" for i, choice in enumerate(prompt.choices)]
    return "\n".join([*parts, f"<target>\n{prompt.target}"])


def asked_of_judges(task: str, prompt: Prompt) -> Iterator[str]:
    """What judges see, turn by turn."""
    targets = [accepted.target for accepted in prompt.turns] or [prompt.target]
    answers = [f"(answer {turn})" for turn, _ in enumerate(targets)]
    for turn, target in enumerate(targets):
        own = {"turn": turn, "answers": answers[: turn + 1], "answer": answers[turn], "target": target}
        asked = Scorer(TASKS[task]).shown(prompt.sample.columns, own, prompt.sample.id)
        yield from (f"<judge>\n{m['content']}" for messages in asked.values() for m in messages)


def rendered(task: str) -> str:
    formats = [PromptFormat.TEXT, PromptFormat.CHAT]
    if TASKS[task].request_type is RequestType.CHAT:
        formats = [PromptFormat.CHAT]
    return "".join(
        "\n".join(
            [f"=== {prompt_format}, {prompt.sample.id}", shown(prompt), *asked_of_judges(task, prompt), "\n"]
        )
        for prompt_format in formats
        for prompt in prompts(task, prompt_format)
    )


@pytest.mark.parametrize("task", TASKS)
def test_prompts_of_the_catalogue_change_only_on_purpose(task: str, pytestconfig: pytest.Config) -> None:
    golden = ROWS / task / "prompts.txt"
    if pytestconfig.getoption("--update-goldens"):
        golden.write_text(rendered(task))
    assert rendered(task) == golden.read_text(), f"{golden.name} of {task} (--update-goldens rewrites it)"


@pytest.mark.parametrize(("task", "subjects"), [("mmlu", 57), ("ceval", 52), ("cmmlu", 67)])
def test_the_group_of_a_whole_dataset_holds_every_subject(task: str, subjects: int) -> None:
    groups = {group.name: group for group in TASKS[task].groups}
    members = [
        subject
        for member in groups[task].members
        for subject in (groups[member].members if member in groups else [member])
    ]
    assert len(members) == len(set(members)) == subjects
