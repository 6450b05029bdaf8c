"""What Jobs and pods say about a partition."""

import dataclasses
from typing import Any

import pytest

from evaljob import result
from evaljob.observe import (
    JobView,
    Observation,
    Phase,
    PodView,
    job_view,
    observe,
    pod_failure,
    pod_view,
    read_record,
)
from evaljob.plan import Partition
from evaljob.result import Failure, PartitionResult
from tests.unit import builders
from tests.unit.builders import NOW, UID, failure_text, later, scored

PLAN = builders.plan()
PARTITION = PLAN.partitions[0]
GOOD = result.encode(scored(PARTITION))
TIME = "2026-03-01T12:00:00Z"


def seen(job: JobView | None, *pods: PodView, listed: bool = False) -> Observation:
    jobs = {PLAN.job_name(PARTITION): job} if job else {}
    found = observe(PLAN, UID, jobs, pods, frozenset({"job-1"} if listed else ()))
    (observation,) = found.observations
    return observation


def ended(how: str, *pods: PodView, listed: bool = False, **more: Any) -> Observation:  # noqa: ANN401 - as job_view
    return seen(builders.job_view(finished=how, finished_at=NOW, **more), *pods, listed=listed)


succeeded = builders.pod_view(phase="Succeeded", exit_code=0, message=GOOD)
failed = builders.pod_view(phase="Failed", exit_code=1)


def test_without_a_job_a_partition_is_absent() -> None:
    assert seen(None).phase is Phase.ABSENT


@pytest.mark.parametrize(
    ("fields", "phase"),
    [
        ({}, Phase.PENDING),
        ({"ready": 1}, Phase.RUNNING),
        ({"deleting": True, "ready": 1}, Phase.PENDING),
        ({"deleting": True, "record": GOOD, "finished": "Complete"}, Phase.PENDING),
        ({"record": GOOD, "finished": "Complete"}, Phase.SUCCEEDED),
        ({"record": failure_text(), "finished": "Failed"}, Phase.FAILED),
        ({"record": failure_text()}, Phase.FAILED),
        ({"finished": "Complete"}, Phase.ENDED),
        ({"owner": "another"}, Phase.FAILED),
        ({"owner": None}, Phase.FAILED),
        ({"owner": "another", "deleting": True}, Phase.PENDING),
    ],
)
def test_phase_of_a_job(fields: dict[str, Any], phase: Phase) -> None:
    assert seen(builders.job_view(**fields)).phase is phase


def test_a_job_of_somebody_else_is_a_collision_and_never_touched() -> None:
    found = seen(builders.job_view(owner="another"))
    assert isinstance(found.outcome, Failure)
    assert (found.outcome.reason, found.job) == ("NameCollision", None)


def test_a_job_that_is_being_deleted_is_run_again_once_it_is_gone() -> None:
    """Its record goes with it."""
    assert not seen(builders.job_view(deleting=True, record=GOOD, finished="Complete")).recorded


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "not a report"),
        (GOOD[:-3], "cut or edited"),
        ("", "not a report"),
        (
            result.encode(scored(PARTITION.model_copy(update={"model": "other"}))),
            "a result of other/d, not of m/d",
        ),
    ],
)
def test_a_damaged_record_is_an_invalid_result(text: str, words: str) -> None:
    found = seen(builders.job_view(finished="Complete", record=text)).outcome
    assert isinstance(found, Failure)
    assert found.reason == "InvalidResult"
    assert words in found.message


def test_records_are_read_by_the_given_reader() -> None:
    job = builders.job_view(finished="Complete", record="any")
    found = observe(PLAN, UID, {PLAN.job_name(PARTITION): job}, (), read=lambda p, _: scored(p))
    assert found.observations[0].phase is Phase.SUCCEEDED


class TestEnds:
    def test_a_valid_result_is_recorded_byte_for_byte(self) -> None:
        found = ended("Complete", dataclasses.replace(succeeded, message=f"{GOOD}\n"))
        assert (found.phase, found.text) == (Phase.ENDED, GOOD)
        assert isinstance(found.outcome, PartitionResult)

    def test_a_result_of_another_attempt_is_invalid(self) -> None:
        found = ended("Complete", dataclasses.replace(succeeded, uid="pod-2"))
        assert isinstance(found.outcome, Failure)
        assert "a result of attempt 'pod-1'" in found.outcome.message

    def test_only_a_succeeded_pod_tells_of_a_complete_job(self) -> None:
        assert ended("Complete", dataclasses.replace(failed, message=GOOD)).outcome is None

    def test_a_failure_of_a_pod_that_says_it_succeeded_stays_a_failure(self) -> None:
        found = ended("Complete", dataclasses.replace(succeeded, message=failure_text()))
        assert read_record(PARTITION, found.text) == Failure(
            reason="BadData", message="line 3", attempt="pod-1"
        )

    def test_the_last_attempt_tells_whatever_order_pods_come_in(self) -> None:
        first = dataclasses.replace(failed, uid="pod-9", terminated_reason="OOMKilled")
        last = dataclasses.replace(failed, created=later(60), exit_code=78, message=failure_text("BadData"))
        for pods in ((first, last), (last, first, first)):
            found = ended("Failed", *pods, failed_pods=2)
            assert isinstance(found.outcome, Failure)
            assert found.outcome.reason == "BadData"

    def test_a_failed_pod_may_be_missing_only_after_a_list(self) -> None:
        """Otherwise an earlier attempt's reason would stand for the last one's."""
        assert ended("Failed", failed, failed_pods=2).outcome is None
        assert ended("Failed", failed, failed_pods=2, listed=True).outcome is not None

    def test_one_failed_pod_seen_twice_is_one(self) -> None:
        assert ended("Failed", failed, failed, failed_pods=2).outcome is None

    def test_pods_of_an_earlier_job_of_this_name_do_not_count(self) -> None:
        assert ended("Complete", dataclasses.replace(succeeded, job_uid="job-0")).outcome is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"terminated_reason": "OOMKilled", "message": failure_text("Interrupted")}, "OOMKilled"),
        ({"exit_code": 137}, "RunnerFailed"),
        ({"reason": "DeadlineExceeded", "message": failure_text("Interrupted")}, "DeadlineExceeded"),
        ({"message": failure_text("ModelNotFound")}, "ModelNotFound"),
        ({"message": "Traceback"}, "RunnerFailed"),
        ({"message": GOOD}, "RunnerFailed"),
        ({"reason": "Evicted", "exit_code": None}, "RunnerFailed"),
    ],
)
def test_why_a_pod_failed(fields: dict[str, Any], reason: str) -> None:
    assert pod_failure(dataclasses.replace(failed, **fields)).reason == reason


def test_an_evicted_pod_without_an_exit_code_is_named_by_its_reason() -> None:
    evicted = dataclasses.replace(failed, reason="Evicted", exit_code=None)
    assert pod_failure(evicted).message == "pod pod: Evicted"


class TestWaiting:
    def test_an_image_that_does_not_come(self) -> None:
        pod = builders.pod_view(waiting_reason="ErrImagePull", waiting_message="not found")
        waiting = seen(builders.job_view(), pod).waiting
        assert waiting is not None
        assert (waiting.reason, waiting.message, waiting.since) == ("ImagePullBackOff", "not found", NOW)

    def test_no_node(self) -> None:
        waiting = seen(builders.job_view(), builders.pod_view(unschedulable="0/3 nodes")).waiting
        assert waiting is not None
        assert (waiting.reason, waiting.message) == ("Unschedulable", "0/3 nodes")

    def test_the_newest_pending_pod_counts(self) -> None:
        old, new = builders.pod_view(uid="a"), builders.pod_view(uid="b", created=later(50))
        waiting = seen(builders.job_view(), new, old).waiting
        assert waiting is not None
        assert waiting.since == later(50)

    def test_a_job_that_never_had_a_pod_waits_since_its_start(self) -> None:
        waiting = seen(builders.job_view(untouched=True)).waiting
        assert waiting is not None
        assert (waiting.reason, waiting.since) == ("PodNotStarted", NOW)

    @pytest.mark.parametrize(
        "fields",
        [
            {"ready": 1},
            {"suspended": True, "untouched": True},
            {"untouched": True, "started_at": None},
            {"untouched": False},
        ],
        ids=["ready", "suspended", "resumed a moment ago", "a lost node, or a pod that has just ended"],
    )
    def test_a_job_that_does_not_wait(self, fields: dict[str, Any]) -> None:
        assert seen(builders.job_view(**fields)).waiting is None

    def test_an_ended_pod_is_no_reason_to_wait(self) -> None:
        assert seen(builders.job_view(untouched=True), succeeded).waiting is None


def job_object(**status: object) -> dict[str, Any]:
    meta = {"name": "j", "uid": "u", "creationTimestamp": TIME}
    return {"metadata": meta, "spec": {}, "status": status}


class TestJobView:
    def test_a_new_job(self) -> None:
        view = job_view({"metadata": {"name": "j", "uid": "u", "creationTimestamp": TIME}, "spec": {}})
        assert (view.owner, view.finished, view.started_at, view.record, view.untouched) == (
            None,
            None,
            None,
            None,
            True,
        )

    def test_only_the_controlling_owner_owns(self) -> None:
        job = job_object()
        job["metadata"]["ownerReferences"] = [{"uid": "a"}, {"uid": "b", "controller": True}]
        assert job_view(job).owner == "b"

    def test_a_condition_that_is_not_true_ends_nothing(self) -> None:
        assert job_view(job_object(conditions=[{"type": "Complete", "status": "False"}])).finished is None

    def test_a_job_on_its_way_to_failure_has_not_failed_yet(self) -> None:
        """FailureTarget comes before its pods have ended."""
        assert job_view(job_object(conditions=[{"type": "FailureTarget", "status": "True"}])).finished is None

    def test_the_start_time_of_before_a_suspension_does_not_count(self) -> None:
        suspended = [{"type": "Suspended", "status": "True"}]
        assert job_view(job_object(startTime=TIME, conditions=suspended)).started_at is None
        resumed = [{"type": "Suspended", "status": "False"}]
        assert job_view(job_object(startTime=TIME, conditions=resumed)).started_at == NOW

    @pytest.mark.parametrize("count", ["active", "ready", "terminating", "succeeded", "failed"])
    def test_a_job_with_a_pod_is_not_untouched(self, count: str) -> None:
        assert not job_view(job_object(**{count: 1})).untouched

    def test_an_ended_pod_that_is_not_counted_yet_was_a_pod(self) -> None:
        assert not job_view(job_object(uncountedTerminatedPods={"succeeded": ["p"]})).untouched
        assert job_view(job_object(uncountedTerminatedPods={})).untouched


class TestPodView:
    def test_a_pod_without_status(self) -> None:
        view = pod_view({"metadata": {"name": "p", "uid": "u", "creationTimestamp": TIME}})
        assert (view.phase, view.exit_code, view.message, view.job_uid) == ("", None, "", "")

    def test_only_the_runner_speaks(self) -> None:
        meta = {"name": "p", "uid": "u", "creationTimestamp": TIME}
        said = {"state": {"terminated": {"exitCode": 0, "message": "x"}}}
        view = pod_view({"metadata": meta, "status": {"containerStatuses": [{"name": "sidecar", **said}]}})
        assert (view.exit_code, view.message) == (None, "")


def test_shards_have_jobs_of_their_own() -> None:
    plan = builders.plan(builders.evaljob(datasets=[builders.dataset(shards=2)]))
    first, second = plan.partitions
    jobs = {plan.job_name(first): builders.job_view(ready=1)}
    phases = [o.phase for o in observe(plan, UID, jobs, ()).observations]
    assert phases == [Phase.RUNNING, Phase.ABSENT]
    assert second == Partition(model="m", dataset="d", shard=1, shards=2)
