"""When a status is written, and the condition that only the shell knows of."""

import pytest

from evaljob.decide import Decision
from evaljob.names import ANNOTATION_RETRY, Condition, Reason, State
from evaljob.standing import Event
from evaljob.status import ConditionStatus, FailureStatus, PartitionCounts, Status
from evaljob_operator.api import ApiError, ForbiddenError, InvalidError
from evaljob_operator.statuses import due_in, known, told
from tests.unit.builders import NOW, UID, document, evaljob, later


def condition(kind: Condition, status: str = "True", reason: str = "Accepted") -> ConditionStatus:
    return ConditionStatus(type=kind, status=status, reason=reason, last_transition_time=NOW)


SEEN = Status(state=State.RUNNING, conditions=(condition(Condition.ACCEPTED),))


@pytest.mark.parametrize(
    ("change", "due"),
    [
        ({}, None),
        ({"partitions": PartitionCounts(total=3, running=3)}, 7.0),
        ({"progress": "1/3"}, 7.0),
        ({"state": State.SUSPENDED}, 0.0),
        ({"retried": "1"}, 0.0),
        ({"failures": (FailureStatus(partition="m/d", reason="Unschedulable"),)}, 0.0),
        ({"conditions": (condition(Condition.ACCEPTED, "False"),)}, 0.0),
        ({"conditions": (condition(Condition.ACCEPTED, reason="Other"),)}, 0.0),
        ({"conditions": (*SEEN.conditions, condition(Condition.FINISHED))}, 0.0),
    ],
)
def test_news_is_written_at_once_and_counters_are_not(change: dict[str, object], due: float | None) -> None:
    assert due_in(SEEN, SEEN.model_copy(update=change), since_last=3.0, interval=10.0) == due


def test_counters_are_written_when_the_interval_is_over() -> None:
    assert due_in(SEEN, SEEN.model_copy(update={"progress": "1/3"}), since_last=12.0, interval=10.0) == 0.0


NO_RIGHT = ForbiddenError(403, "Forbidden", 'User "x" cannot create resource "jobs"')
QUOTA = ForbiddenError(403, "Forbidden", 'configmaps "nightly-summary" is forbidden: exceeded quota: few')
IMMUTABLE = InvalidError(422, "Invalid", "data: Forbidden: field is immutable when `immutable` is set")


@pytest.mark.parametrize(
    ("error", "reason"),
    [(NO_RIGHT, "PermissionDenied"), (QUOTA, "QuotaExceeded"), (IMMUTABLE, "AdmissionDenied")],
)
def test_a_refusal_replaces_accepted_and_keeps_its_time(error: ApiError, reason: str) -> None:
    first = told(evaljob(), Decision(status=SEEN), error, NOW)
    (accepted,) = first.status.conditions
    assert (accepted.status, accepted.reason, accepted.message) == ("False", reason, str(error))
    again = told(
        evaljob().model_copy(update={"status": first.status}), Decision(status=SEEN), error, later(60)
    )
    assert again.status.conditions == first.status.conditions


def test_an_event_tells_of_each_refusal_once_and_of_no_acceptance() -> None:
    other = Event("Normal", Reason.RETRIED, "run again")
    decision = Decision(status=SEEN, events=(Event("Normal", Reason.ACCEPTED, "1 partition"), other))
    first = told(evaljob(), decision, NO_RIGHT, NOW)
    assert [e.reason for e in first.events] == ["PermissionDenied", "Retried"]
    refused = evaljob().model_copy(update={"status": first.status})
    assert told(refused, decision, NO_RIGHT, NOW).events == (other,)
    assert [e.reason for e in told(refused, decision, QUOTA, NOW).events] == ["QuotaExceeded", "Retried"]


def test_an_end_is_told_as_it_is() -> None:
    over = Decision(
        status=SEEN.model_copy(update={"conditions": (*SEEN.conditions, condition(Condition.FINISHED))})
    )
    assert told(evaljob(), over, NO_RIGHT, NOW) is over
    meta = evaljob().metadata.model_copy(update={"annotations": {ANNOTATION_RETRY: "1"}})
    retried = told(evaljob().model_copy(update={"metadata": meta}), over, NO_RIGHT, NOW)
    assert retried.status.conditions[0].reason == "PermissionDenied"


def test_an_error_that_says_nothing_about_an_object_is_not_told() -> None:
    decision = Decision(status=SEEN)
    assert told(evaljob(), decision, ApiError(503, "ServiceUnavailable", "later"), NOW) is decision


def test_a_status_of_another_version_is_written_anew_and_never_a_defect() -> None:
    found = known({**document(repeats=1), "status": {"state": "Sleeping", "new": 1}})
    assert found.status == Status()
    assert (found.metadata.name, found.metadata.uid) == ("nightly", UID)
