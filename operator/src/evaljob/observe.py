"""Jobs and pods, as the API server shows them -> one observation per partition.

Total and without memory: the same objects in any order, seen once or many times, give the same observations.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from evaljob import framing, result
from evaljob.framing import InvalidResultError
from evaljob.names import Reason
from evaljob.plan import Partition, Plan
from evaljob.result import Failure, PartitionResult
from evaljob.views import JobView, PodView
from evaljob.waiting import Waiting, waiting

Outcome = PartitionResult | Failure
Why = Callable[[Partition, str], Failure | None]
MESSAGE_SHOWN = 200
"""Characters of what a container runtime says."""


class Phase(StrEnum):
    """Where a partition is."""

    ABSENT = "Absent"
    """No Job yet, or no longer."""
    PENDING = "Pending"
    """A Job without a running pod."""
    RUNNING = "Running"
    ENDED = "Ended"
    """The Job is over; its outcome is not on record yet."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Observation:
    """One partition, and all that is known of it."""

    partition: Partition
    phase: Phase
    job: JobView | None = None
    outcome: Outcome | None = None
    """On record as a failure (FAILED), or to be put on record (ENDED, as far as pods are known).

    A result that is on record (SUCCEEDED) is not held here: decoded, 10,000 of them take 40 MiB.
    """
    text: str = ""
    """The record to write for an ENDED partition with an outcome."""
    listed: bool = False
    """ENDED without an outcome, although the Job's pods were listed after its end."""
    waiting: Waiting | None = None
    """Why no pod of it runs; also of an ABSENT partition whose Job is refused for now."""
    won: bool = False
    """A pod of an unfinished Job has succeeded: the Job is about to complete."""

    @property
    def unfinished(self) -> bool:
        """Whether a Job of it still occupies the cluster.

        One that is on record as stopped ends by a deadline of a second. Suspended it never does, but has no pods any
        more: it is over.
        """
        job = self.job
        return job is not None and job.finished is None and not (self.recorded and job.at_rest)

    @property
    def recorded(self) -> bool:
        """Whether the partition has come to its end, for good."""
        return self.phase in (Phase.SUCCEEDED, Phase.FAILED)


@dataclass(frozen=True, slots=True)
class Observed:
    """All partitions, in the order of the plan."""

    observations: tuple[Observation, ...]


def read_record(partition: Partition, text: str) -> Outcome:
    """What a record says; a record that is damaged or of another partition is a failure `InvalidResult`."""
    try:
        outcome = framing.decode(text)
    except InvalidResultError as error:
        return result.failure(Reason.INVALID_RESULT, str(error))
    if isinstance(outcome, PartitionResult) and outcome.partition != partition:
        return result.failure(Reason.INVALID_RESULT, f"a result of {outcome.partition}, not of {partition}")
    return outcome


def failure_on(partition: Partition, text: str) -> Failure | None:
    """The failure that a record tells of; None for a valid result."""
    outcome = read_record(partition, text)
    return outcome if isinstance(outcome, Failure) else None


def observe(
    plan: Plan,
    uid: str,
    jobs: Mapping[str, JobView],
    pods: Iterable[PodView],
    listed: frozenset[str] = frozenset(),
    warnings: Mapping[str, str] = MappingProxyType({}),
    why: Why = failure_on,
) -> Observed:
    """Match Jobs and pods to the partitions of a plan.

    Args:
        plan: what should be there.
        uid: the EvalJob's.
        jobs: all Jobs known, by name.
        pods: all pods known, whether they have ended, wait, or do not end; those of other Jobs are ignored.
        listed: uids of finished Jobs whose pods were listed after their end.
        warnings: the last Warning about a Job or a pod that waits, by uid.
        why: reads records; one that remembers its answers saves a second per 10,000 records and pass.
    """
    by_job: dict[str, list[PodView]] = {}
    for pod in pods:
        by_job.setdefault(pod.job_uid, []).append(pod)
    found = []
    for name, partition in plan.named:
        job = jobs.get(name)
        mine = by_job.get(job.uid, []) if job else []
        found.append(_observation(partition, uid, job, mine, listed, warnings, why))
    return Observed(tuple(found))


def _observation(
    partition: Partition,
    uid: str,
    job: JobView | None,
    pods: list[PodView],
    listed: frozenset[str],
    warnings: Mapping[str, str],
    why: Why,
) -> Observation:
    if job is None:
        return Observation(partition, Phase.ABSENT)
    if job.deleting:
        return Observation(partition, Phase.PENDING, job)
    if job.owner != uid or job.record is not None:
        return _settled(partition, uid, job, why)
    if job.finished is None:
        phase = Phase.RUNNING if job.ready else Phase.PENDING
        won = any(p.phase == "Succeeded" for p in pods)
        return Observation(partition, phase, job, waiting=waiting(job, pods, warnings), won=won)
    ended = _outcome(partition, job, pods, complete=job.uid in listed)
    if ended is None:
        return Observation(partition, Phase.ENDED, job, listed=job.uid in listed)
    outcome, text = ended
    return Observation(partition, Phase.ENDED, job, outcome, text)


def _settled(partition: Partition, uid: str, job: JobView, why: Why) -> Observation:
    """A Job of somebody else, or one with a record."""
    if job.owner != uid:
        foreign = Failure(reason=Reason.NAME_COLLISION, message=f"Job {job.name} belongs to somebody else")
        return Observation(partition, Phase.FAILED, None, foreign)
    failure = why(partition, job.record or "")
    return Observation(partition, Phase.FAILED if failure else Phase.SUCCEEDED, job, failure)


def _outcome(
    partition: Partition, job: JobView, pods: list[PodView], *, complete: bool
) -> tuple[Outcome, str] | None:
    """The outcome of an ended Job and its record, or None as long as the pod that tells is unknown.

    The last attempt tells, and a disrupted pod was none. Unless the list of pods is `complete`, fewer failed
    pods than the Job has counted mean that the last one has not been seen yet.
    """
    wanted = "Succeeded" if job.finished == "Complete" else "Failed"
    told = {p.uid: p for p in pods if p.phase == wanted and not p.disrupted}
    if not told or (wanted == "Failed" and len(told) < job.failed_pods and not complete):
        return None
    pod = max(told.values(), key=lambda p: (p.created, p.uid))
    outcome = _success(partition, pod) if job.finished == "Complete" else pod_failure(pod)
    # A valid result is copied byte for byte: its checksum stays the runner's.
    return outcome, pod.message.strip() if isinstance(outcome, PartitionResult) else framing.encode(outcome)


def _success(partition: Partition, pod: PodView) -> Outcome:
    """The result that a succeeded pod reported, or why that is none."""
    outcome = read_record(partition, pod.message)
    if isinstance(outcome, Failure):
        return outcome.model_copy(update={"attempt": pod.uid})
    if outcome.attempt != pod.uid:
        return result.failure(Reason.INVALID_RESULT, f"a result of attempt {outcome.attempt[:40]!r}", pod.uid)
    return outcome


def pod_failure(pod: PodView) -> Failure:
    """Why a pod failed: the kernel's word before the runner's, the runner's before an exit code."""
    if pod.terminated_reason == "OOMKilled":
        limit = f" of {pod.memory_limit}" if pod.memory_limit else ""
        words = f"the container reached its memory limit{limit}: raise runner.resources.limits.memory"
        return result.failure(Reason.OOM_KILLED, words, pod.uid)
    if pod.reason == "DeadlineExceeded":
        return result.failure(Reason.DEADLINE_EXCEEDED, "the pod reached its deadline", pod.uid)
    if pod.reason == "Evicted" and re.search("ephemeral|EmptyDir", pod.status_message):
        return result.failure(Reason.EPHEMERAL_STORAGE, pod.status_message.strip(), pod.uid)
    try:
        said = framing.decode(pod.message)
    except InvalidResultError:
        said = None
    if isinstance(said, Failure):
        # The node is what somebody has to look at.
        where = f"node {pod.node}: " if said.reason == Reason.GPU_ERROR and pod.node else ""
        return result.failure(said.reason, where + said.message, pod.uid)
    return result.failure(Reason.RUNNER_FAILED, f"pod {pod.name}: {_end(pod)}", pod.uid)


def _end(pod: PodView) -> str:
    """How a pod ended that says nothing itself."""
    if pod.exit_code is None:
        return ": ".join(filter(None, (pod.reason, pod.status_message))) or "no exit code"
    # StartError, ContainerCannotRun: the runtime's words, not the runner's.
    if pod.terminated_reason in ("", "Error", "Completed"):
        return f"exit code {pod.exit_code}"
    return f"{pod.terminated_reason}: {pod.message[:MESSAGE_SHOWN]}"
