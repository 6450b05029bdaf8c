"""Jobs and pods, as the API server shows them -> one observation per partition.

Total and without memory: the same objects in any order, seen once or many times, give the same observations.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from evaljob import result
from evaljob.names import ANNOTATION_RESULT, Reason
from evaljob.plan import Partition, Plan
from evaljob.result import Failure, InvalidResultError, PartitionResult

Outcome = PartitionResult | Failure
Read = Callable[[Partition, str], Outcome]


@dataclass(frozen=True, slots=True)
class JobView:
    """The fields of a Job that decisions read."""

    name: str
    uid: str
    owner: str | None
    """The uid of the controlling owner."""
    created: datetime
    started_at: datetime | None
    """Since when its pods may run; None while it is suspended or not yet resumed."""
    finished: Literal["Complete", "Failed"] | None
    finished_at: datetime | None
    reason: str
    message: str
    suspended: bool
    ready: int
    failed_pods: int
    untouched: bool
    """No pod of it is there, is going or has ended."""
    record: str | None
    """The text of our annotation: what the partition came to."""
    deleting: bool


@dataclass(frozen=True, slots=True)
class PodView:
    """The fields of a runner's pod that decisions read."""

    uid: str
    name: str
    job_uid: str
    phase: str
    reason: str
    created: datetime
    exit_code: int | None
    terminated_reason: str
    message: str
    """The termination message: the runner's own report."""
    waiting_reason: str
    waiting_message: str
    unschedulable: str
    """The scheduler's words, when it finds no node."""


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def job_view(job: Mapping[str, Any]) -> JobView:
    """Project a Job of the API."""
    meta, status = job["metadata"], job.get("status") or {}
    true = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    end = true.get("Complete") or true.get("Failed") or {}
    owners = [o["uid"] for o in meta.get("ownerReferences") or () if o.get("controller")]
    return JobView(
        name=meta["name"],
        uid=meta["uid"],
        owner=owners[0] if owners else None,
        created=datetime.fromisoformat(meta["creationTimestamp"]),
        # After a suspension the old start time stays until the Job controller has resumed the Job.
        started_at=_time(status.get("startTime")) if "Suspended" not in true else None,
        finished=end.get("type"),
        finished_at=_time(end.get("lastTransitionTime")),
        reason=end.get("reason") or "",
        message=end.get("message") or "",
        suspended=bool(job["spec"].get("suspend")),
        ready=status.get("ready") or 0,
        failed_pods=status.get("failed") or 0,
        untouched=_untouched(status),
        record=(meta.get("annotations") or {}).get(ANNOTATION_RESULT),
        deleting="deletionTimestamp" in meta,
    )


def _untouched(status: Mapping[str, Any]) -> bool:
    counts = (status.get(k) for k in ("active", "ready", "terminating", "succeeded", "failed"))
    uncounted = status.get("uncountedTerminatedPods") or {}
    return not any(counts) and not any(uncounted.values())


def pod_view(pod: Mapping[str, Any]) -> PodView:
    """Project a pod of the API."""
    meta, status = pod["metadata"], pod.get("status") or {}
    states = [c.get("state") or {} for c in status.get("containerStatuses") or () if c["name"] == "runner"]
    state = states[0] if states else {}
    ended, waiting = state.get("terminated") or {}, state.get("waiting") or {}
    unscheduled = [
        c.get("message") or ""
        for c in status.get("conditions") or ()
        if c["type"] == "PodScheduled" and c["status"] == "False" and c.get("reason") == "Unschedulable"
    ]
    return PodView(
        uid=meta["uid"],
        name=meta["name"],
        job_uid=(meta.get("labels") or {}).get("batch.kubernetes.io/controller-uid", ""),
        phase=status.get("phase") or "",
        reason=status.get("reason") or "",
        created=datetime.fromisoformat(meta["creationTimestamp"]),
        exit_code=ended.get("exitCode"),
        terminated_reason=ended.get("reason") or "",
        message=ended.get("message") or "",
        waiting_reason=waiting.get("reason") or "",
        waiting_message=waiting.get("message") or "",
        unschedulable="".join(unscheduled[:1]),
    )


class Phase(StrEnum):
    """Where a partition is."""

    ABSENT = "Absent"
    """No Job yet, or no longer."""
    PENDING = "Pending"
    """A Job without a started pod."""
    RUNNING = "Running"
    ENDED = "Ended"
    """The Job is over; its outcome is not on record yet."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a pod has not started."""

    reason: Reason
    message: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Observation:
    """One partition, and all that is known of it."""

    partition: Partition
    phase: Phase
    job: JobView | None = None
    outcome: Outcome | None = None
    """On record (SUCCEEDED, FAILED), or to be put on record (ENDED, as far as pods are known)."""
    text: str = ""
    """The record to write for an ENDED partition with an outcome."""
    listed: bool = False
    """ENDED without an outcome, although the Job's pods were listed after its end."""
    waiting: Waiting | None = None

    @property
    def unfinished(self) -> bool:
        """Whether a Job of it still occupies the cluster."""
        return self.job is not None and self.job.finished is None

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
        outcome = result.decode(text)
    except InvalidResultError as error:
        return result.failure(Reason.INVALID_RESULT, str(error))
    if isinstance(outcome, PartitionResult) and outcome.partition != partition:
        return result.failure(Reason.INVALID_RESULT, f"a result of {outcome.partition}, not of {partition}")
    return outcome


def observe(
    plan: Plan,
    uid: str,
    jobs: Mapping[str, JobView],
    pods: Iterable[PodView],
    listed: frozenset[str] = frozenset(),
    read: Read = read_record,
) -> Observed:
    """Match Jobs and pods to the partitions of a plan.

    Args:
        plan: what should be there.
        uid: the EvalJob's.
        jobs: all Jobs known, by name.
        pods: terminal and pending pods known; pods of Jobs of other uids are ignored.
        listed: uids of finished Jobs whose pods were listed after their end.
        read: reads records; one that remembers its answers saves a second per 10,000 records and pass.
    """
    by_job: dict[str, list[PodView]] = {}
    for pod in pods:
        by_job.setdefault(pod.job_uid, []).append(pod)
    found = []
    for partition in plan.partitions:
        job = jobs.get(plan.job_name(partition))
        mine = by_job.get(job.uid, []) if job else []
        found.append(_observation(partition, uid, job, mine, listed, read))
    return Observed(tuple(found))


def _observation(
    partition: Partition,
    uid: str,
    job: JobView | None,
    pods: list[PodView],
    listed: frozenset[str],
    read: Read,
) -> Observation:
    if job is None:
        return Observation(partition, Phase.ABSENT)
    if job.deleting:
        return Observation(partition, Phase.PENDING, job)
    if job.owner != uid or job.record is not None:
        return _settled(partition, uid, job, read)
    if job.finished is None:
        phase = Phase.RUNNING if job.ready else Phase.PENDING
        return Observation(partition, phase, job, waiting=_waiting(job, pods))
    ended = _outcome(partition, job, pods, complete=job.uid in listed)
    if ended is None:
        return Observation(partition, Phase.ENDED, job, listed=job.uid in listed)
    outcome, text = ended
    return Observation(partition, Phase.ENDED, job, outcome, text)


def _settled(partition: Partition, uid: str, job: JobView, read: Read) -> Observation:
    """A Job of somebody else, or one with a record."""
    if job.owner != uid:
        foreign = Failure(reason=Reason.NAME_COLLISION, message=f"Job {job.name} belongs to somebody else")
        return Observation(partition, Phase.FAILED, None, foreign)
    outcome = read(partition, job.record or "")
    phase = Phase.SUCCEEDED if isinstance(outcome, PartitionResult) else Phase.FAILED
    return Observation(partition, phase, job, outcome)


def _outcome(
    partition: Partition, job: JobView, pods: list[PodView], *, complete: bool
) -> tuple[Outcome, str] | None:
    """The outcome of an ended Job and its record, or None as long as the pod that tells is unknown.

    The last attempt tells. Unless the list of pods is `complete`, fewer failed pods than the Job has counted
    mean that the last one has not been seen yet.
    """
    wanted = "Succeeded" if job.finished == "Complete" else "Failed"
    told = {p.uid: p for p in pods if p.phase == wanted}
    if not told or (wanted == "Failed" and len(told) < job.failed_pods and not complete):
        return None
    pod = max(told.values(), key=lambda p: (p.created, p.uid))
    outcome = _success(partition, pod) if job.finished == "Complete" else pod_failure(pod)
    # A valid result is copied byte for byte: its checksum stays the runner's.
    return outcome, pod.message.strip() if isinstance(outcome, PartitionResult) else result.encode(outcome)


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
        return result.failure(Reason.OOM_KILLED, "the container reached its memory limit", pod.uid)
    if pod.reason == "DeadlineExceeded":
        return result.failure(Reason.DEADLINE_EXCEEDED, "the pod reached its deadline", pod.uid)
    try:
        said = result.decode(pod.message)
    except InvalidResultError:
        said = None
    if isinstance(said, Failure):
        return said.model_copy(update={"attempt": pod.uid})
    what = f"exit code {pod.exit_code}" if pod.exit_code is not None else pod.reason or "no exit code"
    return result.failure(Reason.RUNNER_FAILED, f"pod {pod.name}: {what}", pod.uid)


_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


def _waiting(job: JobView, pods: list[PodView]) -> Waiting | None:
    """Since when, and if known why, a Job's pod has not started.

    Only a pod that is seen Pending, or a Job that never had one, has not started. "Not ready" says less: so
    are the pods of a lost node, and a pod that has just ended, before its Job is over.
    """
    if job.ready or job.suspended:
        return None
    pending = max((p for p in pods if p.phase == "Pending"), key=lambda p: p.created, default=None)
    if pending is not None:
        return _waiting_pod(pending)
    if job.untouched and job.started_at and not pods:
        return Waiting(Reason.POD_NOT_STARTED, "no pod could be created", job.started_at)
    return None


def _waiting_pod(pod: PodView) -> Waiting:
    if pod.waiting_reason in _IMAGE:
        return Waiting(Reason.IMAGE_PULL_BACK_OFF, pod.waiting_message or pod.waiting_reason, pod.created)
    if pod.unschedulable:
        return Waiting(Reason.UNSCHEDULABLE, pod.unschedulable, pod.created)
    why = pod.waiting_message or pod.waiting_reason or "not started"
    return Waiting(Reason.POD_NOT_STARTED, why, pod.created)
