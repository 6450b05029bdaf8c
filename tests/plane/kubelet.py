"""The part of a kubelet and its runner that the operator can see: pods start, end and leave a message.

KWOK was the plan. It cannot play this part: a result names its pod's uid under a CRC-32, and KWOK's stages are Go
templates with sprig's functions, which have SHA-256 and Adler-32 but no CRC-32. A second writer beside KWOK would do
what this file does. The price is small: 4 ms of processor time per pod, beside 64 ms in the API server.
"""

import asyncio
import dataclasses
import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from evaljob import framing, result
from evaljob.names import LABEL_DATASET, LABEL_MANAGED_BY, LABEL_MODEL, LABEL_SHARD, MANAGED_BY
from evaljob.plan import Partition
from evaljob.result import MetricInfo, Outcomes, PartitionResult, Seconds, SubsetResult
from evaljob.stats import Stat
from tests.plane.client import MERGE, Change, Client, Json


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one pod.

    Attributes:
        starts: Seconds until it runs.
        runs: Seconds until it ends.
        exit_code: 0: it succeeds.
        message: Its termination message.
        reason: Of a container that failed.
        disrupted: It was evicted: the Job does not count it.
    """

    starts: float
    runs: float
    exit_code: int
    message: str
    reason: str = "Error"
    disrupted: bool = False


def partition_of(pod: Json) -> Partition:
    """Which partition a pod or Job of ours is, by its labels."""
    labels = pod["metadata"]["labels"]
    shard, _, shards = labels[LABEL_SHARD].partition("-of-")
    return Partition(
        model=labels[LABEL_MODEL], dataset=labels[LABEL_DATASET], shard=int(shard), shards=int(shards)
    )


def scores(partition: Partition, attempt: str) -> PartitionResult:
    """A valid result that differs from partition to partition and not from attempt to attempt."""
    right = sum(map(ord, f"{partition.model}/{partition.dataset}")) % 5
    return PartitionResult(
        **dataclasses.asdict(partition),
        attempt=attempt,
        inference_digest="d" * 64,
        prompt_digest="p" * 64,
        metrics=(MetricInfo(key="contains", primary=True),),
        subsets=(SubsetResult(name="", size=4, expected=4, stats=(Stat(4, right, right),)),),
        outcomes=Outcomes(expected=4, completed=4, answered=4),
        seconds=Seconds(start=1.0, load=2.0, infer=3.0, score=0.0),
        device="cpu",
    )


def at_once(pod: Json) -> Fate:
    """All succeed within moments, but datasets called `bad...` say that no retry will help."""
    partition, uid = partition_of(pod), pod["metadata"]["uid"]
    if partition.dataset.startswith("bad"):
        return Fate(0.05, 0.1, 78, framing.encode(result.failure("BadData", "line 3 is broken", uid)))
    return Fate(0.05, 0.1, 0, framing.encode(scores(partition, uid)))


class Kubelet:
    """Plays all pods of ours in all namespaces.

    Args:
        client: with the rights of an administrator.
        fate: what becomes of a pod, decided when it is first seen.
        bound: Wait until a scheduler has bound the pod.
    """

    def __init__(
        self, client: Client, fate: Callable[[Json], Fate] = at_once, *, bound: bool = False
    ) -> None:
        self._client = client
        self._fate = fate
        self._bound = bound
        self._lives: dict[str, asyncio.Task[None]] = {}
        self.ended_at: dict[str, float] = {}
        """When each pod's end was written, by the loop's clock, by uid."""

    async def run(self) -> None:
        """Play until cancelled."""
        selector = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
        try:
            async for change in self._client.follow("/api/v1/pods", labelSelector=selector):
                self._see(change)
        finally:
            for life in self._lives.values():
                life.cancel()

    def _see(self, change: Change) -> None:
        pod = change.obj
        uid = pod["metadata"]["uid"]
        going = "deletionTimestamp" in pod["metadata"]
        if change.type == "DELETED" or going:
            if life := self._lives.pop(uid, None):
                life.cancel()
            if going and pod["spec"].get("nodeName"):
                self._lives[uid] = asyncio.create_task(self._remove(pod))
        elif uid not in self._lives and (pod["spec"].get("nodeName") or not self._bound):
            self._lives[uid] = asyncio.create_task(self._live(pod))

    async def _live(self, pod: Json) -> None:
        phase = pod["status"].get("phase", "Pending")
        if phase in ("Succeeded", "Failed"):
            return
        fate = self._fate(pod)
        started = _now()
        if phase == "Pending":
            await asyncio.sleep(fate.starts)
            running = {"state": {"running": {"startedAt": started}}, "ready": True}
            await self._patch(pod, "Running", started, running)
        await asyncio.sleep(fate.runs)
        ended = {
            "exitCode": fate.exit_code,
            "reason": fate.reason if fate.exit_code else "Completed",
            "message": fate.message,
            "startedAt": started,
            "finishedAt": _now(),
        }
        end = "Failed" if fate.exit_code else "Succeeded"
        container = {"state": {"terminated": ended}, "ready": False}
        await self._patch(pod, end, started, container, disrupted=fate.disrupted)
        self.ended_at[pod["metadata"]["uid"]] = asyncio.get_running_loop().time()

    async def _patch(
        self, pod: Json, phase: str, started: str, container: Json, *, disrupted: bool = False
    ) -> None:
        conditions = [{"type": "Ready", "status": str(container["ready"]), "lastTransitionTime": _now()}]
        if disrupted:
            conditions.append({"type": "DisruptionTarget", "status": "True", "lastTransitionTime": _now()})
        whole = {"name": "runner", "image": "none", "imageID": "", "restartCount": 0, **container}
        status = {
            "phase": phase,
            "startTime": started,
            "conditions": conditions,
            "containerStatuses": [whole],
        }
        await self._client.insist("PATCH", f"{_path(pod)}/status", {"status": status}, MERGE)

    async def _remove(self, pod: Json) -> None:
        """A kubelet confirms the end of a pod that is being deleted."""
        await self._client.insist("DELETE", _path(pod), {"gracePeriodSeconds": 0})


def _path(pod: Json) -> str:
    meta = pod["metadata"]
    return f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
