"""The rules of the operator, each a small function of what is observed. None reads another's answer."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from evaljob.names import ANNOTATION_RETRY, Reason
from evaljob.observe import Observation, Phase
from evaljob.plan import Partition
from evaljob.spec import EvalJob

STALLED_AFTER = timedelta(seconds=60)
"""A model whose pod waits this long gets no further Job: unschedulable giants do not starve the small.
Reasons to wait that often pass by themselves are told from then on."""
REFUSED_FOR = timedelta(seconds=15)
"""How long a model whose Job was refused, by a quota or a policy, is left alone before one Job is tried again."""
LOST_AFTER = timedelta(seconds=5)
"""A finished Job whose pod no watch has shown by then is looked up once."""
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
    due = [
        (o.waiting.since, o.partition) for o in absent if o.waiting and now - o.waiting.since >= REFUSED_FOR
    ]
    probe = [min(due, key=lambda d: d[0])[1]] if due else []
    return tuple([*welcome, *probe][:free])


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
    if job is None or job.finished is not None or job.deleting or job.queue:
        return None
    # A Job that is on record as stopped must run into its deadline, which stands still while it is suspended.
    wanted = suspend and not observation.recorded
    return wanted if job.suspended != wanted else None


def withdrawn(observation: Observation, suspend: bool) -> bool:  # noqa: FBT001 - the spec's own field
    """Whether an unfinished Job must leave its queue, and with it the cluster; it is made again on resume."""
    job = observation.job
    return bool(
        suspend
        and job
        and job.queue
        and observation.unfinished
        and not job.deleting
        and not observation.recorded
    )


def never_started(observation: Observation, deadline: timedelta, now: datetime) -> bool:
    """Whether a partition's pod has been waiting beyond the pending deadline."""
    waiting = observation.waiting
    return _starting(observation) and waiting is not None and now - waiting.since >= deadline


def retry_asked(evaljob: EvalJob) -> bool:
    """Whether the failed partitions are to be run again, by a value of the annotation that is new."""
    asked = evaljob.metadata.annotations.get(ANNOTATION_RETRY)
    return asked is not None and asked != evaljob.status.retried


def overdue(observation: Observation, now: datetime) -> bool:
    """Whether an ended Job's pod should have been seen by now."""
    if observation.job is None or observation.phase is not Phase.ENDED or observation.outcome is not None:
        return False
    return now - (observation.job.finished_at or observation.job.created) >= LOST_AFTER


def next_look(observations: Iterable[Observation], deadline: timedelta, now: datetime) -> float | None:
    """Seconds until one of the rules above can answer differently without an event; None if never."""
    times: list[datetime] = []
    for o in observations:
        if o.waiting and o.phase is Phase.ABSENT:
            times.append(o.waiting.since + REFUSED_FOR)
        elif o.waiting and o.phase is Phase.PENDING:
            times += [o.waiting.since + STALLED_AFTER, o.waiting.since + deadline]
        if o.phase is Phase.ENDED and o.outcome is None and o.job and o.job.finished_at:
            times.append(o.job.finished_at + LOST_AFTER)
    # One second of room: the comparison above is strict, and timestamps of the API are whole seconds.
    return min(((t - now).total_seconds() + 1 for t in times if t >= now), default=None)
