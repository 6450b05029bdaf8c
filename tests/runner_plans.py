# ruff: noqa: ANN401 - changes of any field
"""Plan folders for tests of the runner, made from the same parts as a real plan's."""

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from evaljob.plan import Partition, PlannedDataset, RunPlan, dataset_key, model_key
from evaljob.spec import Dataset, Model, Output
from evaljob.task import Task
from evaljob_runner.assignment import Assignment, Places

TINY = Path(__file__).parent / "tiny"
DATE = dt.date(2026, 1, 31)


def tiny_model(**changes: Any) -> Model:
    """The tiny model as it would stand in a spec, from the claim `models`."""
    local = {"source": "pvc://models/model", "dtype": "float32", "device": "CPU"} | changes.pop(
        "transformers", {}
    )
    return Model.model_validate({"name": "tiny", "promptFormat": "Text", "transformers": local} | changes)


def tiny_vllm(**changes: Any) -> Model:
    """The tiny model as vLLM computes it."""
    engine = {"source": "pvc://models/model", "dtype": "float32"} | changes.pop("vllm", {})
    return Model.model_validate({"name": "tiny", "promptFormat": "Text", "vllm": engine} | changes)


def tiny_task(name: str, **changes: Any) -> Task:
    """One of the tiny tasks."""
    document = yaml.safe_load((TINY / "tasks" / f"{name}.yaml").read_text())
    return Task.model_validate(document | changes)


def planned(task: Task, *, name: str = "set", **dataset: Any) -> PlannedDataset:
    """A dataset with its task; `source` or `inline` among the keywords."""
    spec = Dataset.model_validate({"name": name, "taskSpec": task} | dataset)
    return PlannedDataset(dataset=spec, task_name=name, task=task)


def tiny_dataset(name: str, **dataset: Any) -> PlannedDataset:
    """One of the tiny tasks on its data, from the claim `data`."""
    return planned(tiny_task(name), name=name, **({"source": f"pvc://data/{name}.jsonl"} | dataset))


def run_plan(**changes: Any) -> RunPlan:
    """What all partitions share."""
    defaults: dict[str, Any] = {
        "name": "test",
        "uid": "0b9b1b1e",
        "seed": 0,
        "date": DATE,
        "backoff_limit": 3,
        "partition_deadline_seconds": 86400,
        "pending_deadline_seconds": 1800,
        "grace_period_seconds": 60,
        "job_ttl_seconds": 3600,
        "output": Output(claim_name="logs"),
    }
    return RunPlan(**(defaults | changes))


def places(out: Path, **claims: Path) -> Places:
    """The tiny model and data, mounted."""
    known: Mapping[str, Path] = {"models": TINY, "data": TINY / "data"} | claims
    return Places(claims=known, config_maps={}, out=out)


def assignment(
    model: Model,
    dataset: PlannedDataset,
    out: Path,
    *,
    shard: tuple[int, int] = (0, 1),
    attempt: str = "a-1",
    run: RunPlan | None = None,
    **claims: Path,
) -> Assignment:
    """One partition, as `read_assignment` returns it."""
    return Assignment(
        run=run or run_plan(),
        model=model,
        planned=dataset,
        partition=Partition(model=model.name, dataset=dataset.dataset.name, shard=shard[0], shards=shard[1]),
        attempt=attempt,
        places=places(out, **claims),
    )


def write_plan(
    folder: Path, model: Model, dataset: PlannedDataset, *, attempt: str = "a-1", run: RunPlan | None = None
) -> list[str]:
    """The files of one partition; returns the arguments that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text((run or run_plan()).to_json())
    (folder / model_key(model.name)).write_text(model.to_json())
    (folder / dataset_key(dataset.dataset.name)).write_text(dataset.to_json())
    (folder / "attempt").write_text(attempt)
    return ["--plan", str(folder), "--model", model.name, "--dataset", dataset.dataset.name]
