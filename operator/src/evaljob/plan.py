"""Everything a run needs, frozen before its first Job.

The plan is pure data, made by `planning.py`. It travels as one immutable ConfigMap with a key per model and per
dataset; runners see three of its keys, and after its creation the operator reads nothing else, so that an
upgrade in mid-run changes nothing.
"""

import datetime as dt
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from evaljob.judges import Judge
from evaljob.model import Frozen
from evaljob.names import job_name
from evaljob.scoring import Group
from evaljob.spec import S3, Dataset, Hub, Model, ModelCache, Output
from evaljob.task import Task

PLAN_VERSION: Literal[1] = 1
RUN_KEY = "run.json"
PARTITIONS_KEY = "partitions.json"


class RunPlan(Frozen):
    """What all partitions share (`run.json`)."""

    v: Literal[1] = PLAN_VERSION
    name: str
    uid: str
    seed: int
    date: dt.date
    """The clock of chat templates: the day the EvalJob was created."""
    backoff_limit: int
    partition_deadline_seconds: int
    pending_deadline_seconds: int
    grace_period_seconds: int
    job_ttl_seconds: int
    hub: Hub | None = None
    s3: S3 | None = None
    model_cache: ModelCache | None = None
    output: Output | None = None


class PlannedDataset(Frozen):
    """A dataset with its task resolved (`dataset.<name>.json`)."""

    dataset: Dataset
    task_name: str
    task: Task | None = None
    """None for a task that lm-eval runs (`dataset.lmEval`)."""
    judges: tuple[Judge, ...] = ()
    """Those that its metrics name."""
    image: str | None = None
    """Of the runner, where it is not the model's."""
    own_image: tuple[str, ...] | None = None
    """Models that name an image themselves: theirs counts. None: there are none."""

    @property
    def primary(self) -> str:
        """The key of the metric that stands in the summary's cell."""
        own = self.dataset.lm_eval
        return self.task.primary.result_keys[0] if self.task else own.metric if own else ""

    @property
    def groups(self) -> tuple[Group, ...]:
        """The task's averages over subsets; of lm-eval's tasks only results know them."""
        return self.task.groups if self.task else ()


@dataclass(frozen=True, slots=True)
class Partition:
    """The unit of work, isolation, status and retry: model x dataset x shard. One Job.

    No pydantic model: there may be 10,000, and these would take 700 bytes each more.
    """

    model: str
    dataset: str
    shard: int
    shards: int

    def __str__(self) -> str:
        """As messages name it: `model/dataset` or `model/dataset 0/2`."""
        part = f" {self.shard}/{self.shards}" if self.shards > 1 else ""
        return f"{self.model}/{self.dataset}{part}"


class Plan(Frozen):
    """All partitions of an EvalJob and everything needed to run them."""

    run: RunPlan
    models: tuple[Model, ...]
    """With `runner` completed: chart defaults, `spec.runner`, the model's own."""
    datasets: tuple[PlannedDataset, ...]
    partitions: tuple[Partition, ...]
    warnings: tuple[str, ...] = ()
    """What the API server said to a dry run of its Jobs."""

    def model(self, name: str) -> Model:
        """The model of that name."""
        return next(m for m in self.models if m.name == name)

    def dataset(self, name: str) -> PlannedDataset:
        """The dataset of that name."""
        return self.datasets_by_name[name]

    def image(self, partition: Partition) -> str | None:
        """The runner's image; None where neither the installation nor the EvalJob names one."""
        planned = self.dataset(partition.dataset)
        own = partition.model in (planned.own_image or ())
        return (None if own else planned.image) or self.model(partition.model).runner.image

    @functools.cached_property
    def datasets_by_name(self) -> dict[str, PlannedDataset]:
        """Each Job asks six times for its dataset, of which there may be 500."""
        return {planned.dataset.name: planned for planned in self.datasets}

    @functools.cached_property
    def named(self) -> tuple[tuple[str, Partition], ...]:
        """All partitions with the names of their Jobs, which each pass needs: 10,000 hashes take 0.2 s."""
        return tuple((self.job_name(partition), partition) for partition in self.partitions)

    def job_name(self, partition: Partition) -> str:
        """The name of the partition's Job."""
        return job_name(
            evaljob=self.run.name,
            uid=self.run.uid,
            model=partition.model,
            dataset=partition.dataset,
            shard=partition.shard,
            shards=partition.shards,
        )


def model_key(name: str) -> str:
    """The plan's key, and the runner's file, of a model."""
    return f"model.{name}.json"


def dataset_key(name: str) -> str:
    """The plan's key, and the runner's file, of a dataset."""
    return f"dataset.{name}.json"


class _Partitions(Frozen):
    """The partitions, and the order of the spec: the API server sorts keys."""

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    rows: tuple[tuple[int, int, int], ...]
    """Indexes of model and dataset, shard: names would not fit for 10,000 partitions."""
    warnings: tuple[str, ...] = ()


def to_data(plan: Plan) -> dict[str, str]:
    """The `data` of the plan's ConfigMap."""
    models = {m.name: i for i, m in enumerate(plan.models)}
    datasets = {d.dataset.name: i for i, d in enumerate(plan.datasets)}
    rows = tuple((models[p.model], datasets[p.dataset], p.shard) for p in plan.partitions)
    return {
        RUN_KEY: plan.run.to_json(),
        **{model_key(m.name): m.to_json() for m in plan.models},
        **{dataset_key(d.dataset.name): d.to_json() for d in plan.datasets},
        PARTITIONS_KEY: _Partitions(
            models=tuple(models), datasets=tuple(datasets), rows=rows, warnings=plan.warnings
        ).to_json(),
    }


def _planned(text: str) -> PlannedDataset:
    """A dataset with a task of its own holds that once: 500 of them are two megabytes."""
    found = PlannedDataset.model_validate_json(text)
    own = found.dataset.task_spec
    return found.model_copy(update={"task": own}) if own == found.task else found


def from_data(data: Mapping[str, str]) -> Plan:
    """The plan back from its ConfigMap.

    Raises:
        pydantic.ValidationError, KeyError: when the ConfigMap is not a plan of this version.
    """
    found = _Partitions.model_validate_json(data[PARTITIONS_KEY])
    datasets = tuple(_planned(data[dataset_key(name)]) for name in found.datasets)
    partitions = (
        Partition(
            model=found.models[m], dataset=found.datasets[d], shard=k, shards=datasets[d].dataset.shards
        )
        for m, d, k in found.rows
    )
    return Plan(
        run=RunPlan.model_validate_json(data[RUN_KEY]),
        models=tuple(Model.model_validate_json(data[model_key(name)]) for name in found.models),
        datasets=datasets,
        partitions=tuple(partitions),
        warnings=found.warnings,
    )
