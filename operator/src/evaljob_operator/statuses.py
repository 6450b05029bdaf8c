"""When a status is worth a write, and the one condition that `decide` cannot know of."""

from dataclasses import replace
from datetime import datetime

from pydantic import ValidationError

from evaljob import standing
from evaljob.decide import Decision
from evaljob.names import Condition, Reason
from evaljob.policies import retry_asked
from evaljob.spec import CHANGEABLE, EvalJob, Metadata, Spec
from evaljob.standing import Event
from evaljob.status import Status
from evaljob_operator.api import ApiError, Json
from evaljob_operator.refusals import refusal


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


def told(evaljob: EvalJob, decision: Decision, error: ApiError, now: datetime) -> Decision:
    """The decision with what the API server refuses us; `Accepted` is False until it does not any more.

    An end is told as it is, unless a retry is what is refused: nothing would take the refusal back.
    """
    over = decision.status.is_true(Condition.FINISHED) and not retry_asked(evaljob)
    if over or (reason := refusal(error)) is None:
        return decision
    if reason is Reason.INVALID_SPEC:
        # Refused is an object of ours, or a change of one: another spec would not help.
        reason = Reason.ADMISSION_DENIED
    before = evaljob.status.condition(Condition.ACCEPTED)
    denied = standing.condition(evaljob, Condition.ACCEPTED, "False", reason, str(error), now)
    others = (c for c in decision.status.conditions if c.type != Condition.ACCEPTED)
    events = tuple(event for event in decision.events if event.reason != Reason.ACCEPTED)
    if before is None or (before.status, before.reason) != ("False", reason):
        events = (Event("Warning", reason, str(error)), *events)
    status = decision.status.model_copy(update={"conditions": (denied, *others)})
    return replace(decision, status=status, events=events)


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
