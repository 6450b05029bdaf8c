"""`code_exec` without running anything: its templates, what it keeps of a document, how much runs at once."""

from pathlib import Path
from typing import Any

import pytest

from evaljob.names import Reason
from evaljob_runner.errors import Fatal
from evaljob_runner.sandbox import room
from evaljob_runner.scoring import Scorer
from tests.unit.test_runner_data import task
from tests.unit.test_runner_prompts import sample

METRIC = {"name": "code_exec", "primary": True, "program": "{{ start }}{{ answer }}", "tests": "{{ test }}"}
COLUMNS = {"start": "def f():\n", "test": "assert f()", "q": "?", "a": "!"}
MEBIBYTE = 2**20


def scorer(**changes: Any) -> Scorer:  # noqa: ANN401 - any field
    return Scorer(task(metrics=[METRIC | changes]))


def test_the_sample_log_keeps_what_scoring_needs_of_a_document_and_no_more() -> None:
    assert scorer().document(sample(**COLUMNS)) == {"start": "def f():\n", "test": "assert f()"}
    assert Scorer(task()).document(sample(**COLUMNS)) is None


def test_a_document_without_a_column_of_the_templates_is_refused_before_the_model_loads() -> None:
    columns = {k: v for k, v in COLUMNS.items() if k != "test"}
    with pytest.raises(Fatal, match="'test' is undefined") as caught:
        scorer().document(sample(**columns))
    assert caught.value.reason is Reason.BAD_DATA


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tests": "assert {{ answer }}"}, "tests must not see the answer"),
        ({"program": "{{"}, "metrics.code_exec.program"),
    ],
)
def test_a_task_that_cannot_execute_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Fatal, match=words) as caught:
        scorer(**changes)
    assert caught.value.reason is Reason.BAD_CONFIGURATION


def files(folder: Path, **content: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_memory_is_what_the_container_has_left_without_page_cache(tmp_path: Path) -> None:
    machine = files(tmp_path, meminfo="MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n") / "meminfo"
    v2 = files(
        tmp_path / "v2",
        memory__max="4000\n",
        memory__current="1500\n",
        memory__stat="inactive_file 500\nx 1\n",
    )
    unlimited = files(tmp_path / "u", memory__max="max\n", memory__current="1500\n")
    files(
        tmp_path / "v1" / "memory",
        memory__limit_in_bytes="900\n",
        memory__usage_in_bytes="100\n",
        memory__stat="total_inactive_file 50\n",
    )
    assert room.free(v2, machine) == 3000
    assert room.free(tmp_path / "v1", machine) == 850
    assert room.free(unlimited, machine) == room.free(tmp_path / "none", machine) == 8_192_000_000


@pytest.mark.parametrize(
    ("processors", "left", "workers"),
    [("4", 100, 4), ("4", 5, 2), ("4", 1, 1), ("1", 100, 1)],
    ids=["processors", "memory", "never none", "one processor"],
)
def test_programs_run_side_by_side_as_far_as_processors_and_memory_go(
    monkeypatch: pytest.MonkeyPatch, processors: str, left: int, workers: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", processors)
    monkeypatch.setattr(room, "free", lambda: left * MEBIBYTE)
    assert room.workers(MEBIBYTE) == workers
