"""The status of an EvalJob, as users read it."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from evaljob.model import Frozen, list_map
from evaljob.names import State


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
    """At most ten partitions: failed ones, then those that wait. The summary has all failures."""
    summary: str | None = None
    """The ConfigMap with the results."""
    start_time: datetime | None = None
    """When the first pod ran; set anew when it goes on after a suspension, or after its end by `retry-failed`."""
    completion_time: datetime | None = None
    """When every partition was on record and every Job over."""
    retried: str | None = None
    """The value of the annotation `evaljob.dev/retry-failed` that was last acted on."""

    def condition(self, kind: str) -> ConditionStatus | None:
        """The condition of that type, if present."""
        return next((c for c in self.conditions if c.type == kind), None)

    def is_true(self, kind: str) -> bool:
        """Whether the condition is present and True."""
        found = self.condition(kind)
        return found is not None and found.status == "True"
