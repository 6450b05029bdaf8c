"""What the informers do not show: pods that wait or do not end, Warnings about them, pods of a finished Job."""

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime

from evaljob.names import LABEL_NAME
from evaljob.views import JobView, PodView, pod_view
from evaljob_operator.api import JOB_LABEL, ApiError, Json, core_path
from evaljob_operator.backoff import rest
from evaljob_operator.informer import OURS, PAGE, pages
from evaljob_operator.world import World

log = logging.getLogger(__name__)
UNEXPLAINED_AFTER = 30.0
"""Seconds after which the Events of a pod or Job that waits without a word are asked for."""
PATIENCE = 3
"""Intervals between two looks at pods that fit one list, at most."""
ASKED_MAX = 5
"""So many of them, and so many Jobs with a pod that does not end: the status shows ten partitions."""


class PodLists:
    """Bounded lists of one EvalJob's pods and of the Warnings about them."""

    def __init__(self, world: World, namespace: str, name: str) -> None:
        self._world = world
        self._pod_path = core_path(namespace, "pods")
        self._event_path = core_path(namespace, "events")
        self._name = name
        self._waiting: tuple[PodView, ...] = ()
        self._next_list = float("-inf")
        self._requests = 0
        self._found: dict[str, PodView] = {}
        self.listed: frozenset[str] = frozenset()
        """uids of finished Jobs whose pods were looked up."""
        self.warnings: Mapping[str, str] = {}
        """The last Warning about what waits, by the uid of a pod or Job."""

    def with_terminal(self, terminal: Iterable[PodView]) -> list[PodView]:
        """All pods known; what the informer shows is the newest."""
        pods = {p.uid: p for p in self._waiting} | self._found | {p.uid: p for p in terminal}
        return list(pods.values())

    async def refresh(self, jobs: Iterable[JobView], now: datetime) -> float | None:
        """Look at what waits, if some Job has been waiting for long and the last look is old.

        Returns:
            Seconds until the next look is due, None while no Job waits.
        """
        waiting = [job for job in jobs if waits(job)]
        ages = [(now - _since(job)).total_seconds() for job in waiting]
        timing, monotonic = self._world.timing, self._world.monotonic
        if not ages or max(ages) < timing.waiting:
            self._waiting, self.warnings = (), {}
            return timing.waiting - max(ages) if ages else None
        if (due := self._next_list - monotonic()) > 0:
            return due
        started, self._requests = monotonic(), 0
        self._waiting = await self._list_waiting(waiting)
        self.warnings = await self._list_warnings(waiting, now)
        interval = pause(timing.between_pending_lists, self._requests, len(self._waiting))
        left = rest(interval, monotonic() - started)
        self._next_list = monotonic() + left
        return left

    async def look_up(self, names: Iterable[str], jobs: Mapping[str, JobView]) -> None:
        """List all pods of finished Jobs, as the API server has them now."""
        for name in names:
            if (job := jobs.get(name)) is None:
                # Gone while the other writes of this pass were made.
                continue
            pods = await self._list({"labelSelector": f"{JOB_LABEL}={name}"})
            self._found |= {p.uid: p for p in pods}
            self.listed |= {job.uid}

    async def _list_waiting(self, jobs: Iterable[JobView]) -> tuple[PodView, ...]:
        """Pending pods, and those of Jobs that say that a pod is on its way out."""
        selector = f"{OURS['labelSelector']},{LABEL_NAME}={self._name}"
        found = await self._list({"labelSelector": selector, "fieldSelector": "status.phase=Pending"})
        for job in [j for j in jobs if j.terminating][:ASKED_MAX]:
            found += await self._list({"labelSelector": f"{JOB_LABEL}={job.name}"})
        return found

    async def _list_warnings(self, jobs: Iterable[JobView], now: datetime) -> dict[str, str]:
        """The last Warning about pods and Jobs that wait without saying why.

        A Secret that is missing, and a pod that a quota or a policy refuses to the Job controller, show nowhere
        else.
        """
        silent = {p.uid: p.created for p in self._waiting if _is_silent(p)}
        silent |= {j.uid: _since(j) for j in jobs if j.podless}
        old = [u for u, since in silent.items() if (now - since).total_seconds() > UNEXPLAINED_AFTER]
        return {uid: words for uid in old[:ASKED_MAX] if (words := await self._warning(uid))}

    async def _warning(self, uid: str) -> str:
        query = {"fieldSelector": f"involvedObject.uid={uid},type=Warning"}
        self._requests += 1
        try:
            answer = await self._world.api.request("GET", self._event_path, query=query)
        except ApiError as error:
            # Events make a reason more precise; nothing depends on them.
            log.info("%s: %s", self._event_path, error)
            return ""
        newest: Json = max(answer["items"], key=_event_time, default={})
        return str(newest.get("message") or "")

    async def _list(self, query: dict[str, str]) -> tuple[PodView, ...]:
        # Without resourceVersion the list is read from etcd: it shows every write that came before.
        found: list[PodView] = []
        async for page in pages(self._world.api, self._pod_path, query, pod_view):
            found += page.items
            self._requests += 1
        return tuple(found)


def pause(interval: float, requests: int, pods: int) -> float:
    """Seconds between two looks of which the last took so many requests and found so many pods.

    One request in each interval, however many wait and for however long. A few pods are looked at more often, so that
    whatever holds them up is told within a minute.
    """
    longest = PATIENCE * (1 + pods // PAGE)
    return interval * max(min(requests, longest), 1)


def waits(job: JobView) -> bool:
    """Whether a Job should have a running pod and has none."""
    return job.finished is None and not job.suspended and not job.deleting and not job.ready


def _since(job: JobView) -> datetime:
    return max(job.created, job.started_at or job.created, job.counted_at or job.created)


def _is_silent(pod: PodView) -> bool:
    return pod.phase == "Pending" and not pod.waiting_message and not pod.unschedulable


def _event_time(event: Json) -> str:
    """RFC 3339 in UTC sorts as text; the old and the new Event API fill different fields."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])
