"""The tiny model's files fit together; nothing here needs torch."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaljob.requests import RequestType
from evaljob.task import Task
from tests.tiny import make_data

TINY = Path(make_data.__file__).parent
NAMES = ("chat", "gsm", "kind", "mc")


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (TINY / "data" / f"{name}.jsonl").read_text().splitlines()]


def test_committed_data_is_what_the_script_writes(tmp_path: Path) -> None:
    make_data.write(tmp_path)
    for name in NAMES:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (TINY / "data" / f"{name}.jsonl").read_bytes()


def test_readme_names_the_digest_of_the_committed_weights() -> None:
    digest = hashlib.sha256((TINY / "model" / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (TINY / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_task_is_valid_and_its_templates_use_columns_that_exist(name: str) -> None:
    task = Task.model_validate(yaml.safe_load((TINY / "tasks" / f"{name}.yaml").read_text()))
    templates = " ".join(filter(None, [task.prompt, task.messages, task.target]))
    used = set(re.findall(r"{{ (\w+)", templates))
    assert used
    assert used | {"topic"} <= rows(name)[0].keys()


@pytest.mark.parametrize("name", NAMES)
def test_scores_count_every_test_question(name: str) -> None:
    scores = json.loads((TINY / "scores.json").read_text())
    count = sum(row.get("split", "test") == "test" for row in rows(name))
    found = {
        key: sum(n for _, n in topics.values())
        for key, topics in scores.items()
        if key.startswith(f"{name}/")
    }
    task = yaml.safe_load((TINY / "tasks" / f"{name}.yaml").read_text())
    formats = 1 if task["requestType"] == RequestType.CHAT else 2
    assert list(found.values()) == [count] * formats


@pytest.mark.parametrize("name", ["mc", "kind"])
def test_no_test_question_stands_in_the_few_shot_pool_or_twice(name: str) -> None:
    questions = [row["question"] for row in rows(name)]
    assert len(set(questions)) == len(questions)


def test_data_stays_small() -> None:
    """It is committed: 50 KB for the data, 5 MB for the model."""
    assert sum(path.stat().st_size for path in (TINY / "data").iterdir()) < 50_000
    assert sum(path.stat().st_size for path in (TINY / "model").iterdir()) < 5_000_000
