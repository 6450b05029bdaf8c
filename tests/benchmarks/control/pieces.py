"""The pieces of the benchmark: nodes, pods, EvalJobs, the raw loop, and a bystander who takes the times."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from evaljob import framing
from evaljob.names import LABEL_NAME
from tests.faults.case import evaljob
from tests.faults.history import condition
from tests.plane.client import MERGE, Client, Json
from tests.plane.kubelet import Fate, partition_of, scores

GPUS = 8
"""Simulated on each node."""
CONNECTIONS = 20
"""Of the raw loop, and the operator's own limit."""
FAILING = 0.02
"""Part of the partitions whose first attempt fails."""


class RunTimes:
    """Log-normal run times around a second, and some first attempts that fail; the same in each run."""

    def __init__(self) -> None:
        self._failed: set[str] = set()

    def __call__(self, pod: Json) -> Fate:
        """The fate of one pod."""
        labels = pod["metadata"]["labels"]
        partition, job = partition_of(pod), labels["batch.kubernetes.io/controller-uid"]
        rng = random.Random(str(partition))  # noqa: S311 - no secret
        seconds = rng.lognormvariate(0.0, 0.5)
        if rng.random() < FAILING and job not in self._failed:
            self._failed.add(job)
            return Fate(0.1, seconds, 75, "")
        return Fate(0.1, seconds, 0, framing.encode(scores(partition, pod["metadata"]["uid"])))


def shape(partitions: int) -> tuple[int, int]:
    """(models, datasets) whose product is about that number."""
    models = 1
    while models * models * 4 < partitions and models < 20:
        models += 1
    return models, -(-partitions // models)


def of_size(name: str, partitions: int) -> Json:
    """An EvalJob of about that many partitions, all at once."""
    models, datasets = shape(partitions)
    return evaljob(name, [f"d{n}" for n in range(datasets)], models, parallelism=models * datasets)


async def make_nodes(client: Client, count: int) -> None:
    """Nodes that nobody runs: the scheduler counts what they say."""
    room = {"cpu": "64", "memory": "512Gi", "pods": "250", "nvidia.com/gpu": str(GPUS)}
    for number in range(count):
        name = f"node-{number}"
        await client.request("POST", "/api/v1/nodes", {"metadata": {"name": name}})
        # An admission plugin taints new nodes until a controller, which does not run here, finds them ready.
        await client.request("PATCH", f"/api/v1/nodes/{name}", {"spec": {"taints": None}}, MERGE)
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": None}
        status = {"capacity": room, "allocatable": room, "conditions": [ready]}
        await client.request("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, MERGE)


async def create_all(client: Client, path: str, bodies: list[Json]) -> float:
    """The floor: create objects over 20 connections as fast as they are taken; seconds."""
    waiting = iter(bodies)
    started = time.monotonic()

    async def worker() -> None:
        for body in waiting:
            await client.request("POST", path, body)

    await asyncio.gather(*(worker() for _ in range(CONNECTIONS)))
    return time.monotonic() - started


@dataclass
class Progress:
    """What a run has come to, as a bystander's watches tell; times are monotonic, by EvalJob."""

    created: set[str] = field(default_factory=set)
    """Names of the Jobs that were made."""
    all_created_at: float = 0.0
    events: int = 0
    """Changes of Jobs and of ended pods: what an operator has to look at."""
    pods: set[str] = field(default_factory=set)
    pod_ended: dict[str, float] = field(default_factory=dict)
    """When its last pod ended."""
    jobs: set[str] = field(default_factory=set)
    job_ended: dict[str, float] = field(default_factory=dict)
    finished: dict[str, float] = field(default_factory=dict)
    collected: int = 0
    """Keys in the plain operator's ConfigMap."""


class Observer:
    """Watches a namespace for a `Progress`.

    Args:
        client: with the rights of an administrator.
        namespace: which.
        expected: how many Jobs there will be.
    """

    def __init__(self, client: Client, namespace: str, expected: int) -> None:
        self._client = client
        self._namespace = namespace
        self._expected = expected
        self.progress = Progress()

    async def run(self) -> None:
        """Watch until cancelled."""
        inside = f"/namespaces/{self._namespace}"
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(f"/apis/batch/v1{inside}/jobs", self._job))
            group.create_task(self._follow(f"/api/v1{inside}/pods", self._pod))
            group.create_task(self._follow(f"/api/v1{inside}/configmaps", self._config_map))
            group.create_task(self._follow(f"/apis/evaljob.dev/v1alpha1{inside}/evaljobs", self._evaljob))

    async def _follow(self, path: str, take: Callable[[Json], None]) -> None:
        async for change in self._client.follow(path):
            take(change.obj)

    def _job(self, job: Json) -> None:
        progress, meta = self.progress, job["metadata"]
        if LABEL_NAME not in meta.get("labels", ()):
            return  # somebody else's
        progress.events += 1
        progress.created.add(meta["name"])
        if not progress.all_created_at and len(progress.created) >= self._expected:
            progress.all_created_at = time.monotonic()
        if meta["name"] not in progress.jobs and (condition(job, "Complete") or condition(job, "Failed")):
            progress.jobs.add(meta["name"])
            progress.job_ended[meta["labels"][LABEL_NAME]] = time.monotonic()

    def _pod(self, pod: Json) -> None:
        progress, meta = self.progress, pod["metadata"]
        if pod["status"].get("phase") not in ("Succeeded", "Failed"):
            return
        progress.events += 1
        if meta["uid"] not in progress.pods:
            progress.pods.add(meta["uid"])
            progress.pod_ended[meta["labels"][LABEL_NAME]] = time.monotonic()

    def _config_map(self, config_map: Json) -> None:
        if config_map["metadata"]["name"].endswith("-results"):
            self.progress.collected = len(config_map.get("data") or ())

    def _evaljob(self, evaljob_: Json) -> None:
        if condition(evaljob_, "Finished"):
            self.progress.finished.setdefault(evaljob_["metadata"]["name"], time.monotonic())


@contextlib.asynccontextmanager
async def observed(client: Client, namespace: str, expected: int) -> AsyncIterator[Progress]:
    """A namespace's progress for the time of the block."""
    observer = Observer(client, namespace, expected)
    task = asyncio.create_task(observer.run())
    try:
        yield observer.progress
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(what: Callable[[], object], seconds: float) -> None:
    """Look a few times a second.

    Raises:
        TimeoutError: the time is up.
    """
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {max(seconds, 0):.0f} s")
        await asyncio.sleep(0.05)
