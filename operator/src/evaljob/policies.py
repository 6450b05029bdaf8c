"""The rules of the operator, each a small function of what is observed. None reads another's answer."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from evaljob import result
from evaljob.names import ANNOTATION_RETRY, Condition, Reason
from evaljob.observe import Observation, Phase
from evaljob.plan import Partition
from evaljob.result import Failure
from evaljob.spec import EvalJob

STALLED_AFTER = timedelta(seconds=60)
"""A model whose pod waits this long gets no further Job: unschedulable giants do not starve the small.
Reasons to wait that often pass by themselves are told from then on."""
REFUSED_FOR = timedelta(seconds=15)
"""How long a model whose Job was refused, by a quota or a policy, is left alone before one Job is tried again."""
LOST_AFTER = timedelta(seconds=5)
"""A finished Job whose pod no watch has shown by then is looked up once."""
OUT_OF_TIME = result.failure(Reason.DEADLINE_EXCEEDED, "activeDeadlineSeconds of the EvalJob were over")
"""What a partition comes to that has not finished when its EvalJob is out of time."""
AT_ONCE = 250
"""Jobs made in one pass, a second's work for the API server: records and status must not wait for 10,000 of them."""


def to_create(observations: Sequence[Observation], parallelism: int, now: datetime) -> tuple[Partition, ...]:
    """The partitions that get a Job now: interleaved over models, at most `parallelism` unfinished ones.

    At most `AT_ONCE`; the Jobs that are made bring about the next pass, which makes the next ones.

    Of the models whose Jobs are refused, only the one that was asked for longest ago gets one, and last.
    """
    free = min(parallelism - sum(o.unfinished for o in observations), AT_ONCE)
    if free <= 0:
        return ()
    stalled = stalled_models(observations, now)
    absent = [o for o in observations if o.phase is Phase.ABSENT and o.partition.model not in stalled]
    taken = Counter(o.partition.model for o in observations if o.unfinished)
    welcome = _interleaved([o.partition for o in absent if o.waiting is None], taken)
    due = [(tried, o.partition) for o in absent if (tried := _tried_at(o)) and now - tried >= REFUSED_FOR]
    probe = [min(due, key=lambda d: d[0])[1]] if due else []
    return tuple([*welcome, *probe][:free])


def _tried_at(observation: Observation) -> datetime | None:
    """When the Job of a partition that has none was last refused."""
    return observation.waiting.tried_at if observation.waiting else None


def _interleaved(partitions: Iterable[Partition], taken: Mapping[str, int]) -> list[Partition]:
    """First those of the model that has the fewest Jobs already, so that none takes all places."""
    places = Counter(taken)
    ranked = []
    for partition in partitions:
        ranked.append((places[partition.model], partition))
        places[partition.model] += 1
    return [p for _, p in sorted(ranked, key=lambda r: r[0])]


def stalled_models(observations: Iterable[Observation], now: datetime) -> set[str]:
    """Models with a pod that has been waiting too long to add another."""
    return {
        o.partition.model
        for o in observations
        if _starting(o) and o.waiting and now - o.waiting.since > STALLED_AFTER
    }


def _starting(observation: Observation) -> bool:
    """Whether a partition's pod should be starting."""
    waiting = observation.waiting
    return observation.phase is Phase.PENDING and waiting is not None and not waiting.in_order


def worth_telling(observation: Observation, now: datetime) -> bool:
    """Whether a user should hear why a partition waits."""
    waiting = observation.waiting
    if waiting is None or observation.recorded:
        return False
    patient = waiting.reason in (Reason.POD_NOT_STARTED, Reason.POD_STUCK_TERMINATING)
    return not patient or now - waiting.since > STALLED_AFTER


def suspension(observation: Observation, suspend: bool) -> bool | None:  # noqa: FBT001 - the spec's own field
    """What `suspend` of an unfinished Job must become; None if it is right, or Kueue's to say."""
    job = observation.job
    # A Job that is on record as stopped runs into its deadline, or is over as it stands.
    if job is None or job.finished is not None or job.deleting or job.queue or observation.recorded:
        return None
    return suspend if job.suspended != suspend else None


def withdrawn(observation: Observation, suspend: bool, *, late: bool) -> bool:  # noqa: FBT001 - the spec's own field
    """Whether an unfinished Job must leave its queue, and with it the cluster; it is made again on resume.

    A Job that Kueue suspends never runs into a deadline: when the EvalJob is out of time (`late`) it goes too.
    """
    job = observation.job
    if job is None or not job.queue or job.finished is not None or job.deleting:
        return False
    # What is on record, or about to be, would go with it.
    return not observation.recorded and not observation.won and (suspend or (late and job.suspended))


def never_started(observation: Observation, deadline: timedelta, now: datetime) -> bool:
    """Whether a partition's pod has been waiting beyond the pending deadline."""
    waiting = observation.waiting
    return _starting(observation) and waiting is not None and now - waiting.since >= deadline


def runs_until(evaljob: EvalJob) -> datetime | None:
    """When an EvalJob is out of time; None without a deadline, before its first pod and while it is suspended.

    As a Job's: a suspension stops the clock, and the start time is set anew on resume.
    """
    seconds, start = evaljob.spec.active_deadline_seconds, evaljob.status.start_time
    suspended = evaljob.spec.suspend or evaljob.status.is_true(Condition.SUSPENDED)
    return None if seconds is None or start is None or suspended else start + timedelta(seconds=seconds)


def out_of_time(evaljob: EvalJob, now: datetime) -> bool:
    """Whether whatever of an EvalJob is unfinished ends now."""
    until = runs_until(evaljob)
    return until is not None and now >= until


def cut_short(observation: Observation) -> bool:
    """Whether a partition of an EvalJob that is out of time has a Job that must be stopped."""
    job = observation.job
    running = observation.phase in (Phase.PENDING, Phase.RUNNING)
    return running and job is not None and not job.suspended and not job.deleting and not observation.won


def unmade(observation: Observation, deadline: timedelta, now: datetime, *, late: bool) -> Failure | None:
    """Why a partition without a Job gets none any more, so that there is nothing to put its failure on."""
    if observation.phase is not Phase.ABSENT:
        return None
    if late:
        return OUT_OF_TIME
    if observation.waiting is None or now - observation.waiting.since < deadline:
        return None
    words = f"no Job could be made within {deadline.total_seconds():.0f} s: {observation.waiting.message}"
    return result.failure(observation.waiting.reason, words)


def expires_at(evaljob: EvalJob) -> datetime | None:
    """When a finished EvalJob is deleted; None if only somebody else does."""
    ttl, ended = evaljob.spec.ttl_seconds_after_finished, evaljob.status.completion_time
    if ttl is None or ended is None or not evaljob.status.is_true(Condition.FINISHED):
        return None
    return ended + timedelta(seconds=ttl)


def jobs_expire_at(evaljob: EvalJob, ttl_seconds: int) -> datetime | None:
    """When the Jobs of a finished EvalJob are deleted; None without a summary: then they are the only record."""
    ended = evaljob.status.completion_time
    return None if ended is None or evaljob.status.summary is None else ended + timedelta(seconds=ttl_seconds)


def retry_asked(evaljob: EvalJob) -> bool:
    """Whether the failed partitions are to be run again, by a value of the annotation that is new."""
    asked = evaljob.metadata.annotations.get(ANNOTATION_RETRY)
    return asked is not None and asked != evaljob.status.retried


def is_over(evaljob: EvalJob) -> bool:
    """Whether its end is told, and no retry is asked for."""
    return evaljob.status.is_true(Condition.FINISHED) and not retry_asked(evaljob)


def overdue(observation: Observation, now: datetime) -> bool:
    """Whether an ended Job's pod should have been seen by now."""
    if observation.job is None or observation.phase is not Phase.ENDED or observation.outcome is not None:
        return False
    return now - (observation.job.finished_at or observation.job.created) >= LOST_AFTER


def next_look(
    observations: Iterable[Observation], deadline: timedelta, now: datetime, until: datetime | None = None
) -> float | None:
    """Seconds until one of the rules above can answer differently without an event; None if never.

    Args:
        observations: of all partitions.
        deadline: of a pod that waits.
        now: the API server's time.
        until: when the EvalJob is out of time.
    """
    times = [until] if until else []
    for o in observations:
        if o.waiting and o.phase is Phase.ABSENT:
            times += [(o.waiting.tried_at or o.waiting.since) + REFUSED_FOR, o.waiting.since + deadline]
        elif o.waiting and o.phase is Phase.PENDING:
            times += [o.waiting.since + STALLED_AFTER, o.waiting.since + deadline]
        if o.phase is Phase.ENDED and o.outcome is None and o.job and o.job.finished_at:
            times.append(o.job.finished_at + LOST_AFTER)
    # One second of room: the comparison above is strict, and timestamps of the API are whole seconds.
    return min(((t - now).total_seconds() + 1 for t in times if t >= now), default=None)
