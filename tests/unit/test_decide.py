"""What the operator does next."""

import dataclasses
import datetime as dt
import json
from typing import Any

import pytest

from evaljob import framing, policies
from evaljob.decide import Decision, decide, refused
from evaljob.names import Reason
from evaljob.observe import Observation, Observed, Phase, observe
from evaljob.plan import Plan
from evaljob.result import Failure, SubsetResult
from evaljob.spec import EvalJob
from evaljob.standing import count
from evaljob.stats import Stat
from evaljob.status import Status
from evaljob.views import JobView, PodView
from evaljob.waiting import Waiting
from tests.unit import builders
from tests.unit.builders import NOW, UID, dataset, failure_text, job_view, later, model, pod_view, scored

EVALJOB = builders.evaljob([model("a"), model("b")], pendingDeadlineSeconds=600)
PLAN = builders.plan(EVALJOB)
FIRST, SECOND = PLAN.partitions
DONE = job_view(finished="Complete", finished_at=NOW, record=framing.encode(scored(FIRST)))
DONE_TOO = job_view(finished="Complete", finished_at=NOW, record=framing.encode(scored(SECOND)))


def see(*jobs: Any, pods: tuple[PodView, ...] = (), listed: bool = False, plan: Plan = PLAN) -> Observed:  # noqa: ANN401
    """Jobs (or None) in the order of the plan's partitions."""
    named = {plan.job_name(p): j for p, j in zip(plan.partitions, jobs, strict=False) if j is not None}
    return observe(plan, UID, named, pods, frozenset({"job-1"} if listed else ()))


def next_step(
    observed: Observed, now: dt.datetime = NOW, of: EvalJob = EVALJOB, plan: Plan = PLAN
) -> Decision:
    return decide(of, plan, observed, now)


def with_status(status: Status, of: EvalJob = EVALJOB) -> EvalJob:
    return of.model_copy(update={"status": status})


def changed(of: EvalJob = EVALJOB, **spec: object) -> EvalJob:
    return of.model_copy(update={"spec": of.spec.model_copy(update=spec)})


def test_at_first_all_that_fits_is_created() -> None:
    decision = next_step(see())
    assert decision.create == (FIRST, SECOND)
    assert (decision.status.state, decision.status.progress, decision.summary) == ("Pending", "0/2", None)
    assert decision.status.condition("Accepted") is not None


def test_a_suspended_evaljob_creates_nothing_and_suspends_what_runs() -> None:
    decision = next_step(see(job_view("j", ready=1)), of=changed(suspend=True))
    assert decision.create == ()
    assert [(s.job, s.uid, s.suspend) for s in decision.suspensions] == [("j", "job-1", True)]
    assert decision.status.state == "Suspended"
    assert decision.status.is_true("Suspended")


def test_resumed_jobs_run_again() -> None:
    decision = next_step(see(job_view("j", suspended=True)))
    assert [s.suspend for s in decision.suspensions] == [False]


def test_a_pod_beyond_its_pending_deadline_stops_its_job_with_the_reason_on_record() -> None:
    pod = pod_view(waiting_reason="ErrImagePull", waiting_message="no such image")
    decision = next_step(see(job_view("j"), pods=(pod,)), later(600))
    (record,) = decision.records
    assert (record.job, record.uid, record.stop_at) == ("j", "job-1", "7")
    failure = framing.decode(record.text)
    assert failure == Failure(reason="ImagePullBackOff", message="not started within 600 s: no such image")


def test_a_pod_that_is_about_to_be_suspended_is_not_stopped() -> None:
    """A stopped Job ends by a deadline, and none runs while it is suspended: it would never end."""
    decision = next_step(see(job_view("j"), pods=(pod_view(),)), later(600), of=changed(suspend=True))
    assert decision.records == ()
    assert len(decision.suspensions) == 1


def test_a_waiting_pod_shows_in_status_before_it_fails() -> None:
    decision = next_step(see(job_view("j"), pods=(pod_view(unschedulable="0/3 nodes"),)), later(30))
    (shown,) = decision.status.failures
    assert (shown.partition, shown.reason, shown.message) == ("a/d", "Unschedulable", "waiting: 0/3 nodes")
    assert decision.status.failed == 0


def test_an_ended_job_is_recorded_once_its_pod_is_seen() -> None:
    pod = pod_view(phase="Succeeded", exit_code=0, message=framing.encode(scored(FIRST)))
    decision = next_step(see(job_view("j", finished="Complete", finished_at=NOW), pods=(pod,)))
    assert [(r.job, r.text, r.stop_at) for r in decision.records] == [("j", pod.message, "")]
    assert decision.status.partitions.running == 1


class TestLost:
    ENDED = job_view("j", finished="Complete", finished_at=NOW)

    def test_the_pod_of_an_ended_job_may_take_a_moment_to_show(self) -> None:
        decision = next_step(see(self.ENDED), later(4))
        assert (decision.lookups, decision.records, decision.again_after) == ((), (), 2)

    def test_then_it_is_looked_up(self) -> None:
        decision = next_step(see(self.ENDED), later(6))
        assert (decision.lookups, decision.records) == (("j",), ())

    @pytest.mark.parametrize(
        ("fields", "reason", "words"),
        [
            ({}, "ResultsLost", "its pod was gone before it was read"),
            ({"finished": "Failed", "message": "backoff limit"}, "RunnerFailed", "backoff limit"),
            ({"finished": "Failed", "reason": "DeadlineExceeded"}, "DeadlineExceeded", ""),
        ],
    )
    def test_looked_up_in_vain_the_partition_has_failed(
        self, fields: dict[str, Any], reason: str, words: str
    ) -> None:
        decision = next_step(see(dataclasses.replace(self.ENDED, **fields), listed=True), later(6))
        (record,) = decision.records
        failure = framing.decode(record.text)
        assert isinstance(failure, Failure)
        assert failure.reason == reason
        assert words in failure.message
        assert decision.lookups == ()


class TestEnd:
    def test_all_succeeded(self) -> None:
        decision = next_step(see(DONE, DONE_TOO))
        status = decision.status
        assert (status.state, status.progress, status.summary) == ("Complete", "2/2", "nightly-summary")
        assert status.is_true("Finished")
        assert status.is_true("Complete")
        assert status.completion_time == NOW
        assert decision.summary is not None

    def test_one_failed(self) -> None:
        failed = job_view(finished="Failed", record=failure_text("BadData"))
        decision = next_step(see(failed, DONE_TOO))
        status = decision.status
        assert (status.state, status.failed, status.progress) == ("Failed", 1, "2/2")
        assert status.is_true("Failed")
        assert [(f.partition, f.reason) for f in status.failures] == [("a/d", "BadData")]
        finished = status.condition("Finished")
        assert finished is not None
        assert finished.message == "1 of 2 partitions succeeded, 1 failed"

    def test_not_before_a_stopped_job_is_over(self) -> None:
        stopped = job_view(record=failure_text("Unschedulable"))
        assert not next_step(see(stopped, DONE_TOO)).status.is_true("Finished")

    def test_a_stopped_job_that_is_suspended_is_over(self) -> None:
        """Kueue has preempted it; its deadline stands still until it is admitted again."""
        stopped = job_view(record=failure_text("Unschedulable"), queue="gpu", suspended=True, started_at=None)
        decision = next_step(see(stopped, DONE_TOO))
        assert decision.status.is_true("Finished")
        assert (decision.suspensions, decision.deletions) == ((), ())

    def test_shards_that_disagree_fail_the_evaljob(self) -> None:
        """Each partition succeeded, and yet there is no number: that must not look green."""
        evaljob = builders.evaljob(datasets=[dataset(shards=2)])
        plan = builders.plan(evaljob)
        records = (scored(p, inference_digest=str(p.shard)) for p in plan.partitions)
        jobs = [job_view(finished="Complete", record=framing.encode(r)) for r in records]
        decision = next_step(see(*jobs, plan=plan), of=evaljob, plan=plan)
        assert (decision.status.state, decision.status.failed) == ("Failed", 0)
        assert [(f.partition, f.reason) for f in decision.status.failures] == [("m/d", "ShardsDisagree")]
        condition = decision.status.condition("Failed")
        assert condition is not None
        assert condition.reason == "ShardsDisagree"
        assert decision.summary is not None
        assert json.loads(decision.summary.data["summary.json"])["state"] == "Failed"

    def test_a_summary_that_does_not_fit_says_so_and_keeps_the_jobs(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("evaljob.packing.BYTES_MAX", 100)
        decision = next_step(see(DONE, DONE_TOO))
        status = decision.status
        assert (status.state, status.summary, decision.summary) == ("Failed", None, None)
        condition = status.condition("Finished")
        assert condition is not None
        assert condition.reason == "SummaryTooLarge"
        assert "split the EvalJob" in condition.message
        assert policies.jobs_expire_at(with_status(status), 60) is None

    def test_at_most_ten_failures_are_shown(self) -> None:
        evaljob = builders.evaljob(datasets=[dataset(shards=12)])
        plan = builders.plan(evaljob)
        jobs = [job_view(finished="Failed", record=failure_text())] * 12
        status = next_step(see(*jobs, plan=plan), of=evaljob, plan=plan).status
        assert (len(status.failures), status.failed) == (10, 12)


class TestAfterTheEnd:
    ENDED = with_status(next_step(see(DONE, DONE_TOO)).status)

    def test_nothing_is_left_to_do(self) -> None:
        for jobs in ((DONE, DONE_TOO), ()):
            assert next_step(see(*jobs), later(60), of=self.ENDED) == Decision(status=self.ENDED.status)

    def test_the_jobs_go_when_their_time_is_up(self) -> None:
        assert policies.jobs_expire_at(self.ENDED, 60) == later(60)

    def test_a_job_deleted_after_the_end_is_not_run_again(self) -> None:
        assert next_step(see(DONE), later(60), of=self.ENDED).create == ()


class TestDeadline:
    """`activeDeadlineSeconds`: what is unfinished is stopped, what has finished stays."""

    RUNNING = job_view("j", ready=1)
    OF = with_status(next_step(see(DONE, RUNNING)).status, changed(active_deadline_seconds=60))

    def test_the_time_runs_from_the_first_pod(self) -> None:
        assert self.OF.status.start_time == NOW
        decision = next_step(see(DONE, self.RUNNING), later(10), of=self.OF)
        assert (decision.records, decision.again_after) == ((), 51)

    def test_then_what_runs_is_stopped_and_what_has_no_job_gets_none(self) -> None:
        decision = next_step(see(self.RUNNING), later(60), of=self.OF)
        (record,) = decision.records
        assert (record.job, record.stop_at, record.outcome) == ("j", "7", "DeadlineExceeded")
        assert decision.create == ()
        assert (decision.status.partitions.failed, decision.status.is_true("Finished")) == (1, False)

    def test_the_end_keeps_what_has_finished_and_names_the_deadline(self) -> None:
        decision = next_step(see(DONE), later(70), of=self.OF)
        status, finished = decision.status, decision.status.condition("Finished")
        assert (status.state, status.progress, status.failed) == ("Failed", "2/2", 1)
        assert finished is not None
        words = "activeDeadlineSeconds: 60 s were over, 1 partition unfinished"
        assert (finished.reason, finished.message) == ("DeadlineExceeded", words)
        assert decision.report is not None
        first, second = json.loads(str(decision.report.files["summary.json"]))["cells"]
        assert (first["state"], second["state"], second["reason"]) == (
            "Complete",
            "Missing",
            "DeadlineExceeded",
        )

    def test_a_result_that_came_in_time_is_recorded_after_it(self) -> None:
        pod = pod_view(phase="Succeeded", exit_code=0, message=framing.encode(scored(FIRST)))
        ended = job_view("j", finished="Complete", finished_at=NOW)
        (record,) = next_step(see(ended, DONE_TOO, pods=(pod,)), later(99), of=self.OF).records
        assert record.text == pod.message

    def test_what_kueue_holds_back_is_deleted(self) -> None:
        queued = job_view("q", queue="gpu", suspended=True)
        decision = next_step(see(DONE, queued), later(60), of=self.OF)
        assert [d.job for d in decision.deletions] == ["q"]
        assert decision.records == ()

    @pytest.mark.parametrize("spec", [{"suspend": True}, {"active_deadline_seconds": 60}])
    def test_what_leaves_its_queue_must_be_as_it_was_seen(self, spec: dict[str, Any]) -> None:
        """It may have completed, and we have not been told."""
        queued = job_view("q", queue="gpu", suspended=True, version="41")
        decision = next_step(see(DONE, queued), later(60), of=changed(self.OF, **spec))
        assert [(d.uid, d.version) for d in decision.deletions] == [("job-1", "41")]

    def test_a_suspension_stops_the_clock_and_a_resumption_sets_it_back(self) -> None:
        suspended = with_status(
            next_step(see(self.RUNNING), later(50), changed(self.OF, suspend=True)).status
        )
        held = next_step(
            see(self.RUNNING), later(99), changed(suspended, suspend=True, active_deadline_seconds=60)
        )
        assert held.records == ()
        resumed = next_step(see(self.RUNNING), later(100), changed(suspended, active_deadline_seconds=60))
        assert (resumed.records, resumed.status.start_time) == ((), later(100))

    def test_a_retry_has_all_the_time_again(self) -> None:
        ended = with_status(next_step(see(DONE), later(70), of=self.OF).status, self.OF)
        reopened = next_step(see(DONE), later(90), of=TestRetry.asked(ended))
        assert [e.message for e in reopened.events] == ["run again: 1 partition that failed"]
        assert reopened.status.start_time == later(90)
        again = next_step(see(DONE), later(91), of=TestRetry.asked(with_status(reopened.status, self.OF)))
        assert again.create == (SECOND,)


def test_a_job_that_cannot_be_made_fails_its_partition_at_the_pending_deadline() -> None:
    """There is no Job to put it on; the next process asks for the Job once more."""
    waiting = Waiting(Reason.QUOTA_EXCEEDED, "exceeded quota: few", NOW, tried_at=later(590))
    refused_ = Observed((see(DONE).observations[0], Observation(SECOND, Phase.ABSENT, waiting=waiting)))
    before = next_step(refused_, later(599))
    assert (before.status.failed, before.again_after) == (0, 2)
    decision = next_step(refused_, later(610))
    assert decision.create == ()
    (failure,) = decision.status.failures
    assert (failure.partition, failure.reason) == ("b/d", "QuotaExceeded")
    assert failure.message == "no Job could be made within 600 s: exceeded quota: few"
    assert decision.status.is_true("Finished")


class TestRetry:
    """`kubectl annotate evaljob/nightly evaljob.dev/retry-failed=VALUE`: as Flux does with requestedAt."""

    FAILED = job_view("bad", finished="Failed", record=failure_text())
    ENDED = with_status(next_step(see(FAILED, DONE_TOO)).status)

    @staticmethod
    def asked(of: EvalJob, value: str = "1") -> EvalJob:
        annotations = {"evaljob.dev/retry-failed": value}
        return of.model_copy(update={"metadata": of.metadata.model_copy(update={"annotations": annotations})})

    def test_only_failed_jobs_are_deleted_and_nothing_is_said_before_they_are_gone(self) -> None:
        """A deletion may fail, and a watch may be late: what is still seen would count as a failure again."""
        of = self.asked(self.ENDED)
        for now in (9, 10, 60):
            decision = next_step(see(self.FAILED, DONE_TOO), later(now), of=of)
            assert [(d.job, d.uid, d.version) for d in decision.deletions] == [("bad", "job-1", "")]
            assert (decision.status, decision.events, decision.create) == (self.ENDED.status, (), ())
            assert decision.again_after == 1

    @pytest.mark.parametrize(
        "going", [None, dataclasses.replace(FAILED, deleting=True)], ids=["gone", "going"]
    )
    def test_then_a_finished_evaljob_is_reopened(self, going: JobView | None) -> None:
        decision = next_step(see(going, DONE_TOO), later(10), of=self.asked(self.ENDED))
        status = decision.status
        assert (status.state, status.progress, status.failed) == ("Running", "1/2", 0)
        assert (status.retried, status.completion_time, status.failures) == ("1", None, ())
        assert {c.type for c in status.conditions} == {"Accepted", "Suspended", "Resumable"}
        told = [(e.type, e.reason, e.message) for e in decision.events]
        assert told == [("Normal", "Retried", "run again: 1 partition that failed")]
        assert decision.deletions == ()

    def test_then_the_partition_is_run_again(self) -> None:
        reopened = next_step(see(None, DONE_TOO), later(9), of=self.asked(self.ENDED)).status
        decision = next_step(see(None, DONE_TOO), later(10), of=self.asked(with_status(reopened)))
        assert (decision.create, decision.deletions) == ((FIRST,), ())

    def test_each_value_is_acted_on_once(self) -> None:
        reopened = next_step(see(None, DONE_TOO), later(9), of=self.asked(self.ENDED)).status
        anew = dataclasses.replace(self.FAILED, uid="job-2")
        ended_again = next_step(see(anew, DONE_TOO), later(20), of=self.asked(with_status(reopened))).status
        assert ended_again.is_true("Finished")
        again = next_step(see(anew, DONE_TOO), later(30), of=self.asked(with_status(ended_again)))
        assert (again.deletions, again.events) == ((), ())
        second = next_step(see(anew, DONE_TOO), later(30), of=self.asked(with_status(ended_again), "2"))
        assert [d.uid for d in second.deletions] == ["job-2"]

    def test_in_mid_run_what_has_failed_is_run_again_at_once(self) -> None:
        of = self.asked(with_status(next_step(see(self.FAILED, job_view(ready=1))).status))
        decision = next_step(see(self.FAILED, job_view(ready=1)), of=of)
        assert [d.job for d in decision.deletions] == ["bad"]
        decision = next_step(see(None, job_view(ready=1)), later(1), of=of)
        assert [e.message for e in decision.events] == ["run again: 1 partition that failed"]
        assert decision.status.retried == "1"

    def test_what_ends_while_failed_jobs_are_deleted_is_put_on_record(self) -> None:
        pod = pod_view(
            phase="Succeeded", exit_code=0, message=framing.encode(scored(SECOND)), job_uid="job-2"
        )
        ended = job_view("good", uid="job-2", finished="Complete", finished_at=NOW)
        decision = next_step(see(self.FAILED, ended, pods=(pod,)), of=self.asked(EVALJOB))
        assert [r.job for r in decision.records] == ["good"]

    def test_an_annotation_of_the_first_hour_means_nothing(self) -> None:
        decision = next_step(see(), of=self.asked(EVALJOB))
        assert (decision.deletions, decision.events, decision.status.retried) == ((), (), "1")

    @pytest.mark.parametrize(
        ("ended", "seen", "words"),
        [
            (ENDED, see(FAILED), "the Jobs of succeeded partitions"),
            (
                with_status(next_step(see(DONE, DONE_TOO)).status),
                see(DONE, DONE_TOO),
                "no partition has failed",
            ),
        ],
        ids=["its results are gone", "nothing to do"],
    )
    def test_refused_it_stays_finished_and_says_why(self, ended: EvalJob, seen: Observed, words: str) -> None:
        decision = next_step(seen, later(9), of=self.asked(ended))
        assert decision.status == ended.status.model_copy(update={"retried": "1"})
        (event,) = decision.events
        assert (event.type, event.reason) == ("Warning", "RetryRefused")
        assert words in event.message
        assert decision.deletions == ()


class TestEvents:
    def test_acceptance_is_told_once(self) -> None:
        first = next_step(see())
        assert [(e.type, e.reason) for e in first.events] == [("Normal", "Accepted")]
        assert next_step(see(), later(9), of=with_status(first.status)).events == ()

    def test_suspension_and_resumption_are_told(self) -> None:
        running = with_status(next_step(see()).status)
        suspended = next_step(see(), of=changed(running, suspend=True))
        assert [e.reason for e in suspended.events] == ["Suspended"]
        resumed = next_step(see(), of=with_status(suspended.status))
        assert [e.reason for e in resumed.events] == ["Resumed"]

    def test_never_suspended_it_is_not_resumed(self) -> None:
        first = with_status(next_step(see()).status)
        for of in (EVALJOB, first):
            condition = next_step(see(), of=of).status.condition("Suspended")
            assert condition is not None
            assert (condition.status, condition.reason) == ("False", "NotSuspended")

    def test_resumed_it_stays_resumed(self) -> None:
        suspended = with_status(next_step(see(), of=changed(suspend=True)).status)
        resumed = with_status(next_step(see(), of=changed(suspended, suspend=False)).status)
        condition = next_step(see(), of=resumed).status.condition("Suspended")
        assert condition is not None
        assert condition.reason == "Resumed"

    def test_a_good_end_is_told_once(self) -> None:
        events = next_step(see(DONE, DONE_TOO), of=with_status(next_step(see()).status)).events
        assert [(e.type, e.reason) for e in events] == [("Normal", "AllPartitionsSucceeded")]

    def test_a_failed_end_is_a_warning(self) -> None:
        failed = job_view(finished="Failed", record=failure_text())
        events = next_step(see(failed, DONE_TOO)).events
        assert [(e.type, e.reason, e.message) for e in events if e.reason != "Accepted"] == [
            ("Warning", "PartitionsFailed", "1 of 2 partitions succeeded, 1 failed")
        ]


class TestRefused:
    DECISION = refused(EVALJOB, "InvalidSpec", "spec.models: too few", NOW)

    def test_it_is_failed_and_finished(self) -> None:
        status = self.DECISION.status
        assert status.state == "Failed"
        assert status.is_true("Finished")
        assert status.is_true("Failed")
        accepted = status.condition("Accepted")
        assert accepted is not None
        assert (accepted.status, accepted.reason, accepted.message) == (
            "False",
            "InvalidSpec",
            "spec.models: too few",
        )

    def test_whatever_is_said_fits_a_status(self) -> None:
        """A message of megabytes stood in three conditions: the API server took no status at all."""
        status = refused(EVALJOB, "InvalidSpec", "x" * 2**20, NOW).status
        assert [(len(c.message), c.message[-1]) for c in status.conditions] == [(4096, "…")] * 3

    def test_it_warns_once(self) -> None:
        (event,) = self.DECISION.events
        assert (event.type, event.reason, event.message) == ("Warning", "InvalidSpec", "spec.models: too few")
        again = refused(with_status(self.DECISION.status), "InvalidSpec", "spec.models: too few", later(9))
        assert again == Decision(status=self.DECISION.status)


def test_transition_times_stay_while_the_status_stays() -> None:
    before = next_step(see()).status
    assert before.start_time is None
    after = next_step(see(job_view(ready=1)), later(50), of=with_status(before)).status
    assert [c.last_transition_time for c in after.conditions] == [NOW] * len(before.conditions)
    assert after.start_time == later(50)


def test_between_two_pods_an_evaljob_is_still_running() -> None:
    running = with_status(next_step(see(job_view(ready=1)), later(50)).status)
    assert running.status.state == "Running"
    again = next_step(see(job_view(failed_pods=1, podless=True)), later(60), of=running).status
    assert (again.state, again.start_time, again.partitions.running) == ("Running", later(50), 0)


def test_a_model_whose_jobs_are_refused_is_told_of_once() -> None:
    evaljob = builders.evaljob(datasets=[dataset(shards=12)])
    plan = builders.plan(evaljob)
    waiting = Waiting(Reason.QUOTA_EXCEEDED, "exceeded quota", NOW)
    seen = Observed(tuple(Observation(p, Phase.ABSENT, waiting=waiting) for p in plan.partitions))
    (shown,) = next_step(seen, of=evaljob, plan=plan).status.failures
    assert (shown.partition, shown.reason, shown.message) == (
        "m/d 0/12",
        "QuotaExceeded",
        "waiting: exceeded quota",
    )


@pytest.mark.parametrize(("spec", "status"), [({}, "False"), ({"output": {"claimName": "logs"}}, "True")])
def test_resumable_says_whether_sample_logs_are_kept(spec: dict[str, Any], status: str) -> None:
    evaljob = builders.evaljob(**spec)
    condition = next_step(see(), of=evaljob, plan=builders.plan(evaljob)).status.condition("Resumable")
    assert condition is not None
    assert condition.status == status


def test_each_phase_is_counted_once() -> None:
    seen = [Observation(FIRST, phase) for phase in Phase]
    counts = count(seen)
    assert (counts.total, counts.pending, counts.running, counts.succeeded, counts.failed) == (6, 2, 2, 1, 1)


def test_a_summary_of_a_running_evaljob_covers_what_has_ended() -> None:
    evaljob = builders.evaljob(datasets=[dataset(shards=2)])
    plan = builders.plan(evaljob)
    done = job_view(finished="Complete", record=framing.encode(scored(plan.partitions[0])))
    decision = next_step(see(done, job_view(ready=1), plan=plan), of=evaljob, plan=plan)
    assert decision.status.summary == "nightly-summary"
    assert decision.summary is not None
    assert "partial 1/2" in decision.summary.data["summary.md"]


def test_a_result_whose_numbers_are_real_counts_in_units() -> None:
    stat = Stat(2, 10**12, 10**24)
    metric = builders.BINARY.model_copy(update={"binary": False})
    report = scored(FIRST, SubsetResult(name="", size=2, expected=2, stats=(stat,)), metrics=(metric,))
    done = dataclasses.replace(DONE, record=framing.encode(report))
    found = next_step(see(done, DONE_TOO)).report
    assert found is not None
    assert json.loads(str(found.files["summary.json"]))["cells"][0]["parts"][0]["scores"][0]["value"] == 0.5
