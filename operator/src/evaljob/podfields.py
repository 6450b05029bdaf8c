"""What users may set of the runner's pods: a closed list, so that no field loosens their security."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from evaljob.fields import LocalObjectReference, ObjectName, Quantity
from evaljob.model import Frozen, cel, cel_rules, list_map

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
