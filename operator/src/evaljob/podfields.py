"""What users may set of the runner's pods: a closed list, so that no field loosens their security.

A field that Kubernetes has under the same name is one line in `RunnerPod` and one word in `AS_THEY_ARE`.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, StringConstraints, model_validator

from evaljob.fields import LocalObjectReference, ObjectName, Quantity
from evaljob.model import Frozen, cel, cel_rules, list_map
from evaljob.placement import Affinity, LabelKey, LabelValue, TopologySpreadConstraint
from evaljob.volumes import Volume

FrozenT = TypeVar("FrozenT", bound=Frozen)
_NVIDIA_SLICE = re.compile(r"nvidia\.com/(mig-.+|gpu\.shared)")
_OTHER_GPU = re.compile(r"[^/]+/gpu|amd\.com/[cdqs]px_nps\d|gpu\.intel\.com/(i915|xe)|habana\.ai/gaudi")
FORBIDDEN_PREFIXES = ("LD_", "PYTHON", "KUBE", "NVIDIA_")
"""Of variables that change how programs load code."""
_NOT_ALLOWED = (
    f"names starting with {', '.join(FORBIDDEN_PREFIXES[:-1])} or {FORBIDDEN_PREFIXES[-1]} are not allowed"
)
SECRET_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Variables whose values are secret."""
_NOT_PLAIN = (
    "a secret is no variable: name its Secret in spec.hub.tokenSecretRef or spec.s3.credentialsSecretRef"
)


class EnvVar(Frozen):
    """A plain environment variable of the runner. Names that change how programs load code are refused."""

    model_config = cel_rules(
        cel(
            " && ".join(f"!self.name.startsWith('{prefix}')" for prefix in FORBIDDEN_PREFIXES),
            _NOT_ALLOWED,
            fieldPath=".name",
        ),
        cel(f"!(self.name in {list(SECRET_VARIABLES)})", _NOT_PLAIN, fieldPath=".name"),
    )

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=128)]
    value: Annotated[str, Field(max_length=4096)]

    @model_validator(mode="after")
    def _harmless(self) -> Self:
        if self.name.startswith(FORBIDDEN_PREFIXES):
            raise ValueError(f"env: {self.name}: {_NOT_ALLOWED}")
        if self.name in SECRET_VARIABLES:
            raise ValueError(f"env: {self.name}: {_NOT_PLAIN}")
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


_Id = Annotated[int, Field(ge=1, le=2147483647)]
"""Of a user or a group. Never 0: restricted pods do not run as root."""


class PodSecurityContext(Frozen):
    """As whom the runner reads and writes volumes (NFS). Nothing else of a security context can be chosen."""

    run_as_user: _Id | None = None
    run_as_group: _Id | None = None
    fs_group: _Id | None = None
    fs_group_change_policy: Literal["OnRootMismatch", "Always"] | None = None
    supplemental_groups: Annotated[tuple[_Id, ...], Field(max_length=32)] = ()


class RunnerPod(Frozen):
    """What users may set of the runner's pods: a closed list, so that no field loosens their security."""

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    image_pull_secrets: Annotated[
        tuple[LocalObjectReference, ...], Field(max_length=8, json_schema_extra=list_map("name"))
    ] = ()
    resources: Resources = Resources()
    env: Annotated[tuple[EnvVar, ...], Field(max_length=32, json_schema_extra=list_map("name"))] = ()
    volumes: Annotated[tuple[Volume, ...], Field(max_length=16, json_schema_extra=list_map("name"))] = ()
    shm_size: Quantity | None = None
    """Of /dev/shm, 2Gi by default. What is written there counts as memory of the container."""
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=16)] = Field(default_factory=dict)
    """Of the pods; only those that the installation allows."""
    annotations: Annotated[dict[LabelKey, Annotated[str, Field(max_length=4096)]], Field(max_length=16)] = (
        Field(default_factory=dict)
    )
    """Of the pods; only those that the installation allows."""
    security_context: PodSecurityContext | None = None
    node_selector: Annotated[dict[str, str], Field(max_length=32)] = Field(default_factory=dict)
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """The taint of each extended resource that is asked for (`nvidia.com/gpu`) is tolerated anyway."""
    affinity: Affinity | None = None
    topology_spread_constraints: Annotated[tuple[TopologySpreadConstraint, ...], Field(max_length=8)] = ()
    priority_class_name: ObjectName | None = None
    scheduler_name: ObjectName | None = None
    runtime_class_name: ObjectName | None = None
    """Of gVisor or Kata Containers, for example (docs/security.md)."""
    host_users: Literal[False] | None = None
    """false: a user namespace of the pod's own. Kubernetes before 1.33 ignores it."""


AS_THEY_ARE = frozenset(
    {
        "affinity",
        "host_users",
        "image_pull_secrets",
        "node_selector",
        "priority_class_name",
        "runtime_class_name",
        "scheduler_name",
        "security_context",
        "topology_spread_constraints",
    }
)
"""Fields that the pod has under the same name."""


def pod_fields(runner: RunnerPod) -> dict[str, Any]:
    """The fields of the pod that need no work."""
    given = runner.model_dump(
        mode="json", by_alias=True, exclude_none=True, exclude_defaults=True, include=set(AS_THEY_ARE)
    )
    tolerations = [t.model_dump(by_alias=True, exclude_none=True) for t in _tolerations(runner)]
    return given | ({"tolerations": tolerations} if tolerations else {})


def _tolerations(runner: RunnerPod) -> tuple[Toleration, ...]:
    """The user's, and one per extended resource, as Kubernetes' admission plugin ExtendedResourceToleration has it.

    Nodes with GPUs usually repel pods that need none, by a taint of the resource's name. A slice of a GPU lies on
    the same nodes.
    """
    asked = dict.fromkeys((*runner.resources.limits, *runner.resources.requests))
    taints = dict.fromkeys("nvidia.com/gpu" if _NVIDIA_SLICE.fullmatch(r) else r for r in asked if "/" in r)
    own = [Toleration(key=taint, operator="Exists", effect="NoSchedule") for taint in taints]
    return (*runner.tolerations, *(t for t in own if t not in runner.tolerations))


def is_gpu(resource: str) -> bool:
    """Whether a resource is a GPU or a slice of one, by the names that the vendors' device plugins give.

    Among them NVIDIA's MIG and time slices, AMD's partitions, Intel's GPUs (not their monitoring) and Gaudi.
    """
    return bool(_NVIDIA_SLICE.fullmatch(resource) or _OTHER_GPU.fullmatch(resource))


def wants_gpu(limits: Mapping[str, int | str]) -> bool:
    """Whether resource limits ask for a GPU, or a slice of one."""
    return any(is_gpu(resource) and str(amount) != "0" for resource, amount in limits.items())


def gpus(limits: Mapping[str, int | str]) -> int:
    """How many GPUs, or slices of one, resource limits hold; amounts that are no plain number count as none."""
    found = (str(amount) for resource, amount in limits.items() if is_gpu(resource))
    return sum(int(text) for text in found if text.isdecimal())


def merged(base: FrozenT, over: FrozenT) -> FrozenT:
    """`over` upon `base`, field by field: maps by key, named items by name, all else replaced where it is set."""
    fields = type(base).model_fields
    return base.model_copy(update={f: _merged(getattr(base, f), getattr(over, f)) for f in fields})


def _merged(base: Any, over: Any) -> Any:  # noqa: ANN401 - values of fields of any type
    if isinstance(base, dict):
        return base | over
    if isinstance(base, Frozen) and over is not None:
        return merged(base, over)
    if isinstance(over, tuple) and over and hasattr(over[0], "name"):
        return tuple({item.name: item for item in (*base, *over)}.values())
    return base if over is None or over == () else over
