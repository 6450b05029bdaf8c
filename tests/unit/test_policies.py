"""The operator's rules, each with its table."""

import dataclasses
import datetime as dt
from typing import Any

import pytest

from evaljob import policies
from evaljob.names import Reason
from evaljob.observe import Observation, Phase
from evaljob.plan import Partition
from evaljob.result import Failure
from evaljob.spec import EvalJob
from evaljob.status import Status
from evaljob.waiting import Waiting
from tests.unit.builders import NOW, evaljob, job_view, later

HOUR = dt.timedelta(hours=1)


def partition(model: str, number: int = 0) -> Partition:
    return Partition(model=model, dataset=f"d{number}", shard=0, shards=1)


def absent(model: str, number: int = 0) -> Observation:
    return Observation(partition(model, number), Phase.ABSENT)


def pending(model: str, since: float, number: int = 9) -> Observation:
    waiting = Waiting(Reason.UNSCHEDULABLE, "no node", later(-since))
    return Observation(partition(model, number), Phase.PENDING, job_view(), waiting=waiting)


def running(model: str, number: int = 8) -> Observation:
    return Observation(partition(model, number), Phase.RUNNING, job_view(ready=1))


def created(observations: list[Observation], parallelism: int) -> list[str]:
    return [str(p) for p in policies.to_create(observations, parallelism, NOW)]


class TestCreate:
    def test_models_take_turns(self) -> None:
        seen = [absent("a", 1), absent("a", 2), absent("b", 1), absent("b", 2), absent("c", 1)]
        assert created(seen, 4) == ["a/d1", "b/d1", "c/d1", "a/d2"]

    def test_a_model_with_jobs_comes_after_one_without(self) -> None:
        """A giant whose first Job waits does not take the place that a small one has just left."""
        seen = [pending("giant", 10), absent("giant", 1), absent("small", 1), absent("small", 2)]
        assert created(seen, 2) == ["small/d1"]
        assert created(seen, 3) == ["small/d1", "giant/d1"]

    def test_a_stalled_model_gets_no_more(self) -> None:
        seen = [pending("giant", 61), absent("giant", 1), absent("small", 1), absent("small", 2)]
        assert created(seen, 9) == ["small/d1", "small/d2"]

    @pytest.mark.parametrize(("parallelism", "number"), [(1, 0), (2, 0), (3, 1), (4, 2), (9, 3)])
    def test_never_more_than_parallelism(self, parallelism: int, number: int) -> None:
        seen = [running("a"), pending("b", 5), absent("a", 1), absent("b", 1), absent("c", 1)]
        assert len(created(seen, parallelism)) == number

    def test_a_pass_makes_a_bounded_number_so_that_records_and_status_go_on(self) -> None:
        seen = [absent("a", n) for n in range(2 * policies.AT_ONCE)]
        assert len(created(seen, 10_000)) == policies.AT_ONCE

    def test_an_ended_job_takes_no_place(self) -> None:
        over = Observation(partition("a"), Phase.ENDED, job_view(finished="Complete", finished_at=NOW))
        assert created([over, absent("a", 1)], 1) == ["a/d1"]

    def test_a_stopped_job_takes_its_place_until_it_is_over(self) -> None:
        stopped = Observation(partition("a"), Phase.FAILED, job_view(), Failure(reason="Unschedulable"))
        assert created([stopped, absent("a", 1)], 1) == []

    def test_one_that_is_suspended_takes_none_once_its_pods_are_gone(self) -> None:
        stopped = job_view(suspended=True, queue="gpu")
        gone = dataclasses.replace(stopped, started_at=None)
        for job, made in ((stopped, []), (gone, ["a/d1"])):
            seen = Observation(partition("a"), Phase.FAILED, job, Failure(reason="Unschedulable"))
            assert created([seen, absent("a", 1)], 1) == made
        unrecorded = Observation(partition("a"), Phase.PENDING, gone)
        assert created([unrecorded, absent("a", 1)], 1) == []


def refused(model: str, since: float, number: int = 1) -> Observation:
    waiting = Waiting(Reason.QUOTA_EXCEEDED, "exceeded quota", later(-since), tried_at=later(-since))
    return Observation(partition(model, number), Phase.ABSENT, waiting=waiting)


def in_order(model: str, reason: Reason, since: float) -> Observation:
    return Observation(
        partition(model), Phase.PENDING, job_view(), waiting=Waiting(reason, "later", later(-since))
    )


class TestRefused:
    def test_a_refused_model_comes_last_and_with_one_job(self) -> None:
        seen = [refused("a", 15, 1), refused("a", 15, 2), absent("b", 1), absent("b", 2)]
        assert created(seen, 9) == ["b/d1", "b/d2", "a/d1"]
        assert created(seen, 2) == ["b/d1", "b/d2"]

    def test_it_is_left_alone_for_a_while(self) -> None:
        assert created([refused("a", 14)], 9) == []

    def test_of_two_the_one_that_was_asked_for_longest_ago_comes_first(self) -> None:
        assert created([refused("a", 20), refused("b", 30)], 9) == ["b/d1"]


@pytest.mark.parametrize(
    "reason", [Reason.QUEUED_BY_KUEUE, Reason.SUSPENDED_BY_OTHERS, Reason.POD_STUCK_TERMINATING]
)
def test_what_waits_in_order_has_no_deadline_and_stalls_nothing(reason: Reason) -> None:
    seen = in_order("a", reason, 99999)
    assert not policies.never_started(seen, HOUR, NOW)
    assert policies.stalled_models([seen], NOW) == set()


@pytest.mark.parametrize(
    ("reason", "since", "told"),
    [
        (Reason.UNSCHEDULABLE, 0, True),
        (Reason.QUEUED_BY_KUEUE, 0, True),
        (Reason.POD_NOT_STARTED, 60, False),
        (Reason.POD_NOT_STARTED, 61, True),
        (Reason.POD_STUCK_TERMINATING, 60, False),
        (Reason.POD_STUCK_TERMINATING, 61, True),
    ],
)
def test_what_may_pass_by_itself_is_told_after_a_minute(reason: Reason, since: float, told: bool) -> None:
    assert policies.worth_telling(in_order("a", reason, since), NOW) is told


def test_a_partition_on_record_does_not_wait() -> None:
    waiting = Waiting(Reason.UNSCHEDULABLE, "no node", NOW)
    stopped = Observation(
        partition("a"), Phase.FAILED, job_view(), Failure(reason="BadData"), waiting=waiting
    )
    assert not policies.worth_telling(stopped, NOW)


@pytest.mark.parametrize(("since", "stalled"), [(0, set()), (60, set()), (61, {"a"})])
def test_a_model_is_stalled_after_a_minute(since: float, stalled: set[str]) -> None:
    assert policies.stalled_models([pending("a", since), running("b")], NOW) == stalled


@pytest.mark.parametrize(
    ("phase", "job", "suspend", "wanted"),
    [
        (Phase.RUNNING, {}, True, True),
        (Phase.RUNNING, {}, False, None),
        (Phase.PENDING, {"suspended": True}, True, None),
        (Phase.PENDING, {"suspended": True}, False, False),
        (Phase.PENDING, {"deleting": True}, True, None),
        (Phase.ENDED, {"finished": "Complete"}, True, None),
        # Stopped it runs into its deadline, and suspended it is over.
        (Phase.FAILED, {}, True, None),
        (Phase.FAILED, {"suspended": True}, True, None),
        (Phase.FAILED, {"suspended": True}, False, None),
        (Phase.FAILED, {"suspended": True, "finished": "Failed"}, False, None),
        # Kueue's to say.
        (Phase.RUNNING, {"queue": "gpu"}, True, None),
        (Phase.PENDING, {"queue": "gpu", "suspended": True}, False, None),
    ],
)
def test_suspension(phase: Phase, job: dict[str, Any], suspend: bool, wanted: bool | None) -> None:
    assert policies.suspension(Observation(partition("a"), phase, job_view(**job)), suspend) is wanted


@pytest.mark.parametrize(
    ("phase", "job", "suspend", "late", "withdrawn"),
    [
        (Phase.RUNNING, {"queue": "gpu"}, True, False, True),
        (Phase.PENDING, {"queue": "gpu", "suspended": True}, True, False, True),
        (Phase.RUNNING, {"queue": "gpu"}, False, False, False),
        (Phase.RUNNING, {}, True, False, False),
        (Phase.PENDING, {"queue": "gpu", "deleting": True}, True, False, False),
        (Phase.ENDED, {"queue": "gpu", "finished": "Complete"}, True, False, False),
        # Its record would go with it.
        (Phase.FAILED, {"queue": "gpu"}, True, False, False),
        # What Kueue suspends never runs into a deadline.
        (Phase.PENDING, {"queue": "gpu", "suspended": True}, False, True, True),
        (Phase.FAILED, {"queue": "gpu", "suspended": True}, False, True, False),
        (Phase.RUNNING, {"queue": "gpu"}, False, True, False),
        (Phase.PENDING, {"suspended": True}, False, True, False),
    ],
)
def test_suspended_or_out_of_time_a_job_leaves_kueues_queue(
    phase: Phase, job: dict[str, Any], suspend: bool, late: bool, withdrawn: bool
) -> None:
    seen = Observation(partition("a"), phase, job_view(**job))
    assert policies.withdrawn(seen, suspend, late=late) is withdrawn


@pytest.mark.parametrize(("suspend", "late"), [(True, False), (False, True)])
def test_a_job_that_is_about_to_complete_stays_in_its_queue(suspend: bool, late: bool) -> None:
    job = job_view(queue="gpu", suspended=late)
    seen = Observation(partition("a"), Phase.RUNNING, job, won=True)
    assert not policies.withdrawn(seen, suspend, late=late)


def test_nothing_to_suspend_without_a_job() -> None:
    assert policies.suspension(absent("a"), True) is None


@pytest.mark.parametrize(("since", "late"), [(3599, False), (3600, True), (9999, True)])
def test_pending_deadline(since: float, late: bool) -> None:
    assert policies.never_started(pending("a", since), HOUR, NOW) is late


def test_what_does_not_wait_is_never_late() -> None:
    assert not policies.never_started(running("a"), HOUR, later(99999))


@pytest.mark.parametrize(
    ("fields", "now", "overdue"),
    [
        ({"finished_at": NOW}, 4, False),
        ({"finished_at": NOW}, 5, True),
        ({"finished_at": None, "created": NOW}, 5, True),
    ],
)
def test_an_ended_job_without_a_pod_is_overdue_after_five_seconds(
    fields: dict[str, Any], now: float, overdue: bool
) -> None:
    job = job_view(finished="Complete", **fields)
    assert policies.overdue(Observation(partition("a"), Phase.ENDED, job), later(now)) is overdue


def test_an_ended_job_with_an_outcome_is_not_overdue() -> None:
    job = job_view(finished="Failed", finished_at=NOW)
    ended = Observation(partition("a"), Phase.ENDED, job, Failure(reason="BadData"), "text")
    assert not policies.overdue(ended, later(99))


@pytest.mark.parametrize(
    ("observations", "seconds"),
    [
        ([], None),
        ([running("a"), absent("b")], None),
        ([pending("a", 10)], 51),
        ([pending("a", 61)], 3540),
        ([pending("a", 61), pending("b", 3599)], 2),
        ([pending("a", 4000)], None),
        ([refused("a", 5)], 11),
        ([refused("a", 20)], 3581),
        ([Observation(partition("a"), Phase.ENDED, job_view(finished="Complete", finished_at=NOW))], 6),
    ],
)
def test_next_look(observations: list[Observation], seconds: float | None) -> None:
    assert policies.next_look(observations, HOUR, NOW) == seconds


@pytest.mark.parametrize(("until", "seconds"), [(None, 51), (20, 21), (90, 51), (-1, 51)])
def test_the_end_of_the_time_of_all_is_looked_at_too(until: float | None, seconds: float) -> None:
    when = None if until is None else later(until)
    assert policies.next_look([pending("a", 10)], HOUR, NOW, when) == seconds


def started(ago: float | None, *, suspended: bool = False, **spec: Any) -> EvalJob:  # noqa: ANN401 - fields of the spec
    """An EvalJob that started so many seconds ago."""
    condition = {"type": "Suspended", "status": "True", "reason": "Suspended", "lastTransitionTime": NOW}
    status = Status.model_validate(
        {"startTime": None if ago is None else later(-ago), "conditions": [condition] if suspended else []}
    )
    return evaljob(**spec).model_copy(update={"status": status})


@pytest.mark.parametrize(
    ("of", "late"),
    [
        (started(99), False),
        (started(59, activeDeadlineSeconds=60), False),
        (started(60, activeDeadlineSeconds=60), True),
        (started(None, activeDeadlineSeconds=60), False),
        (started(60, activeDeadlineSeconds=60, suspend=True), False),
        # Just resumed: the start time is about to be set anew.
        (started(60, activeDeadlineSeconds=60, suspended=True), False),
    ],
)
def test_an_evaljob_is_out_of_time_as_a_job_is(of: EvalJob, late: bool) -> None:
    assert policies.out_of_time(of, NOW) is late


@pytest.mark.parametrize(
    ("phase", "job", "cut"),
    [
        (Phase.RUNNING, {}, True),
        (Phase.PENDING, {}, True),
        (Phase.PENDING, {"suspended": True}, False),
        (Phase.PENDING, {"deleting": True}, False),
        (Phase.ENDED, {"finished": "Complete"}, False),
        (Phase.SUCCEEDED, {"finished": "Complete"}, False),
        (Phase.FAILED, {}, False),
    ],
)
def test_out_of_time_only_what_runs_is_stopped(phase: Phase, job: dict[str, Any], cut: bool) -> None:
    assert policies.cut_short(Observation(partition("a"), phase, job_view(**job))) is cut
    assert not policies.cut_short(Observation(partition("a"), phase, job_view(**job), won=True))


@pytest.mark.parametrize(
    ("seen", "late", "reason"),
    [
        (absent("a"), False, None),
        (absent("a"), True, "DeadlineExceeded"),
        (refused("a", 3599), False, None),
        (refused("a", 3600), False, "QuotaExceeded"),
        (refused("a", 3600), True, "DeadlineExceeded"),
        (running("a"), True, None),
        (pending("a", 9999), False, None),
    ],
)
def test_what_has_no_job_fails_without_one(seen: Observation, late: bool, reason: str | None) -> None:
    failure = policies.unmade(seen, HOUR, NOW, late=late)
    assert (failure.reason if failure else None) == reason


@pytest.mark.parametrize(
    ("spec", "ended", "seconds"),
    [
        ({}, True, None),
        ({"ttlSecondsAfterFinished": 60}, False, None),
        ({"ttlSecondsAfterFinished": 60}, True, 60),
        ({"ttlSecondsAfterFinished": 0}, True, 0),
    ],
)
def test_an_evaljob_expires_so_long_after_its_end(
    spec: dict[str, Any], ended: bool, seconds: float | None
) -> None:
    finished = {"type": "Finished", "status": "True", "reason": "x", "lastTransitionTime": NOW}
    status = Status.model_validate({"completionTime": NOW, "conditions": [finished]} if ended else {})
    of = evaljob(**spec).model_copy(update={"status": status})
    assert policies.expires_at(of) == (None if seconds is None else later(seconds))


@pytest.mark.parametrize("since", [0, 10, 59, 60, 61, 3599])
def test_after_the_next_look_a_rule_answers_differently(since: float) -> None:
    """A timer that rings too early would ring for ever, one that rings too late would let things hang."""
    seen = [pending("a", since)]

    def answers(now: dt.datetime) -> tuple[bool, bool]:
        return bool(policies.stalled_models(seen, now)), policies.never_started(seen[0], HOUR, now)

    seconds = policies.next_look(seen, HOUR, NOW)
    assert seconds is not None
    assert answers(later(seconds)) != answers(NOW)
