"""spec + catalogue + settings -> Plan; what can never run is refused here, with the line that mends it."""

import datetime as dt
from collections.abc import Iterable, Mapping

from pydantic import Field

from evaljob import judges, lmeval, metrics
from evaljob.judges import Judge
from evaljob.mistakes import NAMES_SHOWN, some
from evaljob.model import Frozen
from evaljob.names import Reason
from evaljob.pairs import incompatible, lm_eval_problem, programs_problem, repeats_problem
from evaljob.plan import Partition, Plan, PlannedDataset, RunPlan, to_data
from evaljob.podfields import Resources, RunnerPod, gpus, is_gpu, merged
from evaljob.spec import Dataset, EvalJob, InvalidSpecError, Model, Spec
from evaljob.task import Task

PLAN_BYTES_MAX = 900 * 1024
"""A ConfigMap holds 1 MiB; the rest is for its metadata."""


class Settings(Frozen):
    """What an installation decides: chart values, or the defaults for a local run."""

    images: dict[str, str] = Field(default_factory=dict)
    """The runner image per backend (`vllm`, `transformers`, `openai`), and `lmEval` for datasets of lm-eval.
    An image that an EvalJob names itself comes before both."""
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
    datasets = tuple(_resolve(d, catalogue, spec, settings) for d in spec.datasets)
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
    dataset: Dataset, catalogue: Mapping[str, Task], spec: Spec, settings: Settings
) -> PlannedDataset:
    if dataset.lm_eval is not None:
        image = settings.images.get(lmeval.IMAGE) if spec.runner.image is None else None
        own = tuple(m.name for m in spec.models if m.runner.image) if image else ()
        return PlannedDataset(
            dataset=dataset, task_name=dataset.lm_eval.task, image=image, own_image=own or None
        )
    name, task = _task_of(dataset, catalogue)
    judging = judges.named(task, spec.judges)
    return PlannedDataset(dataset=dataset, task_name=name, task=task, judges=judging)


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
    if 0 < gpus(resources.limits) < ranks:
        found = ", ".join(f"{k}: {v}" for k, v in resources.limits.items() if is_gpu(k))
        raise InvalidSpecError(
            f"spec.models[{model.name}].vllm.tensorParallelSize: {ranks} ranks need as many GPUs, but "
            f"runner.resources.limits has {found}"
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
                    f"spec.exclude[{i}].{field}: {value!r} names nothing; known: {some(sorted(known))}"
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
        (first, why), names = problems[0], some(d.dataset.name for d, _ in problems)
        raise InvalidSpecError(
            f"spec.datasets[{first.dataset.name}]: {why}; to allow it add to each of {names}: "
            "allowCodeExecution: true"
        )


def _refuse_repeats(pairs: list[tuple[Model, PlannedDataset]]) -> None:
    """Repeats that would all be equal, or too few for what a metric estimates from them."""
    for model, planned in pairs:
        if planned.task and (why := repeats_problem(planned.dataset, planned.task, model)):
            raise InvalidSpecError(f"spec.datasets[{planned.dataset.name}].repeats: {why}")


def _refuse_incompatible(pairs: list[tuple[Model, PlannedDataset]]) -> None:
    problems = [(m, d, why) for m, d in pairs if (why := _unsuitable(m, d))]
    if problems:
        lines = some(f"{{model: {m.name}, dataset: {d.dataset.name}}}" for m, d, _ in problems)
        fix = f"add to the spec: exclude: [{lines}]"
        if len(problems) > NAMES_SHOWN:
            apart = some(dict.fromkeys(m.name for m, _, _ in problems))
            fix += f" (it takes 100), or give models {apart} an EvalJob of their own with other datasets"
        raise InvalidSpecError(f"{problems[0][2]}; {fix}", Reason.INCOMPATIBLE_PAIR)


def _unsuitable(model: Model, planned: PlannedDataset) -> str | None:
    return incompatible(model, planned.task) if planned.task else lm_eval_problem(model)


def _refuse_large(plan: Plan) -> None:
    size = sum(len(k) + len(v.encode()) for k, v in to_data(plan).items())
    if size > PLAN_BYTES_MAX:
        raise InvalidSpecError(
            f"the plan has {size} bytes, a ConfigMap holds {PLAN_BYTES_MAX}: "
            "split the EvalJob, or put inline data on a volume",
            Reason.PLAN_TOO_LARGE,
        )
