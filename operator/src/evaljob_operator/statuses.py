"""When a status is worth a write, and the one condition that `decide` cannot know of."""

from datetime import datetime

from pydantic import ValidationError

from evaljob.names import Condition, Reason
from evaljob.spec import CHANGEABLE, EvalJob, Metadata, Spec
from evaljob.status import ConditionStatus, Status
from evaljob_operator.api import Json


def due_in(before: Status, after: Status, since_last: float, interval: float) -> float | None:
    """Seconds until `after` is to be written: 0 for news, None when nothing has changed.

    News is a change of the state or of a condition, a reason that was not there, and a retry that was begun;
    counters wait until `interval` seconds have passed since the last write.
    """
    if before == after:
        return None
    if _news(before) != _news(after):
        return 0.0
    return max(interval - since_last, 0.0)


def _news(status: Status) -> tuple[object, ...]:
    conditions = frozenset((c.type, c.status, c.reason) for c in status.conditions)
    return status.state, status.retried, conditions, frozenset(f.reason for f in status.failures)


def denied(evaljob: EvalJob, status: Status, message: str, now: datetime) -> Status:
    """The status of an EvalJob for which the operator lacks a right: `Accepted` is False until it has it."""
    before = evaljob.status.condition(Condition.ACCEPTED)
    same = before is not None and before.status == "False"
    condition = ConditionStatus(
        type=Condition.ACCEPTED,
        status="False",
        reason=Reason.PERMISSION_DENIED,
        message=message,
        last_transition_time=before.last_transition_time if before and same else now,
        observed_generation=evaljob.metadata.generation,
    )
    others = tuple(c for c in status.conditions if c.type != Condition.ACCEPTED)
    return status.model_copy(update={"conditions": (condition, *others)})


def known(body: Json) -> EvalJob:
    """An EvalJob as far as a frozen plan leaves anything to ask: its metadata, status and what may change.

    Of the spec only `CHANGEABLE` is read, as the CRD has checked it: rules that became stricter with an upgrade, and
    fields that this version does not know, concern new EvalJobs only.
    """
    meta, spec = body["metadata"], body.get("spec") or {}
    created = meta.get("creationTimestamp")
    metadata = Metadata.model_construct(
        name=meta["name"],
        namespace=meta["namespace"],
        uid=meta["uid"],
        generation=meta.get("generation", 0),
        resource_version=meta.get("resourceVersion") or "",
        labels=meta.get("labels") or {},
        annotations=meta.get("annotations") or {},
        creation_timestamp=datetime.fromisoformat(created) if created else None,
    )
    try:
        status = Status.model_validate(body.get("status") or {})
    except ValidationError:
        # Written by another version of this program, or by hand: it is written anew.
        status = Status()
    names = {field: str(Spec.model_fields[field].alias) for field in CHANGEABLE}
    changeable = {field: spec[name] for field, name in names.items() if name in spec}
    return EvalJob.model_construct(
        metadata=metadata, spec=Spec.model_construct(models=(), datasets=(), **changeable), status=status
    )
