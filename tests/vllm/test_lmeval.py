"""The lm-eval adapter as Kubernetes sees it: a real process, and the numbers of lm-eval alone."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evaljob import stats
from evaljob.names import Reason
from evaljob.plan import PlannedDataset
from evaljob.result import PartitionResult
from evaljob.spec import Dataset, Model
from evaljob_runner.opening import VLLM_ENVIRONMENT
from tests.parity import cases, theirs
from tests.runner_plans import TINY, tiny_model, tiny_vllm
from tests.stub_server import Script, serve
from tests.torch.processes import Ended, end, lines, start

TASKS = Path(__file__).parents[1] / "lmeval_tasks"
CARD = """---
configs:
- config_name: mc
  data_files: [{split: test, path: mc/test.jsonl}, {split: dev, path: mc/dev.jsonl}]
- config_name: kind
  data_files: [{split: test, path: kind/test.jsonl}, {split: dev, path: kind/dev.jsonl}]
---
"""
"""Names the datasets of a folder, as on the hub."""
pytestmark = pytest.mark.torch


def harness(
    task: str,
    metric: str,
    data: str,
    *,
    tasks: str = "pvc://tasks/lmeval_tasks",
    **more: Any,  # noqa: ANN401 - fields of a dataset
) -> PlannedDataset:
    own = {"task": task, "metric": metric, "includePath": tasks}
    spec = Dataset.model_validate({"name": "set", "lmEval": own, "source": f"pvc://rows/{data}", **more})
    return PlannedDataset(dataset=spec, task_name=task)


def run(
    folder: Path,
    dataset: PlannedDataset,
    *options: str,
    model: Model | None = None,
    attempt: str = "a-1",
    variables: Mapping[str, str] | None = None,
) -> Ended:
    """A partition; 15 s on an idle machine, nearly all of them imports."""
    begun = start(folder, model or tiny_model(), dataset, *options, attempt=attempt, variables=variables)
    return end(begun, folder, timeout=600)


def mounts(rows: Path) -> tuple[str, ...]:
    """The data sets of the tiny model, as claim `rows`, and the tasks."""
    cases.write_data(rows / "rows", None)
    return ("--mount", f"tasks={TASKS.parent}", "--mount", f"rows={rows}")


def values(result: PartitionResult, task: str) -> dict[str, tuple[float, float | None]]:
    """Of a task or group, by task and metric: value and standard error."""
    found = {}
    for subset in result.subsets:
        for metric, state in zip(result.metrics, subset.stats, strict=True):
            estimate = stats.estimate(state, metric.unit)
            assert estimate is not None
            found[f"{subset.name or task}/{metric.key}"] = estimate.value, estimate.stderr
    return found


def alone(folder: Path, *arguments: str, **variables: str) -> dict[str, Any]:
    """The results of lm-eval's own command line; a folder stands for the hub, so the tasks are read as they are."""
    cases.write_data(folder / "example", None)
    for name in ("mc", "kind"):
        shutil.copytree(folder / "example" / name, folder / "example" / "mc" / name)
    (folder / "example" / "mc" / "README.md").write_text(CARD)
    command = [sys.executable, "-m", "lm_eval", "run", *arguments, "--seed", "0", "--batch_size", "16"]
    where = ["--include_path", str(TASKS), "--output_path", str(folder / "results.json")]
    variables |= {"HF_HOME": str(folder / "hub"), "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, *where], cwd=folder, env={**os.environ, **variables}, check=True, timeout=600)
    results: dict[str, Any] = json.loads(next(folder.glob("results_*.json")).read_text())["results"]
    return results


def agree(
    mine: Mapping[str, tuple[float, float | None]], reported: Mapping[str, Mapping[str, float]]
) -> None:
    """Values and standard errors."""
    for name, (value, error) in mine.items():
        task, key = name.split("/")
        metric, pipeline = key.split(",") if "," in key else (key, "none")
        assert value == pytest.approx(reported[task][f"{metric},{pipeline}"], rel=1e-9)
        assert error == pytest.approx(reported[task][f"{metric}_stderr,{pipeline}"], rel=1e-6)


def test_a_group_gives_lm_evals_numbers_and_a_finished_partition_is_not_run_again(tmp_path: Path) -> None:
    """Python of the task, random examples by the seed, documents of the source, a folder for each dataset_name."""
    mounted = mounts(tmp_path)
    dataset = harness("tiny_choices", "acc", "rows")
    ended = run(tmp_path, dataset, *mounted)
    assert ended.code == 0, ended.logged
    plain = ("--model", "hf", "--model_args", f"pretrained={TINY / 'model'},dtype=float32", "--device", "cpu")
    mine = values(ended.result, "tiny_choices")
    assert mine.keys() == {f"{t}/{m}" for t in ("tiny_mc", "tiny_kind") for m in ("acc", "acc_norm")}
    agree(mine, alone(tmp_path, *plain, "--tasks", "tiny_choices"))
    assert [(g.name, g.members) for g in ended.result.groups] == [("tiny_choices", ("tiny_mc", "tiny_kind"))]
    assert ended.result.device == "cpu"
    assert ended.result.provenance.keys() >= {"lm-eval", "weights"}
    logged = [json.loads(text) for text in lines(tmp_path)]
    assert len([x for x in logged if x["kind"] == "inference"]) == ended.result.outcomes.expected
    other = harness("tiny_choices", "acc_norm", "rows")
    again = run(tmp_path, other, *mounted, "--score-only", attempt="a-2")
    assert again.result.subsets == ended.result.subsets
    assert (again.result.attempt, again.result.outcomes.from_log) == ("a-2", ended.result.outcomes.expected)
    assert [m.key for m in again.result.metrics if m.primary] == ["acc_norm"]


def test_vllm_gives_the_numbers_of_lm_eval_with_vllm(tmp_path: Path) -> None:
    """A real engine on both sides: choices of a group, and generations."""
    theirs.pretend_vllm(tmp_path / "site")
    site = {"PYTHONPATH": str(tmp_path / "site")}
    mounted = mounts(tmp_path)
    wanted = {
        "tiny_choices": harness("tiny_choices", "acc", "rows"),
        "tiny_gsm": harness("tiny_gsm", "exact_match,strict-match", "rows/gsm"),
    }
    mine: dict[str, tuple[float, float | None]] = {}
    for task, dataset in wanted.items():
        ended = run(tmp_path / task, dataset, *mounted, model=tiny_vllm(), variables=site)
        assert (ended.code, ended.result.device) == (0, "cpu"), ended.logged
        mine |= values(ended.result, task)
    assert len(mine) == 6
    engine = f"pretrained={TINY / 'model'},dtype=float32,enforce_eager=True,kv_cache_memory_bytes={2**26}"
    plain = ("--model", "vllm", "--model_args", engine, "--tasks", ",".join(wanted))
    agree(mine, alone(tmp_path, *plain, **site, **VLLM_ENVIRONMENT))


def test_what_lm_eval_does_not_do_is_said(tmp_path: Path) -> None:
    """The wrong primary metric, found after the run, names those that there are; a task that is not there."""
    mounted = mounts(tmp_path)
    corpus = harness("tiny_gsm", "bleu", "rows/gsm", limit=2)
    ended = run(tmp_path / "a", corpus, *mounted, model=tiny_model(promptFormat="Chat"))
    assert ended.failure.reason == Reason.BAD_CONFIGURATION
    assert ended.failure.message == (
        "lmEval.metric: bleu is no mean over samples; use one of exact_match,strict-match, exact_match"
    )
    assert ended.code == 78


def hint(folder: Path) -> None:
    """A task whose template has a column that only the second row has; what it includes has no suffix."""
    (folder / "tasks").mkdir()
    shutil.copy(TASKS / "tiny_gsm.yaml", folder / "tasks" / "_gsm_yaml")
    own = 'include: _gsm_yaml\ntask: hinted\ndoc_to_text: "{{question}} Hint: {{hint}}"\n'
    (folder / "tasks" / "hinted.yaml").write_text(own)
    rows = folder / "rows" / "gsm" / "test.jsonl"
    documents = [json.loads(text) for text in rows.read_text().splitlines()]
    documents[1]["hint"] = "add"
    rows.write_text("".join(json.dumps(row) + "\n" for row in documents))


def test_a_server_is_asked_by_lm_eval_with_our_limits_and_all_columns(tmp_path: Path) -> None:
    script = Script(answer="#### 33")
    mounted = mounts(tmp_path)
    hint(tmp_path)
    with serve(script) as url:
        openai = {"url": url, "model": "stub", "maxConcurrency": 2}
        served = Model.model_validate(
            {"name": "m", "promptFormat": "Chat", "openai": openai, "generation": {"maxTokens": 9}}
        )
        tasks = "pvc://rows/tasks/hinted.yaml"
        dataset = harness("hinted", "exact_match,strict-match", "rows/gsm", tasks=tasks, limit=3)
        ended = end(start(tmp_path, served, dataset, *mounted), tmp_path, timeout=600)
    assert [s.stats[0] for s in ended.result.subsets] == [stats.Stat(3, 1, 1)]
    assert ended.result.limited
    bodies = [request["body"] for request in script.requests]
    assert [(b["max_tokens"], b["temperature"], b["seed"]) for b in bodies] == [(9, 0.0, 0)] * 3
    asked = [b["messages"][0] for b in bodies]
    assert [m["role"] for m in asked] == ["user"] * 3
    assert sorted(m["content"].partition("Hint: ")[2] for m in asked) == ["None", "None", "add"]
