"""The rules of the operator, each a small function of what is observed. None reads another's answer."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import chain, zip_longest

from evaljob.observe import Observation, Phase
from evaljob.plan import Partition

STALLED_AFTER = timedelta(seconds=60)
"""A model whose pod waits this long gets no further Job: unschedulable giants do not starve the small."""
LOST_AFTER = timedelta(seconds=5)
"""A finished Job whose pod no watch has shown by then is looked up once."""


def to_create(observations: Sequence[Observation], parallelism: int, now: datetime) -> tuple[Partition, ...]:
    """The partitions that get a Job now: interleaved over models, at most `parallelism` unfinished ones."""
    free = parallelism - sum(o.unfinished for o in observations)
    if free <= 0:
        return ()
    stalled = stalled_models(observations, now)
    absent = [
        o.partition for o in observations if o.phase is Phase.ABSENT and o.partition.model not in stalled
    ]
    return tuple(_interleaved(absent)[:free])


def _interleaved(partitions: Iterable[Partition]) -> list[Partition]:
    by_model: dict[str, list[Partition]] = {}
    for partition in partitions:
        by_model.setdefault(partition.model, []).append(partition)
    return [p for p in chain.from_iterable(zip_longest(*by_model.values())) if p is not None]


def stalled_models(observations: Iterable[Observation], now: datetime) -> set[str]:
    """Models with a pod that has been waiting too long to add another."""
    return {
        o.partition.model
        for o in observations
        if o.phase is Phase.PENDING and o.waiting and now - o.waiting.since > STALLED_AFTER
    }


def wrongly_suspended(observation: Observation, suspend: bool) -> bool:  # noqa: FBT001 - the spec's own field
    """Whether an unfinished Job's `suspend` differs from the EvalJob's."""
    job = observation.job
    return job is not None and not observation.recorded and job.finished is None and job.suspended != suspend


def never_started(observation: Observation, deadline: timedelta, now: datetime) -> bool:
    """Whether a partition's pod has been waiting beyond the pending deadline."""
    waiting = observation.waiting
    return observation.phase is Phase.PENDING and waiting is not None and now - waiting.since >= deadline


def overdue(observation: Observation, now: datetime) -> bool:
    """Whether an ended Job's pod should have been seen by now."""
    end = observation.job.finished_at if observation.job else None
    silent = observation.phase is Phase.ENDED and observation.outcome is None
    return silent and end is not None and now - end >= LOST_AFTER


def next_look(observations: Iterable[Observation], deadline: timedelta, now: datetime) -> float | None:
    """Seconds until one of the rules above can answer differently without an event; None if never."""
    times: list[datetime] = []
    for o in observations:
        if o.phase is Phase.PENDING and o.waiting:
            times += [o.waiting.since + STALLED_AFTER, o.waiting.since + deadline]
        if o.phase is Phase.ENDED and o.outcome is None and o.job and o.job.finished_at:
            times.append(o.job.finished_at + LOST_AFTER)
    # One second of room: the comparison above is strict, and timestamps of the API are whole seconds.
    return min(((t - now).total_seconds() + 1 for t in times if t >= now), default=None)
