"""What Jobs and pods say about a partition."""

import dataclasses
from typing import Any

import pytest

from evaljob import framing
from evaljob.observe import Observation, Phase, observe, pod_failure, read_record
from evaljob.plan import Partition
from evaljob.result import Failure, PartitionResult
from evaljob.views import JobView, PodView
from tests.unit import builders
from tests.unit.builders import NOW, UID, failure_text, later, scored

PLAN = builders.plan()
PARTITION = PLAN.partitions[0]
GOOD = framing.encode(scored(PARTITION))
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


@pytest.mark.parametrize(("pods", "won"), [((), False), ((failed,), False), ((failed, succeeded), True)])
def test_a_job_of_which_a_pod_has_succeeded_is_about_to_complete(
    pods: tuple[PodView, ...], won: bool
) -> None:
    assert seen(builders.job_view(ready=1), *pods).won is won


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
            framing.encode(scored(dataclasses.replace(PARTITION, model="other"))),
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
    found = observe(PLAN, UID, {PLAN.job_name(PARTITION): job}, (), why=lambda *_: None)
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

    def test_a_disrupted_pod_was_no_attempt(self) -> None:
        evicted = dataclasses.replace(failed, uid="pod-9", created=later(60), disrupted=True)
        found = ended("Failed", failed, evicted, failed_pods=1)
        assert isinstance(found.outcome, Failure)
        assert found.outcome.attempt == "pod-1"
        assert ended("Failed", failed, evicted, failed_pods=2).outcome is None

    def test_one_failed_pod_seen_twice_is_one(self) -> None:
        assert ended("Failed", failed, failed, failed_pods=2).outcome is None

    def test_pods_of_an_earlier_job_of_this_name_do_not_count(self) -> None:
        assert ended("Complete", dataclasses.replace(succeeded, job_uid="job-0")).outcome is None


FULL = 'Usage of EmptyDir volume "tmp" exceeds the limit "16Gi".'


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        ({"terminated_reason": "OOMKilled", "message": failure_text("Interrupted"), "memory_limit": "2Gi"},
         "OOMKilled", "memory limit of 2Gi: raise runner.resources.limits.memory"),
        ({"terminated_reason": "OOMKilled"}, "OOMKilled", "memory limit: raise"),
        ({"exit_code": 137}, "RunnerFailed", "exit code 137"),
        ({"reason": "DeadlineExceeded", "message": failure_text("Interrupted")}, "DeadlineExceeded", "deadline"),
        ({"message": failure_text("ModelNotFound")}, "ModelNotFound", "line 3"),
        ({"message": "Traceback"}, "RunnerFailed", "exit code 1"),
        ({"message": GOOD}, "RunnerFailed", "exit code 1"),
        ({"reason": "Evicted", "status_message": FULL, "exit_code": None}, "EphemeralStorage", FULL),
        ({"reason": "Evicted", "status_message": "x", "exit_code": None}, "RunnerFailed", "Evicted: x"),
        ({"terminated_reason": "StartError", "message": "exec: not found", "exit_code": 128},
         "RunnerFailed", "StartError: exec: not found"),
    ],
)  # fmt: skip
def test_why_a_pod_failed(fields: dict[str, Any], reason: str, words: str) -> None:
    found = pod_failure(dataclasses.replace(failed, **fields))
    assert found.reason == reason
    assert words in found.message


def test_a_gpu_that_failed_is_named_by_its_node() -> None:
    sick = dataclasses.replace(failed, node="gpu-7", message=failure_text("GPUError", "Xid 79"))
    assert pod_failure(sick).message == "node gpu-7: Xid 79"
    other = dataclasses.replace(sick, message=failure_text("BadData", "line 3"))
    assert pod_failure(other).message == "line 3"


def test_an_evicted_pod_without_an_exit_code_is_named_by_its_reason() -> None:
    evicted = dataclasses.replace(failed, reason="Evicted", exit_code=None)
    assert pod_failure(evicted).message == "pod pod: Evicted"


def test_shards_have_jobs_of_their_own() -> None:
    plan = builders.plan(builders.evaljob(datasets=[builders.dataset(shards=2)]))
    first, second = plan.partitions
    jobs = {plan.job_name(first): builders.job_view(ready=1)}
    phases = [o.phase for o in observe(plan, UID, jobs, ()).observations]
    assert phases == [Phase.RUNNING, Phase.ABSENT]
    assert second == Partition(model="m", dataset="d", shard=1, shards=2)
