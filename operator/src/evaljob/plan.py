"""spec + catalogue + settings -> Plan: everything a run needs, frozen before its first Job.

The plan is pure data and pure function. It travels as one immutable ConfigMap with a key per model and per
dataset; runners see three of its keys, and after its creation the operator reads nothing else, so that an
upgrade in mid-run changes nothing.
"""

import datetime as dt
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from evaljob import judges, lmeval, metrics
from evaljob.backends import PromptFormat
from evaljob.judges import Judge
from evaljob.model import Frozen
from evaljob.names import Reason, job_name
from evaljob.podfields import Resources, RunnerPod, merged
from evaljob.requests import RequestType
from evaljob.scoring import Group
from evaljob.spec import S3, Dataset, EvalJob, Hub, InvalidSpecError, Model, ModelCache, Output, Spec
from evaljob.task import Task, Truncate

PLAN_VERSION: Literal[1] = 1
PLAN_BYTES_MAX = 900 * 1024
"""A ConfigMap holds 1 MiB; the rest is for its metadata."""
RUN_KEY = "run.json"
PARTITIONS_KEY = "partitions.json"


class Settings(Frozen):
    """What an installation decides: chart values, or the defaults for a local run."""

    images: dict[str, str] = Field(default_factory=dict)
    """The runner image per backend (`vllm`, `transformers`, `openai`), and `lmEval` for datasets of lm-eval."""
    runner: RunnerPod = RunnerPod(
        resources=Resources(requests={"cpu": "1", "memory": "2Gi"}, limits={"memory": "4Gi"})
    )
    """Defaults under `spec.runner`."""
    secret_prefix: str = "eval-"  # noqa: S105 - a prefix of names
    """Secrets that an EvalJob may name begin with it: creating EvalJobs must not imply reading every Secret."""
    allowed_metadata: tuple[str, ...] = ()
    """Labels and annotations that an EvalJob may give its pods: names, or beginnings that end with a slash. None by
    default: a label can make a pod part of somebody's Service, an annotation can loosen its security."""
    grace_period_seconds: int = 60
    """Between SIGTERM and SIGKILL, and between the soft and the hard deadline."""
    job_ttl_seconds: int = 3600
    """How long the Jobs of a finished EvalJob stay."""


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


def make_plan(evaljob: EvalJob, catalogue: Mapping[str, Task], settings: Settings, date: dt.date) -> Plan:
    """Resolve an EvalJob into its plan.

    Raises:
        InvalidSpecError: for a spec that can never run; the message holds the fix.
    """
    spec, meta = evaljob.spec, evaljob.metadata
    if spec.hub:
        _refuse_foreign_secret("spec.hub.tokenSecretRef.name", spec.hub.token_secret_ref.name, settings)
    if spec.s3:
        name = spec.s3.credentials_secret_ref.name
        _refuse_foreign_secret("spec.s3.credentialsSecretRef.name", name, settings)
    datasets = tuple(_resolve(d, catalogue, spec.judges, settings) for d in spec.datasets)
    models = tuple(_complete(m, spec.runner, settings) for m in spec.models)
    _refuse_unknown_pairs(spec)
    excluded = {(p.model, p.dataset) for p in spec.exclude}
    pairs = [(m, d) for m in models for d in datasets if (m.name, d.dataset.name) not in excluded]
    _refuse_metrics(datasets, spec.judges)
    _refuse_judges(spec.judges, datasets, settings)
    _refuse_incompatible(pairs)
    _refuse_repeats(pairs)
    _refuse_programs(datasets)
    if not pairs:
        raise InvalidSpecError("exclude leaves no (model, dataset) pair to run: remove a line of it")
    plan = Plan(
        run=RunPlan(
            name=meta.name,
            uid=meta.uid,
            seed=spec.seed,
            date=date,
            backoff_limit=spec.backoff_limit,
            partition_deadline_seconds=spec.partition_deadline_seconds,
            pending_deadline_seconds=spec.pending_deadline_seconds,
            grace_period_seconds=settings.grace_period_seconds,
            job_ttl_seconds=settings.job_ttl_seconds,
            hub=spec.hub,
            s3=spec.s3,
            model_cache=spec.model_cache,
            output=spec.output,
        ),
        models=models,
        datasets=datasets,
        partitions=tuple(
            Partition(model=m.name, dataset=d.dataset.name, shard=k, shards=d.dataset.shards)
            for m, d in pairs
            for k in range(d.dataset.shards)
        ),
    )
    _refuse_large(plan)
    return plan


def _resolve(
    dataset: Dataset, catalogue: Mapping[str, Task], offered: tuple[Judge, ...], settings: Settings
) -> PlannedDataset:
    if dataset.lm_eval is not None:
        image = settings.images.get(lmeval.IMAGE)
        return PlannedDataset(dataset=dataset, task_name=dataset.lm_eval.task, image=image)
    name, task = _task_of(dataset, catalogue)
    return PlannedDataset(dataset=dataset, task_name=name, task=task, judges=judges.named(task, offered))


def _task_of(dataset: Dataset, catalogue: Mapping[str, Task]) -> tuple[str, Task]:
    if dataset.task_spec is not None:
        return dataset.name, dataset.task_spec
    name = dataset.task or ""
    if name not in catalogue:
        raise InvalidSpecError(
            f"spec.datasets[{dataset.name}].task: {name!r} is not in the catalogue; "
            f"use one of {', '.join(sorted(catalogue))}, or write a taskSpec"
        )
    return name, catalogue[name]


def _complete(model: Model, common: RunnerPod, settings: Settings) -> Model:
    """Fill in the model's pod: image by backend, chart defaults < spec.runner < the model's own."""
    secret = model.openai.api_key_secret_ref if model.openai else None
    if secret:
        _refuse_foreign_secret(
            f"spec.models[{model.name}].openai.apiKeySecretRef.name", secret.name, settings
        )
    wanted = merged(common, model.runner)
    chosen = merged(settings.runner, wanted)
    _refuse_pod(model, wanted, settings)
    resources = _with_defaults(wanted.resources, settings.runner.resources)
    _refuse_few_gpus(model, resources)
    image = chosen.image or settings.images.get(model.backend)
    return model.model_copy(
        update={"runner": chosen.model_copy(update={"resources": resources, "image": image})}
    )


def _refuse_foreign_secret(field: str, name: str, settings: Settings) -> None:
    if not name.startswith(settings.secret_prefix):
        raise InvalidSpecError(
            f"{field}: {name!r} must begin with "
            f"{settings.secret_prefix!r}: only such Secrets may be used by EvalJobs"
        )


def _refuse_pod(model: Model, pod: RunnerPod, settings: Settings) -> None:
    """What an installation keeps to itself: Secrets of other names, labels and annotations that it did not allow."""
    where = f"spec.models[{model.name}].runner"
    for volume in pod.volumes:
        if volume.secret:
            field = f"{where}.volumes[{volume.name}].secret.secretName"
            _refuse_foreign_secret(field, volume.secret.secret_name, settings)
    for field, keys in (("labels", pod.labels), ("annotations", pod.annotations)):
        for key in keys:
            if not _allowed(key, settings.allowed_metadata):
                raise InvalidSpecError(
                    f"{where}.{field}: {key!r} is not allowed here; allowed: "
                    f"{', '.join(settings.allowed_metadata) or 'none'} (chart value runner.allowedMetadata)"
                )


def _allowed(key: str, names: Iterable[str]) -> bool:
    """Whether a key is one of the names, or below one that ends with a slash."""
    return any(key == name or (name.endswith("/") and key.startswith(name)) for name in names)


def _refuse_few_gpus(model: Model, resources: Resources) -> None:
    """A rank without a GPU would show only when the model loads."""
    ranks = model.vllm.tensor_parallel_size if model.vllm else 0
    gpus = {k: v for k, v in resources.limits.items() if k.endswith("/gpu") and str(v).isdecimal()}
    for key, value in gpus.items():
        if int(value) < ranks:
            raise InvalidSpecError(
                f"spec.models[{model.name}].vllm.tensorParallelSize: {ranks} ranks need as many GPUs, but "
                f"runner.resources.limits has {key}: {value}"
            )


def _with_defaults(user: Resources, default: Resources) -> Resources:
    """Defaults only for a resource that the user left alone; a requested resource is always limited too."""
    named = user.limits.keys() | user.requests.keys()
    limits = {k: v for k, v in default.limits.items() if k not in named} | dict(user.limits)
    if "memory" in user.requests and "memory" not in limits:
        limits["memory"] = user.requests["memory"]
    requests = {k: v for k, v in default.requests.items() if k not in named} | dict(user.requests)
    return Resources(limits=limits, requests=requests)


def _refuse_unknown_pairs(spec: Spec) -> None:
    models, datasets = {m.name for m in spec.models}, {d.name for d in spec.datasets}
    for i, pair in enumerate(spec.exclude):
        for field, value, known in (("model", pair.model, models), ("dataset", pair.dataset, datasets)):
            if value not in known:
                raise InvalidSpecError(
                    f"spec.exclude[{i}].{field}: {value!r} names nothing; known: {', '.join(sorted(known))}"
                )


def _refuse_metrics(datasets: Iterable[PlannedDataset], offered: tuple[Judge, ...]) -> None:
    for planned in datasets:
        task = planned.task
        if task and (why := metrics.problem(task) or judges.problem(task, offered)):
            where = "task" if planned.dataset.task else "taskSpec"
            raise InvalidSpecError(f"spec.datasets[{planned.dataset.name}].{where}.{why}")


def _refuse_judges(offered: Iterable[Judge], datasets: Iterable[PlannedDataset], settings: Settings) -> None:
    used = {judge.name for planned in datasets for judge in planned.judges}
    for judge in offered:
        if judge.name not in used:
            raise InvalidSpecError(f"spec.judges[{judge.name}]: no metric names it: remove it")
        if secret := judge.openai.api_key_secret_ref:
            _refuse_foreign_secret(
                f"spec.judges[{judge.name}].openai.apiKeySecretRef.name", secret.name, settings
            )


def _refuse_programs(datasets: Iterable[PlannedDataset]) -> None:
    problems = [(d, why) for d in datasets if (why := programs_problem(d))]
    if problems:
        (first, why), names = problems[0], ", ".join(d.dataset.name for d, _ in problems)
        raise InvalidSpecError(
            f"spec.datasets[{first.dataset.name}]: {why}; to allow it add to each of {names}: "
            "allowCodeExecution: true"
        )


def programs_problem(planned: PlannedDataset) -> str | None:
    """Why a dataset may not be scored as its task says, or None."""
    if not planned.task or not planned.task.executes or planned.dataset.allow_code_execution:
        return None
    metrics = ", ".join(planned.task.executes)
    return f"metric {metrics} of task {planned.task_name} runs programs that the model writes"


def _refuse_repeats(pairs: list[tuple[Model, PlannedDataset]]) -> None:
    """Repeats that would all be equal, or too few for what a metric estimates from them."""
    for model, planned in pairs:
        if planned.task and (why := repeats_problem(planned.dataset, planned.task, model)):
            raise InvalidSpecError(f"spec.datasets[{planned.dataset.name}].repeats: {why}")


def repeats_problem(dataset: Dataset, task: Task, model: Model) -> str | None:
    """Why a dataset's `repeats` cannot work with a task and a model, or None."""
    needed = max((m.reduce.pass_at_k[0] for m in task.metrics if m.reduce and m.reduce.pass_at_k), default=1)
    if dataset.repeats < needed:
        return f"{dataset.repeats}, but a metric's reduce.passAtK needs at least {needed}"
    if dataset.repeats == 1:
        return None
    if labelled := [m.key for m in task.metrics if metrics.KINDS[m.name].aggregation.counted]:
        return f"{dataset.repeats}, but {', '.join(labelled)} counts one answer of each sample, use 1"
    if task.request_type.weighs:
        return "log-likelihoods have no randomness, use 1"
    temperatures = (model.generation.temperature, task.generation.temperature)
    if not next((t for t in temperatures if t is not None), 0):
        return (
            f"{dataset.repeats} answers at temperature 0 would be equal; set generation.temperature of "
            f"model {model.name}, or use 1"
        )
    return None


def _refuse_incompatible(pairs: list[tuple[Model, PlannedDataset]]) -> None:
    problems = [(m, d, why) for m, d in pairs if (why := _unsuitable(m, d))]
    if problems:
        lines = ", ".join(f"{{model: {m.name}, dataset: {d.dataset.name}}}" for m, d, _ in problems)
        raise InvalidSpecError(
            f"{problems[0][2]}; add to the spec: exclude: [{lines}]", Reason.INCOMPATIBLE_PAIR
        )


def _unsuitable(model: Model, planned: PlannedDataset) -> str | None:
    return incompatible(model, planned.task) if planned.task else lm_eval_problem(model)


def lm_eval_problem(model: Model) -> str | None:
    """Why lm-eval cannot run its tasks on a model as the model says, or None."""
    if model.reasoning is not None:
        return f"lmEval scores thoughts as answers, model {model.name} has reasoning"
    if model.generation.stop:
        return f"generation.stop of model {model.name} would replace the stop texts of lmEval's tasks"
    if model.openai and model.chat_template_args:
        return f"chatTemplateArgs of model {model.name}: lm-eval sends none to a server"
    return None


def incompatible(model: Model, task: Task) -> str | None:
    """Why a model can never answer what a task asks, or None."""
    return next((why for bad, why in _incompatibilities(model, task) if bad), None)


def _incompatibilities(model: Model, task: Task) -> tuple[tuple[bool, str], ...]:
    """Everything that can be wrong with a pair, and how to say it."""
    name, chat, served = model.name, model.prompt_format is PromptFormat.CHAT, model.openai is not None
    kind, weighs = task.request_type, task.request_type is RequestType.LOG_LIKELIHOOD
    return (
        (
            kind is RequestType.CHAT and not chat,
            f"requestType Chat needs promptFormat Chat, model {name} has Text",
        ),
        (
            weighs and served and chat,
            (
                f"requestType LogLikelihood on the openai backend needs promptFormat Text, model {name} has Chat: "
                "chat completions return no log-probabilities of the prompt"
            ),
        ),
        (
            kind is RequestType.LOG_LIKELIHOOD_ROLLING and served,
            (
                "requestType LogLikelihoodRolling cuts texts with the model's tokenizer, the openai backend of model "
                f"{name} has none"
            ),
        ),
        (
            weighs and model.reasoning is not None,
            f"requestType LogLikelihood weighs answers without thoughts, model {name} has reasoning",
        ),
        (
            task.assistant_prefix is not None and served and chat,
            (
                f"assistantPrefix on the openai backend needs promptFormat Text, model {name} has Chat: "
                "chat completions begin answers by themselves"
            ),
        ),
        (
            task.truncate is not None and served,
            f"truncate needs the model's tokenizer and window, the openai backend of model {name} has none",
        ),
        (
            task.truncate is Truncate.START and chat,
            f"truncate Start needs promptFormat Text, model {name} has Chat: use Middle",
        ),
    )


def _refuse_large(plan: Plan) -> None:
    size = sum(len(k) + len(v.encode()) for k, v in to_data(plan).items())
    if size > PLAN_BYTES_MAX:
        raise InvalidSpecError(
            f"the plan has {size} bytes, a ConfigMap holds {PLAN_BYTES_MAX}: "
            "split the EvalJob, or put inline data on a volume",
            Reason.PLAN_TOO_LARGE,
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
