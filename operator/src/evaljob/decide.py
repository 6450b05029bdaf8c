"""(EvalJob, Plan, Observed, now) -> Decision: all that the operator does next, as data.

Everything is counted anew each time. Of the status only the sticky `Finished` and the start time are read.
A converged state gives a decision without actions.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from evaljob import policies, result, summary
from evaljob.names import Condition, Reason, State, summary_name
from evaljob.observe import Observation, Observed, Outcome, Phase
from evaljob.plan import Partition, Plan
from evaljob.result import Failure
from evaljob.spec import ConditionStatus, EvalJob, FailureStatus, PartitionCounts, Status

FAILURES_SHOWN = 10
_TrueFalse = Literal["True", "False"]
_Verdict = tuple[_TrueFalse, str]


@dataclass(frozen=True, slots=True)
class Record:
    """Write the outcome of a partition onto its Job; with `stop` also end the Job."""

    job: str
    uid: str
    text: str
    stop: bool = False


@dataclass(frozen=True, slots=True)
class Suspension:
    """Set a Job's `spec.suspend`."""

    job: str
    uid: str
    suspend: bool


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event about the EvalJob."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a summary is made of."""

    plan: Plan
    outcomes: Mapping[Partition, Outcome]
    state: State

    def summarize(self) -> summary.Summary:
        """The summary as it stands; takes half a second for 1,000 cells."""
        return summary.summarize(self.plan, self.outcomes, state=self.state)


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do. Order of application: create, records, suspensions, lookups, summary, status, events."""

    status: Status
    create: tuple[Partition, ...] = ()
    records: tuple[Record, ...] = ()
    suspensions: tuple[Suspension, ...] = ()
    lookups: tuple[str, ...] = ()
    """Names of finished Jobs whose pods must be listed."""
    clean_up: bool = False
    """Delete all Jobs of the EvalJob."""
    report: Report | None = None
    events: tuple[Event, ...] = ()
    again_after: float | None = None
    """Seconds until the next decision is due even without an event."""

    @property
    def summary(self) -> dict[str, str] | None:
        """Files of the summary ConfigMap; None before the first outcome, and when they do not fit.

        Made on each access, because that takes longer than all the rest: ask only when a write is due.
        """
        try:
            return summary.files(self.report.summarize()) if self.report else None
        except summary.SummaryTooLargeError:
            return None


def decide(evaljob: EvalJob, plan: Plan, observed: Observed, now: datetime) -> Decision:
    """The next step of an accepted EvalJob."""
    if evaljob.status.is_true(Condition.FINISHED):
        return _after_the_end(evaljob, plan, observed, now)
    spec, seen = evaljob.spec, observed.observations
    deadline = timedelta(seconds=plan.run.pending_deadline_seconds)
    overdue = [o for o in seen if policies.overdue(o, now)]
    counts = count(seen)
    done = counts.succeeded + counts.failed == counts.total and not any(o.unfinished for o in seen)
    report = _report(plan, seen, _state(evaljob, counts, done=done))
    problem = _problem(report) if done and report else None
    status = _status(evaljob, plan, seen, counts, now, done=done, problem=problem)
    return Decision(
        status=status,
        create=() if spec.suspend else policies.to_create(seen, spec.parallelism, now),
        # A pod that is about to be suspended need not start any more.
        records=(*_endings(seen), *_losses(overdue), *(() if spec.suspend else _stops(seen, deadline, now))),
        suspensions=tuple(
            Suspension(o.job.name, o.job.uid, wanted)
            for o in seen
            if o.job and (wanted := policies.suspension(o, spec.suspend)) is not None
        ),
        lookups=tuple(o.job.name for o in overdue if o.job and not o.listed),
        report=report,
        events=_events(evaljob.status, status),
        again_after=policies.next_look(seen, deadline, now),
    )


def refused(evaljob: EvalJob, reason: str, message: str, now: datetime) -> Decision:
    """The end of an EvalJob that can never run."""
    previous = evaljob.status
    conditions = (
        _condition(evaljob, Condition.ACCEPTED, "False", reason, message, now),
        _condition(evaljob, Condition.FINISHED, "True", reason, message, now),
        _condition(evaljob, Condition.FAILED, "True", reason, message, now),
    )
    status = Status(
        observed_generation=evaljob.metadata.generation,
        state=State.FAILED,
        conditions=conditions,
        completion_time=previous.completion_time or now,
    )
    return Decision(status=status, events=_events(previous, status))


def count(observations: Iterable[Observation]) -> PartitionCounts:
    """How many partitions are where; the four always add up to the total."""
    phases = Counter(o.phase for o in observations)
    return PartitionCounts(
        total=sum(phases.values()),
        pending=phases[Phase.ABSENT] + phases[Phase.PENDING],
        running=phases[Phase.RUNNING] + phases[Phase.ENDED],
        succeeded=phases[Phase.SUCCEEDED],
        failed=phases[Phase.FAILED],
    )


def _after_the_end(evaljob: EvalJob, plan: Plan, observed: Observed, now: datetime) -> Decision:
    """Finished stays finished: nothing is rewritten; the Jobs go when their time is up."""
    ended = evaljob.status.completion_time or now
    left = (ended + timedelta(seconds=plan.run.job_ttl_seconds) - now).total_seconds()
    jobs = any(o.job for o in observed.observations)
    # Without a summary the Jobs are the only record there is.
    keep = evaljob.status.summary is None
    return Decision(
        status=evaljob.status,
        clean_up=jobs and left <= 0 and not keep,
        again_after=left if jobs and left > 0 and not keep else None,
    )


def _endings(seen: Iterable[Observation]) -> Iterable[Record]:
    return (
        Record(o.job.name, o.job.uid, o.text) for o in seen if o.phase is Phase.ENDED and o.job and o.text
    )


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
            yield Record(o.job.name, o.job.uid, result.encode(result.failure(reason, message)))


def _stops(seen: Iterable[Observation], deadline: timedelta, now: datetime) -> Iterable[Record]:
    for o in seen:
        if o.job and o.waiting and policies.never_started(o, deadline, now):
            message = f"not started within {deadline.total_seconds():.0f} s: {o.waiting.message}"
            text = result.encode(result.failure(o.waiting.reason, message))
            yield Record(o.job.name, o.job.uid, text, stop=True)


def _report(plan: Plan, seen: Iterable[Observation], state: State) -> Report | None:
    outcomes = {o.partition: o.outcome for o in seen if o.recorded and o.outcome}
    return Report(plan, outcomes, state) if outcomes else None


def _problem(report: Report) -> FailureStatus | None:
    """Why the summary of an EvalJob whose partitions have all ended is not whole, beside failed partitions."""
    found = report.summarize()
    try:
        summary.files(found)
    except summary.SummaryTooLargeError as error:
        name = summary_name(report.plan.run.name)
        return FailureStatus(partition=name, reason=Reason.SUMMARY_TOO_LARGE, message=str(error))
    for cell in found.cells:
        if cell.reason == Reason.SHARDS_DISAGREE:
            name = f"{cell.model}/{cell.dataset}"
            return FailureStatus(partition=name, reason=cell.reason, message=cell.message or "")
    return None


def _state(evaljob: EvalJob, counts: PartitionCounts, *, done: bool) -> State:
    if done:
        return State.FAILED if counts.failed else State.COMPLETE
    if evaljob.spec.suspend:
        return State.SUSPENDED
    return State.PENDING if counts.pending == counts.total else State.RUNNING


def _status(
    evaljob: EvalJob,
    plan: Plan,
    seen: tuple[Observation, ...],
    counts: PartitionCounts,
    now: datetime,
    *,
    done: bool,
    problem: FailureStatus | None,
) -> Status:
    previous = evaljob.status
    started = any(o.job for o in seen)
    fits = problem is None or problem.reason != Reason.SUMMARY_TOO_LARGE
    has_summary = fits and any(o.recorded and o.outcome for o in seen)
    return Status(
        observed_generation=evaljob.metadata.generation,
        state=State.FAILED if problem else _state(evaljob, counts, done=done),
        progress=f"{counts.succeeded + counts.failed}/{counts.total}",
        failed=counts.failed,
        conditions=_conditions(evaljob, plan, counts, now, done=done, problem=problem),
        partitions=counts,
        failures=(*((problem,) if problem else ()), *_failures(seen))[:FAILURES_SHOWN],
        summary=summary_name(evaljob.metadata.name) if has_summary else None,
        start_time=previous.start_time or (now if started else None),
        completion_time=now if done else None,
    )


def _conditions(
    evaljob: EvalJob,
    plan: Plan,
    counts: PartitionCounts,
    now: datetime,
    *,
    done: bool,
    problem: FailureStatus | None,
) -> tuple[ConditionStatus, ...]:
    suspended = evaljob.spec.suspend and not done
    suspension: _Verdict = ("True", Reason.SUSPENDED) if suspended else ("False", Reason.RESUMED)
    resumable: tuple[_TrueFalse, str, str] = (
        ("True", Reason.OUTPUT_CLAIM, f"sample logs are kept on claim {plan.run.output.claim_name}")
        if plan.run.output
        else (
            "False",
            Reason.NO_OUTPUT,
            "without spec.output a retried partition starts from its first sample",
        )
    )
    found = [
        _condition(evaljob, Condition.ACCEPTED, "True", Reason.ACCEPTED, f"{counts.total} partitions", now),
        _condition(evaljob, Condition.SUSPENDED, *suspension, "", now),
        _condition(evaljob, Condition.RESUMABLE, *resumable, now),
    ]
    if done:
        good = not counts.failed and problem is None
        reason = Reason.ALL_SUCCEEDED if good else Reason.PARTITIONS_FAILED
        message = f"{counts.succeeded} of {counts.total} partitions succeeded, {counts.failed} failed"
        if problem:
            reason, message = Reason(problem.reason), f"{problem.partition}: {problem.message}"
        kinds = (Condition.FINISHED, Condition.COMPLETE if good else Condition.FAILED)
        found += [_condition(evaljob, kind, "True", reason, message, now) for kind in kinds]
    return tuple(found)


def _condition(
    evaljob: EvalJob, kind: Condition, status: _TrueFalse, reason: str, message: str, now: datetime
) -> ConditionStatus:
    """A condition that keeps its transition time as long as its status stays."""
    previous = evaljob.status.condition(kind)
    same = previous is not None and previous.status == status
    return ConditionStatus(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=previous.last_transition_time if previous and same else now,
        observed_generation=evaljob.metadata.generation,
    )


def _failures(seen: Iterable[Observation]) -> tuple[FailureStatus, ...]:
    """Failed partitions first, then those that wait for a reason a user can act on."""
    failed, waiting = [], []
    for o in seen:
        if isinstance(o.outcome, Failure) and o.recorded:
            text = o.outcome.message
            failed.append(FailureStatus(partition=str(o.partition), reason=o.outcome.reason, message=text))
        elif o.waiting and o.waiting.reason is not Reason.POD_NOT_STARTED:
            text = f"waiting: {o.waiting.message}"
            waiting.append(
                FailureStatus(partition=str(o.partition), reason=o.waiting.reason, message=text[:1024])
            )
    return (*failed, *waiting)


def _events(before: Status, after: Status) -> tuple[Event, ...]:
    """One Event per condition that changed its status; the first False of a condition is no news."""
    changed = []
    for condition in after.conditions:
        previous = before.condition(condition.type)
        quiet = condition.type == Condition.RESUMABLE or (previous is None and condition.status == "False")
        refusal = condition.type == Condition.ACCEPTED and condition.status == "False"
        if (previous is None or previous.status != condition.status) and (refusal or not quiet):
            bad = refusal or condition.type == Condition.FAILED
            message = f"{condition.type}: {condition.message}" if condition.message else str(condition.type)
            changed.append(Event("Warning" if bad else "Normal", condition.reason, message))
    return tuple(changed)
