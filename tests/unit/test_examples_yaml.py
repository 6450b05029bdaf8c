"""The examples and the catalogue's tasks are valid, and agree with each other and with the data."""

import dataclasses
import datetime as dt
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import evaljob
from evaljob.planning import Settings, make_plan
from evaljob.spec import EvalJob, parse_evaljob
from evaljob.task import Task
from examples.prepare import bfcl, capitals, humaneval, mmlu

TOP = Path(__file__).parents[2]
CATALOGUE = {path.stem: path for path in (Path(evaljob.__file__).parent / "tasks").glob("*.yaml")}
COLUMNS = {
    "capitals": capitals.Row,
    "capitals-choice": capitals.Row,
    "mmlu": mmlu.Row,
    "bfcl-simple": bfcl.Row,
    "humaneval": humaneval.Row,
}


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((TOP / "examples" / name).read_text())
    return loaded


def task(name: str) -> Task:
    return Task.model_validate(yaml.safe_load(CATALOGUE[name].read_text()))


def columns(found: Task) -> set[str]:
    """The columns a task's templates and settings name; `subset` is not one."""
    choices = found.choices.template if found.choices else None
    parts = [found.prompt, found.chat_prompt, found.messages, found.target, found.id, choices]
    parts += [text for metric in found.metrics for text in (metric.program, metric.tests)]
    used = set(re.findall(r"{{ (\w+)", " ".join(filter(None, parts)))) - {"answer"}
    return used | ({found.subsets.column} if found.subsets else set())


def groups(found: Task) -> dict[str, tuple[str, ...]]:
    return {group.name: group.members for group in found.groups}


@pytest.mark.parametrize("name", ["quickstart.yaml", "endpoint.yaml", "judge.yaml"])
def test_example_is_a_valid_evaljob(name: str) -> None:
    EvalJob.model_validate(load(name))


DOCS = [TOP / "README.md", *sorted((TOP / "docs").rglob("*.md"))]
BLOCKS = {
    f"{path.name}-{i}": yaml.safe_load(block)
    for path in DOCS
    for i, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE))
}
VALUES = yaml.safe_load((TOP / "charts/evaljob/values.yaml").read_text())
WRITTEN = {name: block for name, block in BLOCKS.items() if not block.keys() <= VALUES.keys()}
"""Without the chart's values."""
REST: dict[str, Any] = {
    "models": [
        {"name": "m", "promptFormat": "Chat", "transformers": {"source": "pvc://m/m", "dtype": "float32"}}
    ],
    "datasets": [{"name": "d", "task": "capitals", "inline": {"jsonl": "{}"}}],
}
METRICS = [{"name": "contains", "primary": True}]


def completed(block: dict[str, Any]) -> dict[str, Any]:
    """The EvalJob that a piece of one, or a task, is part of: what it leaves out is filled in, nothing else."""
    if "requestType" in block:
        block = {
            "datasets": [{**REST["datasets"][0], "task": None, "taskSpec": {"metrics": METRICS, **block}}]
        }
    if "kind" in block:
        return block
    spec = {**REST, **block.get("spec", block)}
    return {"apiVersion": "evaljob.dev/v1alpha1", "kind": "EvalJob", "metadata": {"name": "x"}, "spec": spec}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_the_documentation_shows_can_be_planned(name: str) -> None:
    catalogue = {name: task(name) for name in CATALOGUE}
    made = make_plan(parse_evaljob(completed(WRITTEN[name])), catalogue, Settings(), dt.date(2026, 1, 31))
    assert made.partitions


def test_the_documentation_holds_evaljobs_and_tasks() -> None:
    """Else the test above tests nothing."""
    assert sum("kind" in block for block in WRITTEN.values()) >= 4
    assert sum("requestType" in block for block in WRITTEN.values()) >= 3


def test_what_to_expect_of_the_quickstart_is_what_the_readme_shows() -> None:
    expected = re.findall(
        r"^\| ([\w-]+), (\w+).*?\| \d+/(\d+), ([\d.]+) \| \d+/\3, ([\d.]+)",
        (TOP / "examples/README.md").read_text(),
        re.MULTILINE,
    )
    assert len(expected) == 3
    for name, metric, n, *values in expected:
        found = re.search(rf"^{name} \({metric}\) (.*)$", (TOP / "README.md").read_text(), re.MULTILINE)
        assert found is not None
        assert re.findall(rf"(\d\.\d\d)(?: ±\S+)? \({n}/{n}\)", found[1]) == values


def test_catalogue_has_a_task_for_each_dataset_that_prepare_writes() -> None:
    assert CATALOGUE.keys() >= COLUMNS.keys()


@pytest.mark.parametrize("name", COLUMNS)
def test_task_uses_only_columns_that_prepare_writes(name: str) -> None:
    written = {field.name for field in dataclasses.fields(COLUMNS[name])}
    assert columns(task(name))
    assert columns(task(name)) <= written


def test_mmlu_is_five_shot_over_57_subjects_in_four_groups() -> None:
    mmlu_groups = groups(task("mmlu"))
    parts = [mmlu_groups[name] for name in mmlu_groups["mmlu"]]
    assert sum(len(part) for part in parts) == 57
    assert len({subject for part in parts for subject in part}) == 57
    assert [len(mmlu_groups[n]) for n in ("stem", "humanities", "social_sciences", "other")] == [
        19,
        13,
        12,
        13,
    ]
    few_shot = task("mmlu").few_shot
    assert few_shot is not None
    assert few_shot.count == 5


def test_quickstart_asks_the_development_questions_as_mmlu_but_without_examples() -> None:
    """The catalogue's few-shot examples are these very questions."""
    dataset = next(d for d in load("quickstart.yaml")["spec"]["datasets"] if d["name"] == "mmlu-dev")
    written = Task.model_validate(dataset["taskSpec"])
    changed = {"splits": None, "few_shot": None, "metrics": written.metrics}
    assert written == task("mmlu").model_copy(update=changed)


def test_both_capital_tasks_cover_the_same_six_continents() -> None:
    for name in ("capitals", "capitals-choice"):
        named = {member for members in groups(task(name)).values() for member in members}
        subsets = named - groups(task(name)).keys()
        assert subsets == {"africa", "asia", "europe", "north-america", "oceania", "south-america"}


def test_every_claim_of_the_quickstart_is_bound_to_a_volume_by_name() -> None:
    documents = list(yaml.safe_load_all((TOP / "examples/quickstart/storage.yaml").read_text()))
    volumes = {d["metadata"]["name"]: d["spec"] for d in documents if d["kind"] == "PersistentVolume"}
    claims = {d["metadata"]["name"]: d for d in documents if d["kind"] == "PersistentVolumeClaim"}
    for name, claim in claims.items():
        volume = volumes[claim["spec"]["volumeName"]]
        assert volume["claimRef"] == {"namespace": claim["metadata"]["namespace"], "name": name}
        assert volume["accessModes"] == claim["spec"]["accessModes"]
    text = (TOP / "examples/quickstart.yaml").read_text()
    used = set(re.findall(r"pvc://([\w-]+)", text)) | {load("quickstart.yaml")["spec"]["output"]["claimName"]}
    assert used == claims.keys()
