"""`evaljob import lm-eval`: on every task of lm-eval, and equal to lm-eval where it says so."""

import json
from collections import Counter
from pathlib import Path

import pytest

from evaljob.task import Task
from evaljob_cli.lm_eval import groups, reading
from evaljob_cli.lm_eval.notes import Fate
from tests.parity import imported, ours, theirs
from tests.parity.compare import Difference, compare

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


def test_every_task_and_group_of_lm_eval_is_converted_or_named_as_needing_the_adapter() -> None:
    """No crash on 14,000 files; what is written is a task of ours; what is not has its reason."""
    count: Counter[str] = Counter()
    for path in reading.folder_files(imported.TASKS):
        made = groups.convert(reading.read(path), path, ())
        if made.document is not None:
            Task.model_validate(made.document)
        needs = any(row.fate is Fate.ADAPTER and row.why for row in made.rows)
        assert needs == (made.document is None), path
        count["equal" if made.equal else "adapter" if needs else "other scores"] += 1
    print(json.dumps(count))
    assert count["equal"] > 3500
    assert count.total() > 13900


def test_imported_tasks_ask_and_score_as_lm_eval_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token ids, answers, scores and metrics of tasks as they stand in lm-eval's package."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    wanted = imported.cases(tmp_path / "data")
    mine, their = (
        side.load(wanted[0].model.folder, "transformers", wanted[0].model.window) for side in (ours, theirs)
    )
    found: list[Difference] = []
    for case in wanted:
        assert case.converted().equal
        first = ours.run(case, mine, "transformers", tmp_path / "data", tmp_path / case.data)
        second = theirs.run(case, their, tmp_path / "data")
        found += compare(str(case), first, second, case.precision)
    assert found == []
