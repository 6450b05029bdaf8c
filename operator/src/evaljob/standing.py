"""How an EvalJob stands: its status, conditions, failures and the Events about them.

Counted anew from the observations each time. Of the status before, only start and transition times are read, and
whether there ever was a suspension.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from evaljob import policies
from evaljob.names import ANNOTATION_RETRY, Condition, Reason, State, summary_name
from evaljob.observe import Observation, Phase
from evaljob.plan import Plan
from evaljob.result import Failure
from evaljob.spec import EvalJob
from evaljob.status import ConditionStatus, FailureStatus, PartitionCounts, Status

FAILURES_SHOWN = 10
MESSAGE_MAX = 1024
CONDITION_MAX = 4096
"""Characters of a condition's message, which may be what the API server or a policy said: etcd holds 1.5 MiB."""
_TrueFalse = Literal["True", "False"]


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes Event about the EvalJob."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an EvalJob is."""

    counts: PartitionCounts
    started: bool
    """Whether a pod has ever run."""
    done: bool
    """Whether every partition is on record and every Job over, so that its GPUs are free."""
    state: State

    @classmethod
    def of(cls, evaljob: EvalJob, seen: Sequence[Observation]) -> Self:
        """Count."""
        counts = count(seen)
        done = counts.succeeded + counts.failed == counts.total and not any(o.unfinished for o in seen)
        started = evaljob.status.start_time is not None or counts.pending < counts.total
        return cls(counts, started, done, _state(evaljob, counts, started=started, done=done))


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


def _state(evaljob: EvalJob, counts: PartitionCounts, *, started: bool, done: bool) -> State:
    if done:
        return State.FAILED if counts.failed else State.COMPLETE
    if evaljob.spec.suspend:
        return State.SUSPENDED
    # Between two pods of its only partition an EvalJob is still running.
    return State.RUNNING if started else State.PENDING


def status(
    evaljob: EvalJob,
    plan: Plan,
    seen: Sequence[Observation],
    progress: Progress,
    now: datetime,
    problem: FailureStatus | None,
) -> Status:
    """The status of an accepted EvalJob; `problem` is what keeps its summary from being whole at the end."""
    counts = progress.counts
    fits = problem is None or problem.reason != Reason.SUMMARY_TOO_LARGE
    has_summary = fits and any(o.recorded for o in seen)
    return Status(
        observed_generation=evaljob.metadata.generation,
        state=State.FAILED if problem else progress.state,
        progress=f"{counts.succeeded + counts.failed}/{counts.total}",
        failed=counts.failed,
        conditions=(
            condition(evaljob, Condition.ACCEPTED, "True", Reason.ACCEPTED, _accepted(plan), now),
            _suspended(evaljob, now, suspended=evaljob.spec.suspend and not progress.done),
            _resumable(evaljob, plan, now),
            *(_end(evaljob, counts, now, problem) if progress.done else ()),
        ),
        partitions=counts,
        failures=(*((problem,) if problem else ()), *_failures(seen, now))[:FAILURES_SHOWN],
        summary=summary_name(evaljob.metadata.name) if has_summary else None,
        start_time=_start_time(evaljob, progress, now),
        completion_time=now if progress.done else None,
        retried=_retried(evaljob),
    )


def _start_time(evaljob: EvalJob, progress: Progress, now: datetime) -> datetime | None:
    """As a Job's: when the first pod ran, or the last suspension ended."""
    start = evaljob.status.start_time
    resumed = evaljob.status.is_true(Condition.SUSPENDED) and not evaljob.spec.suspend
    return now if progress.started and (start is None or resumed) else start


def refused(evaljob: EvalJob, reason: str, message: str, now: datetime) -> Status:
    """The status of an EvalJob that can never run."""
    verdicts: tuple[tuple[Condition, _TrueFalse], ...] = (
        (Condition.ACCEPTED, "False"),
        (Condition.FINISHED, "True"),
        (Condition.FAILED, "True"),
    )
    return Status(
        observed_generation=evaljob.metadata.generation,
        state=State.FAILED,
        conditions=tuple(
            condition(evaljob, kind, verdict, reason, message, now) for kind, verdict in verdicts
        ),
        completion_time=evaljob.status.completion_time or now,
        retried=_retried(evaljob),
    )


def _retried(evaljob: EvalJob) -> str | None:
    return evaljob.metadata.annotations.get(ANNOTATION_RETRY, evaljob.status.retried)


def condition(
    evaljob: EvalJob, kind: Condition, verdict: _TrueFalse, reason: str, message: str, now: datetime
) -> ConditionStatus:
    """A condition that keeps its transition time as long as its status stays."""
    previous = evaljob.status.condition(kind)
    same = previous is not None and previous.status == verdict
    return ConditionStatus(
        type=kind,
        status=verdict,
        reason=reason,
        message=message if len(message) <= CONDITION_MAX else message[: CONDITION_MAX - 1] + "…",
        last_transition_time=previous.last_transition_time if previous and same else now,
        observed_generation=evaljob.metadata.generation,
    )


def _accepted(plan: Plan) -> str:
    warned = f"; warnings: {' | '.join(plan.warnings)}" if plan.warnings else ""
    return f"{size(len(plan.partitions))}{warned}"


def size(total: int) -> str:
    """So many partitions, in words."""
    return "1 partition" if total == 1 else f"{total} partitions"


def _suspended(evaljob: EvalJob, now: datetime, *, suspended: bool) -> ConditionStatus:
    if suspended:
        message = "no pod runs and none is started; finished partitions stay"
        return condition(evaljob, Condition.SUSPENDED, "True", Reason.SUSPENDED, message, now)
    previous = evaljob.status.condition(Condition.SUSPENDED)
    never = previous is None or previous.reason == Reason.NOT_SUSPENDED
    reason, message = (Reason.NOT_SUSPENDED, "") if never else (Reason.RESUMED, "pods run again")
    return condition(evaljob, Condition.SUSPENDED, "False", reason, message, now)


def _resumable(evaljob: EvalJob, plan: Plan, now: datetime) -> ConditionStatus:
    if plan.run.output:
        kept = f"sample logs are kept on claim {plan.run.output.claim_name}"
        return condition(evaljob, Condition.RESUMABLE, "True", Reason.OUTPUT_CLAIM, kept, now)
    anew = "without spec.output a retried partition starts from its first sample"
    return condition(evaljob, Condition.RESUMABLE, "False", Reason.NO_OUTPUT, anew, now)


def _end(
    evaljob: EvalJob, counts: PartitionCounts, now: datetime, problem: FailureStatus | None
) -> Iterator[ConditionStatus]:
    good = not counts.failed and problem is None
    reason = Reason.ALL_SUCCEEDED if good else Reason.PARTITIONS_FAILED
    message = f"{counts.succeeded} of {size(counts.total)} succeeded, {counts.failed} failed"
    if problem:
        reason, message = Reason(problem.reason), f"{problem.partition}: {problem.message}"
    for kind in (Condition.FINISHED, Condition.COMPLETE if good else Condition.FAILED):
        yield condition(evaljob, kind, "True", reason, message, now)


def _failures(seen: Iterable[Observation], now: datetime) -> Iterator[FailureStatus]:
    """Failed partitions first, then those that wait for a reason a user can act on."""
    seen = tuple(seen)
    for o in seen:
        if isinstance(o.outcome, Failure) and o.recorded:
            yield _shown(o, o.outcome.reason, o.outcome.message)
    told = set()
    for o in seen:
        if o.waiting and policies.worth_telling(o, now):
            # A model whose Jobs are refused is told of once, not for each of them.
            key = o.partition.model if o.phase is Phase.ABSENT else str(o.partition)
            if key not in told:
                told.add(key)
                yield _shown(o, o.waiting.reason, f"waiting: {o.waiting.message}")


def _shown(observation: Observation, reason: str, message: str) -> FailureStatus:
    partition = str(observation.partition)
    return FailureStatus(partition=partition, reason=reason, message=message[:MESSAGE_MAX])


def events(before: Status, after: Status) -> tuple[Event, ...]:
    """One Event per condition that changed its status, and one for an end, which changes two or three."""
    changed = {c.type: c for c in after.conditions if _is_news(before.condition(c.type), c)}
    if Condition.ACCEPTED in changed and changed[Condition.ACCEPTED].status == "False":
        changed = {Condition.ACCEPTED: changed[Condition.ACCEPTED]}
    return tuple(_event(c) for c in changed.values() if c.type not in _QUIET)


_QUIET = (Condition.RESUMABLE, Condition.FINISHED)
"""The first never changes, the second comes with Complete or Failed."""


def _is_news(before: ConditionStatus | None, after: ConditionStatus) -> bool:
    """The first False of a condition is no news, unless it should be True."""
    if before is None:
        return after.status == "True" or after.type == Condition.ACCEPTED
    return before.status != after.status


def _event(about: ConditionStatus) -> Event:
    bad = about.type == Condition.FAILED or (about.type == Condition.ACCEPTED and about.status == "False")
    return Event("Warning" if bad else "Normal", about.reason, about.message or str(about.type))
