"""Jobs and pods as the API server shows them -> the few fields that decisions read."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from evaljob.names import ANNOTATION_RESULT, LABEL_QUEUE


@dataclass(frozen=True, slots=True)
class JobView:
    """The fields of a Job that decisions read."""

    name: str
    uid: str
    version: str
    """Its resourceVersion."""
    owner: str | None
    """The uid of the controlling owner."""
    created: datetime
    started_at: datetime | None
    """Since when its pods may run; None while it is suspended or not yet resumed."""
    counted_at: datetime | None
    """When the Job controller last changed the Job's status, for example because a pod came or went."""
    finished: Literal["Complete", "Failed"] | None
    finished_at: datetime | None
    reason: str
    message: str
    suspended: bool
    queue: str
    """Its Kueue queue; empty without Kueue, which owns `suspend` of all Jobs that have one."""
    ready: int
    terminating: int
    failed_pods: int
    podless: bool
    """No pod of it is there or on its way out, and none has ended unnoticed or well."""
    record: str | None
    """The text of our annotation: what the partition came to."""
    deleting: bool

    @property
    def at_rest(self) -> bool:
        """Whether it is suspended and the Job controller has ended its pods."""
        return self.suspended and self.started_at is None


@dataclass(frozen=True, slots=True)
class PodView:
    """The fields of a runner's pod that decisions read."""

    uid: str
    name: str
    job_uid: str
    node: str
    phase: str
    reason: str
    status_message: str
    created: datetime
    ends_by: datetime | None
    """When its grace period is over, once it has been deleted."""
    disrupted: bool
    """Preempted, drained, evicted for its node's sake: such an end never counts as an attempt."""
    memory_limit: str
    exit_code: int | None
    terminated_reason: str
    message: str
    """The termination message: the runner's own report, or why its container could not be started."""
    waiting_reason: str
    waiting_message: str
    unschedulable: str
    """The scheduler's words, when it finds no node."""

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.phase in ("Succeeded", "Failed")


@functools.lru_cache(maxsize=1024)
def _moment(text: str) -> datetime:
    """Equal times as one object: Kubernetes' have whole seconds, and many Jobs share them."""
    return datetime.fromisoformat(text)


def _time(text: str | None) -> datetime | None:
    return _moment(text) if text else None


@functools.lru_cache(maxsize=1024)
def _same(text: str | None) -> str:
    """Equal texts as one object: 10,000 Jobs have one owner and a handful of reasons to end."""
    return text or ""


def job_view(job: Mapping[str, Any]) -> JobView:
    """Project a Job of the API."""
    meta, status = job["metadata"], job.get("status") or {}
    true = {c["type"]: c for c in status.get("conditions") or () if c["status"] == "True"}
    end = true.get("Complete") or true.get("Failed") or {}
    owners = [o["uid"] for o in meta.get("ownerReferences") or () if o.get("controller")]
    return JobView(
        name=meta["name"],
        uid=meta["uid"],
        version=meta.get("resourceVersion") or "",
        owner=_same(owners[0]) if owners else None,
        created=_moment(meta["creationTimestamp"]),
        # After a suspension the old start time stays until the Job controller has resumed the Job.
        started_at=_time(status.get("startTime")) if "Suspended" not in true else None,
        counted_at=_status_written(meta.get("managedFields") or ()),
        finished=end.get("type"),
        finished_at=_time(end.get("lastTransitionTime")),
        reason=_same(end.get("reason")),
        message=_same(end.get("message")),
        suspended=bool(job["spec"].get("suspend")),
        queue=(meta.get("labels") or {}).get(LABEL_QUEUE, ""),
        ready=status.get("ready") or 0,
        terminating=status.get("terminating") or 0,
        failed_pods=status.get("failed") or 0,
        podless=_podless(status),
        record=(meta.get("annotations") or {}).get(ANNOTATION_RESULT),
        deleting="deletionTimestamp" in meta,
    )


def _status_written(fields: Iterable[Mapping[str, Any]]) -> datetime | None:
    """A Job says when it started and when it ended; of all between only the field manager's entry tells."""
    times = (f.get("time") for f in fields if f.get("subresource") == "status")
    return max((_moment(t) for t in times if t), default=None)


def _podless(status: Mapping[str, Any]) -> bool:
    counts = (status.get(k) for k in ("active", "ready", "terminating", "succeeded"))
    uncounted = status.get("uncountedTerminatedPods") or {}
    return not any(counts) and not any(uncounted.values())


def pod_view(pod: Mapping[str, Any]) -> PodView:
    """Project a pod of the API."""
    meta, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    state = _runner(status.get("containerStatuses")).get("state") or {}
    ended, waiting = state.get("terminated") or {}, state.get("waiting") or {}
    conditions = {(c["type"], c["status"]): c for c in status.get("conditions") or ()}
    unscheduled = conditions.get(("PodScheduled", "False")) or {}
    limits = (_runner(spec.get("containers")).get("resources") or {}).get("limits") or {}
    return PodView(
        uid=meta["uid"],
        name=meta["name"],
        job_uid=(meta.get("labels") or {}).get("batch.kubernetes.io/controller-uid", ""),
        node=spec.get("nodeName") or "",
        phase=status.get("phase") or "",
        reason=status.get("reason") or "",
        status_message=status.get("message") or "",
        created=_moment(meta["creationTimestamp"]),
        ends_by=_time(meta.get("deletionTimestamp")),
        disrupted=("DisruptionTarget", "True") in conditions,
        memory_limit=str(limits.get("memory") or ""),
        exit_code=ended.get("exitCode"),
        terminated_reason=ended.get("reason") or "",
        message=ended.get("message") or "",
        waiting_reason=waiting.get("reason") or "",
        waiting_message=waiting.get("message") or "",
        unschedulable=unscheduled.get("message") or ""
        if unscheduled.get("reason") == "Unschedulable"
        else "",
    )


def _runner(containers: Iterable[Mapping[str, Any]] | None) -> Mapping[str, Any]:
    """The runner among a pod's containers or their statuses: no sidecar speaks for it."""
    return next((c for c in containers or () if c["name"] == "runner"), {})
