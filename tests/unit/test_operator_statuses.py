"""When a status is written, and the condition that only the shell knows of."""

import pytest

from evaljob.names import Condition, State
from evaljob.status import ConditionStatus, FailureStatus, PartitionCounts, Status
from evaljob_operator.statuses import denied, due_in, known
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


def test_a_denial_replaces_accepted_and_keeps_its_time() -> None:
    first = denied(evaljob(), SEEN, "may not", NOW)
    (accepted,) = first.conditions
    assert (accepted.status, accepted.reason, accepted.message) == ("False", "PermissionDenied", "may not")
    again = denied(evaljob().model_copy(update={"status": first}), SEEN, "may not", later(60))
    assert again.conditions == first.conditions


def test_a_status_of_another_version_is_written_anew_and_never_a_defect() -> None:
    found = known({**document(repeats=1), "status": {"state": "Sleeping", "new": 1}})
    assert found.status == Status()
    assert (found.metadata.name, found.metadata.uid) == ("nightly", UID)
