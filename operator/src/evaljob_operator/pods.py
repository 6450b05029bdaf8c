"""Pods that the informer does not show: pending ones, and those of a finished Job that is looked up."""

from collections.abc import Iterable, Mapping
from datetime import datetime

from evaljob.names import LABEL_NAME
from evaljob.observe import JobView, PodView, pod_view
from evaljob_operator.api import JOB_LABEL, core_path
from evaljob_operator.informer import OURS
from evaljob_operator.world import World


class PodLists:
    """Bounded lists of one EvalJob's pods."""

    def __init__(self, world: World, namespace: str, name: str) -> None:
        self._world = world
        self._path = core_path(namespace, "pods")
        self._name = name
        self._pending: tuple[PodView, ...] = ()
        self._listed_at = float("-inf")
        self._found: dict[str, PodView] = {}
        self.listed: frozenset[str] = frozenset()
        """uids of finished Jobs whose pods were looked up."""

    def with_terminal(self, terminal: Iterable[PodView]) -> list[PodView]:
        """All pods known; what the informer shows is the newest."""
        pods = {p.uid: p for p in self._pending} | self._found | {p.uid: p for p in terminal}
        return list(pods.values())

    async def refresh_pending(self, jobs: Iterable[JobView], now: datetime) -> float | None:
        """List the pending pods if some Job has been waiting for long and the last list is old.

        Returns:
            Seconds until the next list is due, None while no Job waits.
        """
        ages = [(now - _since(job)).total_seconds() for job in jobs if waits(job)]
        timing, monotonic = self._world.timing, self._world.monotonic
        if not ages or max(ages) < timing.waiting:
            self._pending = ()
            return timing.waiting - max(ages) if ages else None
        due = self._listed_at + timing.between_pending_lists - monotonic()
        if due > 0:
            return due
        selector = f"{OURS['labelSelector']},{LABEL_NAME}={self._name}"
        self._pending = await self._list({"labelSelector": selector, "fieldSelector": "status.phase=Pending"})
        self._listed_at = monotonic()
        return timing.between_pending_lists

    async def look_up(self, names: Iterable[str], jobs: Mapping[str, JobView]) -> None:
        """List all pods of finished Jobs, as the API server has them now."""
        for name in names:
            pods = await self._list({"labelSelector": f"{JOB_LABEL}={name}"})
            self._found |= {p.uid: p for p in pods}
            self.listed |= {jobs[name].uid}

    async def _list(self, query: dict[str, str]) -> tuple[PodView, ...]:
        # Without resourceVersion the list is read from etcd: it shows every write that came before.
        answer = await self._world.api.request("GET", self._path, query=query)
        return tuple(pod_view(pod) for pod in answer["items"])


def waits(job: JobView) -> bool:
    """Whether a Job should have a running pod and has none."""
    return job.finished is None and not job.suspended and not job.deleting and not job.ready


def _since(job: JobView) -> datetime:
    return max(job.created, job.started_at or job.created)
