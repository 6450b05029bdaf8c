"""Why Kueue holds Jobs back: the conditions of their Workloads, where Kueue is installed and the chart allows it."""

import logging
from collections.abc import Iterable, Mapping

from evaljob.names import KUEUE_PREFIX
from evaljob.views import JobView
from evaljob_operator.api import ApiError, Json, group_path, group_version_path
from evaljob_operator.pods import ASKED_MAX
from evaljob_operator.world import World

log = logging.getLogger(__name__)
GROUP = KUEUE_PREFIX.rstrip("/")
JOB_UID = f"{KUEUE_PREFIX}job-uid"
"""The label by which Kueue names a Workload's Job."""


class Workloads:
    """Bounded looks at the Workloads of one EvalJob's Jobs."""

    def __init__(self, world: World, namespace: str) -> None:
        self._world = world
        self._namespace = namespace
        self._version = ""
        self._looked_at = float("-inf")
        self.words: Mapping[str, str] = {}
        """Kueue's words by the uid of a Job that it holds back."""

    async def refresh(self, jobs: Iterable[JobView]) -> float | None:
        """Look at a few of them, if Kueue holds some back and the last look is old.

        Returns:
            Seconds until the next look is due, None while there is nothing to look at.
        """
        held = [job.uid for job in jobs if job.queue and job.suspended and job.finished is None][:ASKED_MAX]
        if not held or not self._world.kueue:
            return None
        timing, now = self._world.timing, self._world.monotonic()
        # Of some of them nothing has been told yet: they were not held, or Kueue had no words, at the last look.
        known = self.words.keys() >= set(held)
        interval = timing.between_workload_lists if known else timing.between_pending_lists
        if (due := self._looked_at + interval - now) > 0:
            return due
        self._looked_at = now
        try:
            self.words = {uid: said for uid in held if (said := await self._why(uid))}
        except ApiError as error:
            # They make a reason more precise; nothing depends on them.
            log.info("workloads of %s: %s", self._namespace, error)
        return timing.between_pending_lists

    async def _why(self, job: str) -> str:
        if not self._version:
            # Kueue serves several, and drops old ones.
            found = await self._world.api.request("GET", group_path(GROUP))
            self._version = found["preferredVersion"]["version"]
        path = group_version_path(GROUP, self._version, self._namespace, "workloads")
        answer = await self._world.api.request("GET", path, query={"labelSelector": f"{JOB_UID}={job}"})
        return next(filter(None, map(held_back, answer["items"])), "")


def held_back(workload: Json) -> str:
    """Why a Workload is not admitted, in Kueue's words; empty if it does not say."""
    status = workload.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    reserved = conditions.get("QuotaReserved") or {}
    if reserved.get("status") != "True":
        # Kept up to date: after a preemption it says by whom, then what is missing.
        return str(reserved.get("message") or "")
    checks = (c for c in status.get("admissionChecks") or () if c.get("state") != "Ready")
    return "; ".join(f"{c['name']}: {c.get('message') or c.get('state')}" for c in checks)
