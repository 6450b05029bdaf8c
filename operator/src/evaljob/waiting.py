"""Why a partition has no running pod, and since when: from its Job, its pods and the Warnings about them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from evaljob.causes import cause
from evaljob.names import Reason
from evaljob.views import JobView, PodView


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a partition has no running pod."""

    reason: Reason
    message: str
    since: datetime
    tried_at: datetime | None = None
    """When its Job was last refused, while there is none."""

    @property
    def in_order(self) -> bool:
        """Whether it may take as long as it takes: a Job that others hold, or a pod that nobody can end."""
        return self.reason in _IN_ORDER


_FREE_IT = "taint it node.kubernetes.io/out-of-service=nodeshutdown:NoExecute, or delete the Job, which is made again"
"""Deleting the pod with --force does not help: a Job's pod has a finalizer until it has ended. Tried."""
_IN_ORDER = (Reason.QUEUED_BY_KUEUE, Reason.SUSPENDED_BY_OTHERS, Reason.POD_STUCK_TERMINATING)
_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


def waiting(job: JobView, pods: list[PodView], warnings: Mapping[str, str]) -> Waiting | None:
    """Since when, and if known why, a Job has no running pod.

    Only a pod that is seen pending or going, or a Job that says it has none, has none. "Not ready" says less: so
    are the pods of a silent node, and a pod that has just ended, before its Job is over.
    """
    if job.suspended and job.queue:
        said = warnings.get(job.uid)
        why = f": {said}" if said else "; `kubectl get workloads` shows why"
        words = f"suspended by Kueue in queue {job.queue}{why}"
        return Waiting(Reason.QUEUED_BY_KUEUE, words, job.created)
    if job.ready or job.suspended:
        return None
    live = [p for p in pods if not p.over]
    pending = [p for p in live if p.phase == "Pending" and p.ends_by is None]
    if pending:
        newest = max(pending, key=lambda p: p.created)
        return _waiting_pod(newest, warnings.get(newest.uid, ""))
    if live:
        return _going(live)
    return _refused_pods(job, pods, warnings.get(job.uid, ""))


def _going(live: Iterable[PodView]) -> Waiting | None:
    """A Job replaces a pod only once it has ended, and on a lost node it never does by itself."""
    for pod in live:
        if pod.ends_by:
            words = f"pod {pod.name} does not end, node {pod.node or 'unknown'} may be lost: {_FREE_IT}"
            return Waiting(Reason.POD_STUCK_TERMINATING, words, pod.ends_by)
    return None


def _waiting_pod(pod: PodView, warning: str) -> Waiting:
    if pod.waiting_reason in _IMAGE:
        return Waiting(Reason.IMAGE_PULL_BACK_OFF, pod.waiting_message or pod.waiting_reason, pod.created)
    if pod.unschedulable:
        return Waiting(Reason.UNSCHEDULABLE, pod.unschedulable, pod.created)
    why = pod.waiting_message or warning or pod.waiting_reason or "not started"
    return Waiting(cause(why) or Reason.POD_NOT_STARTED, why, pod.created)


def _refused_pods(job: JobView, pods: Iterable[PodView], warning: str) -> Waiting | None:
    """A Job that may run and has no pod: quota and admission refuse pods to the Job controller, not to us."""
    ended = {p.uid for p in pods if not p.disrupted}
    if not job.podless or job.started_at is None or len(ended) > job.failed_pods:
        return None
    since = max(job.started_at, job.counted_at or job.started_at) + retry_delay(job.failed_pods)
    why = warning or "no pod could be created"
    return Waiting(cause(why) or Reason.POD_NOT_STARTED, why, since)


def retry_delay(failed: int) -> timedelta:
    """How long the Job controller waits after the last of so many failed pods: 10 s, doubling, at most 10 min."""
    return timedelta(seconds=min(10 * 2 ** (failed - 1), 600) if failed else 0)
