"""The EvalJob resource: its spec and status, as users write and read them.

These models are the source of the CRD (`evaljob.crd`). Rules that need two fields stand twice: as CEL, so that
`kubectl apply` answers at once, and as validators here, for files that never meet an API server.
"""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import ErrorDetails

from evaljob.model import Frozen, cel, cel_rules, list_map
from evaljob.names import API_VERSION, KIND, Reason, State
from evaljob.task import Generation, Task

DnsLabel40 = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
DisplayName = Annotated[str, StringConstraints(min_length=1, max_length=253)]
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", max_length=253)]


HUB_SCHEME = "hf://"
_WITH_REVISION = "^hf://[^/@]+/[^/@]+@"
_NEEDS_REVISION = (
    "an hf:// source names its revision, hf://<org>/<name>@<revision>: a branch moves, and numbers move with it; "
    "best is a commit"
)


def _stays_inside(source: str) -> str:
    if {".", ".."} & set(source.split("/")):
        raise ValueError("a path without . and ..")
    return source


def _names_revision(source: str) -> str:
    if source.startswith(HUB_SCHEME) and not re.match(_WITH_REVISION, source):
        raise ValueError(_NEEDS_REVISION)
    return source


Source = Annotated[
    str,
    StringConstraints(
        pattern=r"^((pvc|configmap)://[a-z0-9]([-.a-z0-9]*[a-z0-9])?(/[^/]+)+"
        r"|hf://[A-Za-z0-9][-.\w]*/[A-Za-z0-9][-.\w]*(@[A-Za-z0-9][-.\w]*)?(/[^/]+)*)$",
        max_length=1024,
    ),
    AfterValidator(_stays_inside),
    AfterValidator(_names_revision),
]
"""`pvc://<claim>/<path>` or `configmap://<name>/<key>` in the EvalJob's own namespace, or a repository of a Hugging
Face hub, `hf://<org>/<name>@<revision>[/<path>]`."""


_REVISION_RULE = cel(
    f"!has(self.source) || !self.source.startsWith('{HUB_SCHEME}') || self.source.matches('{_WITH_REVISION}')",
    _NEEDS_REVISION,
    fieldPath=".source",
)
_QUANTITY = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"


def _quantity(value: object) -> int | str:
    """Checked here, because a Job with a wrong one is refused only when it is created."""
    if isinstance(value, bool) or not isinstance(value, int | str) or not re.match(_QUANTITY, str(value)):
        raise ValueError(
            "not a quantity of Kubernetes, which are like 2, 500m or 4Gi (in quotes with a point: '0.5')"
        )
    return value


Quantity = Annotated[
    int | str,
    PlainValidator(_quantity),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": _QUANTITY}),
]
PARTITIONS_MAX = 10_000
BACKENDS = ("vllm", "transformers", "openai")
"""The fields of a model of which exactly one is given."""


class PromptFormat(StrEnum):
    """Whether prompts go through the model's chat template.

    Required: many base checkpoints ship a chat template, and a guess would score them wrongly in silence.
    """

    CHAT = "Chat"
    TEXT = "Text"


class Dtype(StrEnum):
    """The precision of weights and arithmetic; never a checkpoint's own default."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Device(StrEnum):
    """Where a model computes. `Auto` with a GPU limit and no visible GPU is an error, never a silent CPU run."""

    AUTO = "Auto"
    CPU = "CPU"
    CUDA = "CUDA"


class Transformers(Frozen):
    """A local checkpoint computed by Hugging Face transformers inside the pod."""

    model_config = cel_rules(_REVISION_RULE)

    source: Source
    """The checkpoint, for example `pvc://models/smollm2` or `hf://org/name@commit`."""
    dtype: Dtype
    device: Device = Device.AUTO
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 16
    """Prompts per forward pass."""


class VLLM(Frozen):
    """A local checkpoint computed by vLLM inside the pod."""

    source: Source
    """Folder of the checkpoint, for example `pvc://models/qwen2-72b`."""
    dtype: Dtype
    tensor_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1
    """GPUs of the pod that share the model."""
    max_model_len: Annotated[int, Field(ge=2, le=16777216)] | None = None
    """Tokens that prompt and answer share; the checkpoint's own window by default. Less needs less memory."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of each GPU's memory that vLLM may take. Changes no token and so no digest."""


class SecretKeyRef(Frozen):
    """One key of a Secret in the EvalJob's namespace. The operator never reads it; the kubelet mounts it."""

    name: ObjectName
    key: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]


class OpenAI(Frozen):
    """An endpoint that speaks OpenAI's completions and chat completions API.

    LogLikelihood needs promptFormat Text and a server that returns log-probabilities of a prompt, as vLLM's does.
    """

    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=2048)]
    """Base address with version, for example `https://llm.example.com/v1`."""
    model: Annotated[str, Field(min_length=1, max_length=253)]
    """The name that the server serves."""
    max_concurrency: Annotated[int, Field(ge=1, le=4096)] = 8
    """Requests in flight, per pod."""
    request_timeout_seconds: Annotated[int, Field(ge=1, le=86400)] = 300
    api_key_secret_ref: SecretKeyRef | None = None


class LocalObjectReference(Frozen):
    """An object of the EvalJob's namespace, by name."""

    name: ObjectName


_TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
_NO_TOKEN = "a token is no plain variable: name its Secret in spec.hub.tokenSecretRef"  # noqa: S105 - advice


class EnvVar(Frozen):
    """A plain environment variable of the runner. Names that change how programs load code are refused."""

    model_config = cel_rules(
        cel(
            "!self.name.startsWith('LD_') && !self.name.startsWith('PYTHON') && !self.name.startsWith('KUBE')"
            " && !self.name.startsWith('NVIDIA_')",
            "names starting with LD_, PYTHON, KUBE or NVIDIA_ are not allowed",
            fieldPath=".name",
        ),
        cel(f"!(self.name in {list(_TOKEN_VARIABLES)})", _NO_TOKEN, fieldPath=".name"),
    )

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
    value: Annotated[str, Field(max_length=4096)]

    @model_validator(mode="after")
    def _harmless(self) -> Self:
        if self.name.startswith(("LD_", "PYTHON", "KUBE", "NVIDIA_")):
            raise ValueError(
                f"env: {self.name}: names starting with LD_, PYTHON, KUBE or NVIDIA_ are not allowed"
            )
        if self.name in _TOKEN_VARIABLES:
            raise ValueError(f"env: {self.name}: {_NO_TOKEN}")
        return self


class Toleration(Frozen):
    """A toleration of the runner's pods, as in a Pod."""

    model_config = cel_rules(
        cel("has(self.key) || self.operator == 'Exists'", "without key, operator must be Exists"),
        cel("!has(self.value) || self.operator == 'Equal'", "value: only with operator Equal"),
        cel(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds: only with effect NoExecute",
        ),
    )

    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.key is None and self.operator != "Exists":
            raise ValueError("without key, operator must be Exists")
        if self.value is not None and self.operator != "Equal":
            raise ValueError("value: only with operator Equal")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("tolerationSeconds: only with effect NoExecute")
        return self


class Resources(Frozen):
    """Requests and limits of the runner's container, as in a Pod."""

    limits: Annotated[dict[str, Quantity], Field(max_length=32)] = Field(default_factory=dict)
    requests: Annotated[dict[str, Quantity], Field(max_length=32)] = Field(default_factory=dict)


class RunnerPod(Frozen):
    """What users may set of the runner's pods: a closed list, so that no field loosens their security."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: Annotated[
        tuple[LocalObjectReference, ...], Field(max_length=8, json_schema_extra=list_map("name"))
    ] = ()
    resources: Resources = Resources()
    env: Annotated[tuple[EnvVar, ...], Field(max_length=32, json_schema_extra=list_map("name"))] = ()
    node_selector: Annotated[dict[str, str], Field(max_length=32)] = Field(default_factory=dict)
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    priority_class_name: ObjectName | None = None


class Model(Frozen):
    """One model, with exactly one backend that computes it."""

    model_config = cel_rules(
        cel(
            "[has(self.vllm), has(self.transformers), has(self.openai)].filter(x, x).size() == 1",
            "a model has exactly one backend: vllm, transformers or openai",
        )
    )

    name: DnsLabel40
    display_name: DisplayName | None = None
    """Free text for the summary."""
    prompt_format: PromptFormat
    vllm: VLLM | None = None
    transformers: Transformers | None = None
    openai: OpenAI | None = None
    generation: Generation = Generation()
    """Overrides the tasks' sampling parameters field by field; `stop` texts are added."""
    runner: RunnerPod = RunnerPod()
    """Overrides `spec.runner` field by field."""

    @model_validator(mode="after")
    def _one_backend(self) -> Self:
        if sum(getattr(self, name) is not None for name in BACKENDS) != 1:
            raise ValueError(f"model {self.name}: exactly one backend, vllm, transformers or openai")
        return self

    @property
    def backend(self) -> str:
        """The field that says how the model is computed."""
        return next(name for name in BACKENDS if getattr(self, name) is not None)

    @property
    def local(self) -> VLLM | Transformers | None:
        """The checkpoint that the pod itself computes; None behind an endpoint."""
        return self.vllm or self.transformers


class Inline(Frozen):
    """Samples in the EvalJob itself, for small sets."""

    jsonl: Annotated[str, Field(min_length=1, max_length=262144)]
    """One JSON object per line."""


class Dataset(Frozen):
    """One dataset: a task, and the samples it is applied to."""

    model_config = cel_rules(
        cel("has(self.task) != has(self.taskSpec)", "exactly one of task and taskSpec"),
        cel("has(self.source) != has(self.inline)", "exactly one of source and inline"),
        _REVISION_RULE,
        cel(
            "!has(self.taskSpec) || (has(self.allowCodeExecution) && self.allowCodeExecution)"
            " || !self.taskSpec.metrics.exists(m, has(m.program))",
            "taskSpec runs programs that a model writes: add allowCodeExecution: true to the dataset",
        ),
    )

    name: DnsLabel40
    display_name: DisplayName | None = None
    """Free text for the summary."""
    task: (
        Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)] | None
    ) = None
    """A task of the catalogue."""
    task_spec: Task | None = None
    """A task written here."""
    source: Source | None = None
    """A file of JSON lines or Parquet, or a folder with files by split (docs/sources.md)."""
    inline: Inline | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    """The first n samples of each subset (of the dataset, without subsets), as in lm-eval. Marks the cell."""
    shards: Annotated[int, Field(ge=1, le=1000)] = 1
    """Partitions that share the samples; the merged numbers do not depend on it."""
    repeats: Annotated[int, Field(ge=1, le=10000)] = 1
    """Answers per sample, each with a seed of its own; needs a temperature above 0. A metric's `reduce` says how
    they count; standard errors are over samples."""
    allow_code_execution: bool = False
    """Whether metrics may run programs that a model wrote, in the runner's sandbox (docs/code-execution.md). Said
    here and nowhere else: no task can allow it to itself."""

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        if (self.task is None) == (self.task_spec is None):
            raise ValueError(f"dataset {self.name}: exactly one of task and taskSpec")
        if (self.source is None) == (self.inline is None):
            raise ValueError(f"dataset {self.name}: exactly one of source and inline")
        return self


def sources(model: Model, dataset: Dataset) -> list[str]:
    """The URIs that a pair reads."""
    return [uri for uri in (model.local and model.local.source, dataset.source) if uri]


class Pair(Frozen):
    """A (model, dataset) pair that is not run."""

    model: DnsLabel40
    dataset: DnsLabel40


class Output(Frozen):
    """Where sample logs are kept. With it a retried partition recomputes no finished sample."""

    claim_name: ObjectName
    """A PersistentVolumeClaim that every node of a run can mount for writing."""


class Hub(Frozen):
    """How `hf://` sources are reached. The hub's address is an environment variable of the runner, HF_ENDPOINT."""

    token_secret_ref: SecretKeyRef
    """A token that may read the repositories, for private and gated ones."""


class ModelCache(Frozen):
    """Where what comes from `hf://` sources is kept. Without it each pod fetches its own, into at most 64 GiB."""

    claim_name: ObjectName
    """A PersistentVolumeClaim that every node of a run can mount for writing; it becomes HF_HOME. Whoever may write
    to it can change the models and datasets that its users see."""


_IMMUTABLE = (
    "exclude",
    "seed",
    "backoffLimit",
    "partitionDeadlineSeconds",
    "pendingDeadlineSeconds",
    "runner",
    "hub",
    "modelCache",
    "output",
)


def _immutable(field: str, *, required: bool = False) -> dict[str, str]:
    same = f"self.{field} == oldSelf.{field}"
    rule = (
        same if required else f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || {same})"
    )
    return cel(rule, f"{field} is immutable: create another EvalJob", fieldPath=f".{field}")


class Spec(Frozen):
    """Every model is evaluated on every dataset, each pair in a process of its own."""

    model_config = cel_rules(
        _immutable("models", required=True),
        _immutable("datasets", required=True),
        *(_immutable(f) for f in _IMMUTABLE),
        cel(
            f"self.models.size() * self.datasets.map(d, d.shards).sum() <= {PARTITIONS_MAX}",
            f"models x shards of all datasets must not exceed {PARTITIONS_MAX} partitions: split the EvalJob",
        ),
    )

    models: Annotated[
        tuple[Model, ...], Field(min_length=1, max_length=100, json_schema_extra=list_map("name"))
    ]
    datasets: Annotated[
        tuple[Dataset, ...], Field(min_length=1, max_length=500, json_schema_extra=list_map("name"))
    ]
    exclude: Annotated[
        tuple[Pair, ...], Field(max_length=100, json_schema_extra=list_map("model", "dataset"))
    ] = ()
    """Pairs that are not run."""
    seed: Annotated[int, Field(ge=0, le=2147483647)] = 0
    parallelism: Annotated[int, Field(ge=1, le=PARTITIONS_MAX)] = 10
    """Unfinished Jobs at once. May change at any time; never changes the plan or a number."""
    suspend: bool = False
    """True stops running pods and starts none; finished partitions stay."""
    backoff_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """Retries per partition; disruptions (preemption, drain, eviction) are free."""
    partition_deadline_seconds: Annotated[int, Field(ge=1, le=31536000)] = 86400
    """Longest time of one attempt, in seconds."""
    pending_deadline_seconds: Annotated[int, Field(ge=1, le=31536000)] = 1800
    """A pod that has not started after this many seconds fails its partition."""
    runner: RunnerPod = RunnerPod()
    hub: Hub | None = None
    model_cache: ModelCache | None = None
    output: Output | None = None

    @model_validator(mode="after")
    def _unique_and_small(self) -> Self:
        for what, items in (("models", self.models), ("datasets", self.datasets)):
            names = [item.name for item in items]
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"{what}: {name} stands twice, names must be unique")
        partitions = len(self.models) * sum(d.shards for d in self.datasets)
        if partitions > PARTITIONS_MAX:
            raise ValueError(f"{partitions} partitions, at most {PARTITIONS_MAX}: split the EvalJob")
        return self


class Reported(Frozen):
    """A part of the status. Unknown fields of another version of the operator are no reason to refuse a spec."""

    model_config = ConfigDict(extra="ignore")


class ConditionStatus(Reported):
    """A condition, as in every Kubernetes object."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: datetime
    observed_generation: int = 0


class PartitionCounts(Reported):
    """How many partitions are where; the four add up to `total`."""

    total: int = 0
    pending: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0


class FailureStatus(Reported):
    """One failed or waiting partition, with the reason to act on."""

    partition: str
    reason: str
    message: str = ""


class Status(Reported):
    """What the operator has seen. Written by the operator only."""

    observed_generation: int = 0
    state: State = State.PENDING
    progress: str = ""
    """Finished partitions / all, for example `3/12`."""
    failed: int = 0
    conditions: Annotated[
        tuple[ConditionStatus, ...], Field(max_length=16, json_schema_extra=list_map("type"))
    ] = ()
    partitions: PartitionCounts = PartitionCounts()
    failures: Annotated[tuple[FailureStatus, ...], Field(max_length=10)] = ()
    """The first ten failures; the summary has all."""
    summary: str | None = None
    """The ConfigMap with the results."""
    start_time: datetime | None = None
    completion_time: datetime | None = None
    retried: str | None = None
    """The value of the annotation `evaljob.dev/retry-failed` that was last acted on."""

    def condition(self, kind: str) -> ConditionStatus | None:
        """The condition of that type, if present."""
        return next((c for c in self.conditions if c.type == kind), None)

    def is_true(self, kind: str) -> bool:
        """Whether the condition is present and True."""
        found = self.condition(kind)
        return found is not None and found.status == "True"


class Metadata(BaseModel):
    """The fields of metadata that matter here; the API server owns the rest."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        populate_by_name=True,
        alias_generator=Frozen.model_config["alias_generator"],
    )

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: datetime | None = None


class EvalJob(Frozen):
    """An evaluation of models on datasets."""

    model_config = cel_rules(
        cel(
            "self.metadata.name.size() <= 40 && !self.metadata.name.contains('.')",
            "metadata.name: a DNS label of at most 40 characters (it becomes part of every Job's name)",
        )
    )

    api_version: Literal["evaljob.dev/v1alpha1"] = API_VERSION  # type: ignore[assignment]
    kind: Literal["EvalJob"] = KIND  # type: ignore[assignment]
    metadata: Metadata
    spec: Spec
    status: Status = Status()


class InvalidSpecError(Exception):
    """A spec that can never run. `reason` is `InvalidSpec`, `UnsupportedField` or more precise."""

    def __init__(self, message: str, reason: Reason = Reason.INVALID_SPEC) -> None:
        super().__init__(message)
        self.reason = reason


def parse_evaljob(document: object) -> EvalJob:
    """Read an EvalJob from a decoded YAML or JSON document.

    Raises:
        InvalidSpecError: with every problem as `path: what is wrong (got value)`.
    """
    try:
        return EvalJob.model_validate(document)
    except ValidationError as error:
        found = _without_echoes(error.errors(include_url=False))
        raise InvalidSpecError(_explain(found), _reason(found)) from error


def _without_echoes(found: list[ErrorDetails]) -> list[ErrorDetails]:
    """Without "too short" about a list that is only short of its faulty items."""
    places = [e["loc"] for e in found]

    def echo(e: ErrorDetails) -> bool:
        place = e["loc"]
        return e["type"] == "too_short" and any(p != place and p[: len(place)] == place for p in places)

    return [e for e in found if not echo(e)]


def _reason(found: list[ErrorDetails]) -> Reason:
    kinds = {e["type"] for e in found}
    return Reason.UNSUPPORTED_FIELD if kinds == {"extra_forbidden"} else Reason.INVALID_SPEC


def _explain(found: list[ErrorDetails], limit: int = 5) -> str:
    """The first problems, each with its path, in kubectl's notation."""
    lines = [_line(item) for item in found[:limit]]
    more = len(found) - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def _line(item: ErrorDetails) -> str:
    path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in item["loc"]).lstrip(".") or "document"
    if item["type"] == "extra_forbidden":
        return f"{path}: unknown field"
    scalar = isinstance(item["input"], str | int | float | bool)
    got = f" (got {str(item['input'])[:80]!r})" if scalar else ""
    return f"{path}: {item['msg'].removeprefix('Value error, ')}{got}"
