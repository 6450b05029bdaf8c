"""The EvalJob resource, as users write it. Its parts: `backends`, `task` with `scoring`, `podfields`, `status`.

These models are the source of the CRD (`evaljob.crd`). Rules that need two fields stand twice: as CEL, so that
`kubectl apply` answers at once, and as validators here, for files that never meet an API server.
"""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from evaljob import mistakes
from evaljob.backends import (
    BACKENDS,
    VLLM,
    ChatTemplateArgs,
    OpenAI,
    PromptFormat,
    Reasoning,
    Transformers,
)
from evaljob.fields import (
    HUB_SCHEME,
    REVISION_RULE,
    DataSource,
    DisplayName,
    DnsLabel40,
    ObjectName,
    SecretKeyRef,
)
from evaljob.judges import Judge
from evaljob.lmeval import LmEval
from evaljob.model import Frozen, cel, cel_rules, exactly_one, list_map
from evaljob.names import API_VERSION, KIND, Reason
from evaljob.podfields import RunnerPod
from evaljob.status import Status
from evaljob.task import Generation, Task

PARTITIONS_MAX = 10_000


class Model(Frozen):
    """One model, with exactly one backend that computes it."""

    model_config = cel_rules(
        cel(
            exactly_one("vllm", "transformers", "openai"),
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
    reasoning: Reasoning | None = None
    chat_template_args: ChatTemplateArgs = Field(default_factory=dict)
    """Variables of the chat template, for example `enable_thinking: "false"`: JSON values, anything else is text.
    A server gets them as `chat_template_kwargs`."""
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
        cel(
            exactly_one("task", "taskSpec", "lmEval"),
            "exactly one of task, taskSpec and lmEval",
        ),
        cel(
            "has(self.lmEval) ? !has(self.inline) : has(self.source) != has(self.inline)",
            "exactly one of source and inline; with lmEval at most source",
        ),
        cel(
            "!has(self.lmEval) || (self.shards == 1 && self.repeats == 1)",
            "lmEval runs in one partition and asks as often as its task says: shards and repeats must be 1",
        ),
        REVISION_RULE,
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
    lm_eval: LmEval | None = None
    source: DataSource | None = None
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
        if sum(given is not None for given in (self.task, self.task_spec, self.lm_eval)) != 1:
            raise ValueError(f"dataset {self.name}: exactly one of task, taskSpec and lmEval")
        if self.lm_eval and (self.shards, self.repeats) != (1, 1):
            raise ValueError(f"dataset {self.name}: with lmEval shards and repeats must be 1")
        sources = (self.source is not None) + (self.inline is not None)
        if (sources != 1 and not self.lm_eval) or (self.lm_eval and self.inline):
            raise ValueError(
                f"dataset {self.name}: exactly one of source and inline; with lmEval at most source"
            )
        return self

    @property
    def uses_hub(self) -> bool:
        """Whether its documents may come from a hub: a task of lm-eval names one itself."""
        return self.source.startswith(HUB_SCHEME) if self.source else self.lm_eval is not None


def sources(model: Model, dataset: Dataset) -> list[str]:
    """The URIs that a pair reads."""
    include = dataset.lm_eval and dataset.lm_eval.include_path
    return [uri for uri in (model.local and model.local.source, dataset.source, include) if uri]


def uses_hub(model: Model, dataset: Dataset) -> bool:
    """Whether a hub has to be asked for the model or the data of a pair."""
    return dataset.uses_hub or any(uri.startswith(HUB_SCHEME) for uri in sources(model, dataset))


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


class S3(Frozen):
    """How `s3://` sources are reached; region and address are the runner's AWS_REGION and AWS_ENDPOINT_URL."""

    credentials_secret_ref: SecretKeyRef
    """A credentials file, as the AWS tools keep it in `~/.aws/credentials`."""


class ModelCache(Frozen):
    """Where what comes from `hf://` sources is kept. Without it each pod fetches its own, into at most 64 GiB."""

    claim_name: ObjectName
    """A PersistentVolumeClaim that every node of a run can mount for writing; it becomes HF_HOME. Whoever may write
    to it can change the models and datasets that its users see."""


CHANGEABLE = ("parallelism", "suspend", "active_deadline_seconds", "ttl_seconds_after_finished")
"""Fields of a spec that may change at any time: none is part of the plan, or changes an answer."""
_IMMUTABLE = (
    "judges",
    "exclude",
    "seed",
    "backoffLimit",
    "partitionDeadlineSeconds",
    "pendingDeadlineSeconds",
    "runner",
    "hub",
    "s3",
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
        cel(
            "self.datasets.all(d, !has(d.taskSpec) || d.taskSpec.metrics.all(m, !has(m.judge)"
            " || (has(self.judges) && self.judges.exists(j, j.name == m.judge.name))))",
            "a metric's judge.name is not in spec.judges: add it there",
        ),
    )

    models: Annotated[
        tuple[Model, ...], Field(min_length=1, max_length=100, json_schema_extra=list_map("name"))
    ]
    datasets: Annotated[
        tuple[Dataset, ...], Field(min_length=1, max_length=500, json_schema_extra=list_map("name"))
    ]
    judges: Annotated[tuple[Judge, ...], Field(max_length=16, json_schema_extra=list_map("name"))] = ()
    """LLMs that score answers, for metrics to name."""
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
    """A pod that has not started, or a Job that could not be created, after this many seconds fails its partition."""
    active_deadline_seconds: Annotated[int, Field(ge=1, le=31536000)] | None = None
    """Longest time of the whole EvalJob from its startTime, in seconds, as a Job's: then what is unfinished stops
    and fails with DeadlineExceeded, and what has finished stays. Suspension stops the clock, which starts anew on
    resumption. May change at any time. The operator's; `evaljob run` has none."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31536000)] | None = None
    """As a Job's: so many seconds after its end the EvalJob is deleted, and its summary with it; sample logs stay.
    May change at any time. Without it the EvalJob stays until somebody deletes it."""
    runner: RunnerPod = RunnerPod()
    hub: Hub | None = None
    s3: S3 | None = None
    model_cache: ModelCache | None = None
    output: Output | None = None

    @model_validator(mode="after")
    def _unique_and_small(self) -> Self:
        named = {
            "models": [m.name for m in self.models],
            "datasets": [d.name for d in self.datasets],
            "judges": [j.name for j in self.judges],
        }
        for what, names in named.items():
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"{what}: {name} stands twice, names must be unique")
        partitions = len(self.models) * sum(d.shards for d in self.datasets)
        if partitions > PARTITIONS_MAX:
            raise ValueError(f"{partitions} partitions, at most {PARTITIONS_MAX}: split the EvalJob")
        return self


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
    resource_version: str = ""
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
        found = mistakes.found(error)
        unknown = {m["type"] for m in found} == {"extra_forbidden"}
        reason = Reason.UNSUPPORTED_FIELD if unknown else Reason.INVALID_SPEC
        raise InvalidSpecError(mistakes.explain(found, EvalJob), reason) from error
