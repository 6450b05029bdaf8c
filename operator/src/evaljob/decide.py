"""(EvalJob, Plan, Observed, now) -> Decision: all that the operator does next, as data.

Everything is counted anew each time. Of the status only the sticky `Finished` and the start time are read.
A converged state gives a decision without actions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from evaljob import framing, packing, policies, result, standing
from evaljob.names import ANNOTATION_RETRY, Condition, Reason, State, summary_name
from evaljob.observe import Observation, Observed, Phase
from evaljob.packing import Packed
from evaljob.plan import Partition, Plan
from evaljob.report import Ended, Report
from evaljob.result import Failure, PartitionResult, Seconds
from evaljob.spec import EvalJob
from evaljob.standing import Event
from evaljob.status import FailureStatus, Status

SUCCEEDED = "Succeeded"


@dataclass(frozen=True, slots=True)
class Record:
    """Write the outcome of a partition onto its Job."""

    partition: Partition
    job: str
    uid: str
    text: str
    outcome: str
    """`Succeeded`, or the reason of a failure."""
    seconds: Seconds | None = None
    """Where the attempt's time went, of a result."""
    stop_at: str = ""
    """Also end the Job, if this is still its resourceVersion."""


@dataclass(frozen=True, slots=True)
class Suspension:
    """Set a Job's `spec.suspend`."""

    job: str
    uid: str
    suspend: bool


@dataclass(frozen=True, slots=True)
class Deletion:
    """Delete a Job and its pods."""

    job: str
    uid: str
    version: str = ""
    """Only if this is still its resourceVersion."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do. Order of application: as the fields stand, then summary, status, events."""

    status: Status
    create: tuple[Partition, ...] = ()
    records: tuple[Record, ...] = ()
    suspensions: tuple[Suspension, ...] = ()
    deletions: tuple[Deletion, ...] = ()
    lookups: tuple[str, ...] = ()
    """Names of finished Jobs whose pods must be listed."""
    report: Report | None = None
    events: tuple[Event, ...] = ()
    again_after: float | None = None
    """Seconds until the next decision is due even without an event."""

    @property
    def summary(self) -> Packed | None:
        """The summary for its ConfigMap; None before the first outcome, and when it does not fit.

        Making it takes longer than all the rest: ask only when a write is due.
        """
        try:
            return self.report.packed if self.report else None
        except packing.SummaryTooLargeError:
            return None


def decide(evaljob: EvalJob, plan: Plan, observed: Observed, now: datetime) -> Decision:
    """The next step of an accepted EvalJob."""
    spec, late = evaljob.spec, policies.out_of_time(evaljob, now)
    deadline = timedelta(seconds=plan.run.pending_deadline_seconds)
    seen = tuple(_ended_without_job(o, deadline, now, late=late) for o in observed.observations)
    if policies.retry_asked(evaljob):
        return _retry(evaljob, plan, seen, now)
    if evaljob.status.is_true(Condition.FINISHED):
        # Finished stays finished: nothing is rewritten.
        return Decision(status=evaljob.status)
    overdue = [o for o in seen if policies.overdue(o, now)]
    progress = standing.Progress.of(evaljob, seen)
    report = _report(plan, seen, progress.state)
    problem = _problem(evaljob, report, seen) if progress.done and report else None
    status = standing.status(evaljob, plan, seen, progress, now, problem)
    return Decision(
        status=status,
        create=() if spec.suspend else policies.to_create(seen, spec.parallelism, now),
        records=(
            *_endings(seen),
            *_losses(overdue),
            # A pod that is about to be suspended need not start any more.
            *(() if spec.suspend else _stops(seen, deadline, now, late=late)),
        ),
        suspensions=tuple(
            Suspension(o.job.name, o.job.uid, wanted)
            for o in seen
            if o.job and (wanted := policies.suspension(o, spec.suspend)) is not None
        ),
        deletions=tuple(
            # It may have ended, and we have not been told yet.
            Deletion(o.job.name, o.job.uid, o.job.version)
            for o in seen
            if o.job and policies.withdrawn(o, spec.suspend, late=late)
        ),
        lookups=tuple(o.job.name for o in overdue if o.job and not o.listed),
        report=report,
        events=standing.events(evaljob.status, status),
        again_after=policies.next_look(seen, deadline, now, policies.runs_until(evaljob)),
    )


def refused(evaljob: EvalJob, reason: str, message: str, now: datetime) -> Decision:
    """The end of an EvalJob that can never run."""
    status = standing.refused(evaljob, reason, message, now)
    return Decision(status=status, events=standing.events(evaljob.status, status))


def _retry(evaljob: EvalJob, plan: Plan, seen: Sequence[Observation], now: datetime) -> Decision:
    """Failed partitions lose their Jobs and, as these are the record, their failures; then it goes on.

    The value counts as acted on once none of these Jobs is seen any more: one whose deletion failed, or that is still
    seen after it, would count as a failure again.
    """
    over = evaljob.status.is_true(Condition.FINISHED)
    if over and (why := _no_retry(evaljob.status, seen)):
        asked = evaljob.metadata.annotations[ANNOTATION_RETRY]
        status = evaljob.status.model_copy(update={"retried": asked})
        return Decision(status=status, events=(Event("Warning", Reason.RETRY_REFUSED, why),))
    if doomed := [o.job for o in seen if o.phase is Phase.FAILED and o.job]:
        return Decision(
            status=evaljob.status,
            records=tuple(_endings(seen)),
            deletions=tuple(Deletion(job.name, job.uid) for job in doomed),
            again_after=1.0,
        )
    left = tuple(replace(o, phase=Phase.PENDING) if o.phase is Phase.FAILED else o for o in seen)
    status = standing.status(evaljob, plan, left, standing.Progress.of(evaljob, left), now, None)
    if over:
        # Else an EvalJob that ran out of time would do so again at once.
        status = status.model_copy(update={"start_time": now})
    # Of the Jobs nothing is left to count; those who asked have seen this number.
    failed = evaljob.status.failed
    told = Event("Normal", Reason.RETRIED, f"run again: {standing.size(failed)} that failed")
    return Decision(status=status, events=(told,) if failed else (), again_after=1.0)


def _no_retry(ended: Status, seen: Sequence[Observation]) -> str | None:
    """Why nothing of a finished EvalJob can be run again."""
    if not ended.failed:
        return "no partition has failed"
    if sum(o.phase is Phase.SUCCEEDED for o in seen) < ended.partitions.succeeded:
        return "the Jobs of succeeded partitions, which hold their results, are gone: create another EvalJob"
    return None


def _ended_without_job(o: Observation, deadline: timedelta, now: datetime, *, late: bool) -> Observation:
    outcome = policies.unmade(o, deadline, now, late=late)
    return o if outcome is None else Observation(o.partition, Phase.FAILED, None, outcome)


def _endings(seen: Iterable[Observation]) -> Iterable[Record]:
    for o in seen:
        if o.phase is Phase.ENDED and o.job and o.text:
            outcome = o.outcome.reason if isinstance(o.outcome, Failure) else SUCCEEDED
            seconds = o.outcome.seconds if isinstance(o.outcome, PartitionResult) else None
            yield Record(o.partition, o.job.name, o.job.uid, o.text, outcome, seconds)


def _losses(overdue: Iterable[Observation]) -> Iterable[Record]:
    """A Job ended, and its pods were listed in vain: nobody can tell its numbers any more."""
    for o in overdue:
        if o.job and o.listed:
            failed = o.job.finished == "Failed"
            reason = Reason.RUNNER_FAILED if failed else Reason.RESULTS_LOST
            if o.job.reason == "DeadlineExceeded":
                reason = Reason.DEADLINE_EXCEEDED
            message = (
                o.job.message if failed else "the Job completed, but its pod was gone before it was read"
            )
            text = framing.encode(result.failure(reason, message))
            yield Record(o.partition, o.job.name, o.job.uid, text, reason)


def _stops(
    seen: Iterable[Observation], deadline: timedelta, now: datetime, *, late: bool
) -> Iterable[Record]:
    for o in seen:
        why = None
        if late and policies.cut_short(o):
            why = policies.OUT_OF_TIME
        elif o.waiting and policies.never_started(o, deadline, now):
            message = f"not started within {deadline.total_seconds():.0f} s: {o.waiting.message}"
            why = result.failure(o.waiting.reason, message)
        if o.job and why:
            # Its pod may have started, or ended, and we have not been told yet.
            text = framing.encode(why)
            yield Record(o.partition, o.job.name, o.job.uid, text, why.reason, stop_at=o.job.version)


def _report(plan: Plan, seen: Iterable[Observation], state: State) -> Report | None:
    outcomes = Ended(seen)
    return Report(plan, outcomes, state) if outcomes else None


def _problem(evaljob: EvalJob, report: Report, seen: Iterable[Observation]) -> FailureStatus | None:
    """Why the summary of an EvalJob whose partitions have all ended is not whole, beside failed partitions."""
    try:
        report.packed  # noqa: B018 - whether it fits
    except packing.SummaryTooLargeError as error:
        name = summary_name(report.plan.run.name)
        return FailureStatus(partition=name, reason=Reason.SUMMARY_TOO_LARGE, message=str(error))
    if cell := report.disagreement:
        name = f"{cell.model}/{cell.dataset}"
        return FailureStatus(partition=name, reason=Reason.SHARDS_DISAGREE, message=cell.message or "")
    if late := sum(o.outcome == policies.OUT_OF_TIME for o in seen):
        words = f"{evaljob.spec.active_deadline_seconds} s were over, {standing.size(late)} unfinished"
        return FailureStatus(
            partition="activeDeadlineSeconds", reason=Reason.DEADLINE_EXCEEDED, message=words
        )
    return None
