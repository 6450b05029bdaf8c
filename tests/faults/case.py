"""One case: a small EvalJob, an operator, one fault; then the end state and all that happened on the way."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from evaljob import framing
from evaljob.framing import InvalidResultError
from evaljob.names import LABEL_NAME, summary_name
from tests.faults.fates import Fates
from tests.faults.history import Recorder, condition, partition_key, record_of, violations
from tests.faults.proxy import Proxy, RequestPlan, WatchPlan
from tests.plane.client import Client, Json
from tests.plane.kubelet import Kubelet
from tests.plane.operatorprocess import OperatorProcess
from tests.plane.plane import ADMIN, Plane
from tests.plane.warm import WarmOperator, warm_up

NAME = "run"
LIMIT = 60.0
"""Seconds within which a case must be where the reference run ended, once its fault is over."""
QUIET = 1.5
"""Seconds without a write that count as converged."""
_VOLATILE = frozenset({"startTime", "completionTime", "lastTransitionTime"})


@dataclass
class Lab:
    """A plane with everything that plays a part beside the operator."""

    plane: Plane
    client: Client
    recorder: Recorder
    kubelet: Kubelet


@contextlib.asynccontextmanager
async def lab(plane: Plane) -> AsyncIterator[Lab]:
    """Pods are played, and changes recorded, for the time of the block."""
    await asyncio.to_thread(warm_up)
    async with Client(plane, ADMIN) as client:
        recorder, kubelet = Recorder(client), Kubelet(client, Fates())
        tasks = [asyncio.create_task(recorder.run()), asyncio.create_task(kubelet.run())]
        try:
            yield Lab(plane, client, recorder, kubelet)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if error is not None and not isinstance(error, asyncio.CancelledError):
                raise error


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    name: str
    converged: bool
    seconds: float
    """From the fault's end, or the start without one, to the end state."""
    requests: int
    fired: bool
    violations: list[str] = field(default_factory=list)
    end: Json = field(default_factory=dict)

    def explain(self) -> str:
        """One line."""
        state = "converged" if self.converged else "NOT CONVERGED"
        fired = "" if self.fired else ", fault not reached"
        broken = f", VIOLATIONS {self.violations}" if self.violations else ""
        return f"{self.name}: {state} in {self.seconds:.1f} s, {self.requests} requests{fired}{broken}"


async def turns(seconds: float) -> AsyncIterator[None]:
    """Ten a second, for so long by this process' own reckoning.

    On an overloaded machine a turn takes longer: this process waits for its processor as those that it waits for do.
    """
    for _ in range(int(10 * seconds)):
        yield
        await asyncio.sleep(0.1)


def evaljob(name: str, datasets: list[str], models: int = 1, **spec: object) -> Json:
    """An EvalJob that needs nothing but pods."""
    task = {
        "requestType": "Generate",
        "prompt": "{{ question }}",
        "target": "{{ answer }}",
        "generation": {"maxTokens": 8},
        "metrics": [{"name": "contains", "primary": True}],
    }
    inline = {"jsonl": json.dumps({"question": "6 x 7?", "answer": "42"})}
    served = {"url": "http://nowhere/v1", "model": "stub"}
    resources = {"limits": {"nvidia.com/gpu": "1", "memory": "256Mi"}, "requests": {"cpu": "10m"}}
    return {
        "apiVersion": "evaljob.dev/v1alpha1",
        "kind": "EvalJob",
        "metadata": {"name": name},
        "spec": {
            "models": [
                {
                    "name": f"m{i}",
                    "promptFormat": "Chat",
                    "openai": served,
                    "runner": {"resources": resources},
                }
                for i in range(models)
            ],
            "datasets": [{"name": d, "taskSpec": task, "inline": inline} for d in datasets],
            **spec,
        },
    }


def bystander() -> Json:
    """A Job that carries our labels and belongs to somebody else: it must not be touched."""
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "elsewhere", "uid": "0", "controller": True}
    labels = {"app.kubernetes.io/managed-by": "evaljob", "evaljob.dev/name": NAME}
    container = {"name": "c", "image": "none"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "bystander", "labels": labels, "finalizers": ["evaljob.dev/test"]},
        "spec": {
            "suspend": True,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container]}},
        },
        "owner": owner,
    }


class Case:
    """See the module. The methods are steps that a test puts in order.

    Args:
        lab: where.
        namespace: of its own, with the operator's rights in it.
        plan: the fault.
        proxy: further arguments of the proxy.
    """

    def __init__(
        self,
        lab: Lab,
        namespace: str,
        plan: RequestPlan | WatchPlan | None = None,
        **proxy: Any,  # noqa: ANN401
    ) -> None:
        self.lab, self.namespace, self.plan = lab, namespace, plan
        self.proxy = Proxy(lab.plane, plan, self.kill, **proxy)
        self.operator: OperatorProcess | None = None
        self.history = lab.recorder.of(namespace)
        self.kills = 0

    def kill(self) -> None:
        """`kill -9` of the operator; its supervisor starts it again."""
        self.kills += 1
        if self.operator is not None:
            self.operator.kill()

    @contextlib.asynccontextmanager
    async def running(self, *, replicas: int = 1) -> AsyncIterator[None]:
        """The operator runs behind the proxy for the time of the block."""
        async with self.proxy:
            made = [
                WarmOperator(self.lab.plane, [self.namespace], f"{self.namespace}-{i}", self.proxy.address)
                for i in range(replicas)
            ]
            self.operator = made[0]
            tasks = [asyncio.create_task(process.supervise()) for process in made]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def path(self, kind: str, name: str = "") -> str:
        """Of an object in the case's namespace."""
        prefix = {"evaljobs": "/apis/evaljob.dev/v1alpha1", "jobs": "/apis/batch/v1"}.get(kind, "/api/v1")
        return f"{prefix}/namespaces/{self.namespace}/{kind}" + (f"/{name}" if name else "")

    async def submit(self, body: Json) -> Json:
        """Create an EvalJob."""
        return await self.lab.client.request("POST", self.path("evaljobs"), body)

    async def plant_bystander(self) -> None:
        """Put a Job into the namespace that looks like ours and is not."""
        body = bystander()
        del body["owner"]
        await self.lab.client.request("POST", self.path("jobs"), body)

    @property
    def latest(self) -> Json | None:
        """The EvalJob as it was seen last."""
        changes = list(self.history.of("EvalJob"))
        return changes[-1].obj if changes and changes[-1].type != "DELETED" else None

    def jobs(self, evaljob: str = NAME) -> list[Json]:
        """The Jobs of an EvalJob that are there, as they were seen last: looking costs the API server nothing."""
        return [j for j in self.history.present("Job") if j["metadata"]["labels"][LABEL_NAME] == evaljob]

    @property
    def finished(self) -> bool:
        """Whether it has come to its end."""
        return self.latest is not None and condition(self.latest, "Finished")

    def ready(self) -> bool:
        """Whether the operator that was started last has made its first lists."""
        return self.operator is not None and self.operator.ready()

    def watching(self) -> bool:
        """Whether it watches all that it lists."""
        return len(self.proxy.watched) == 3

    async def until(self, what: Callable[[], bool], seconds: float = LIMIT) -> bool:
        """Look ten times a second; False when the time is up."""
        async for _ in turns(seconds):
            if what():
                return True
        return False

    def quiet(self) -> bool:
        """Whether nothing has been written for a while, by an operator that is there."""
        writes = [s.at for s in self.proxy.seen if s.write]
        return self.finished and self.ready() and bool(writes) and time.monotonic() - writes[-1] > QUIET

    async def outcome(self, name: str, started: float, reference: Json | None = None) -> Outcome:
        """Wait for the end, compare it, and check what happened on the way."""
        lasts = self.plan.lasts if self.plan else 0.0
        done = await self.until(self.quiet, LIMIT + QUIET + lasts)
        seconds = self._last_write() - max(self.proxy.fired_at or started, started) - lasts
        end = await self.end_state()
        broken = violations(self.history) + self._touched_bystander()
        same = reference is None or end == reference
        if done and not same:
            broken.append(f"another end state: {difference(reference or {}, end)}")
        fired = self.plan is None or self.proxy.fired_at is not None
        return Outcome(name, done and same, max(seconds, 0.0), len(self.proxy.seen), fired, broken, end)

    def _last_write(self) -> float:
        return max((s.at for s in self.proxy.seen if s.write), default=0.0)

    def _touched_bystander(self) -> list[str]:
        """I8: no write to an object of somebody else."""
        return [f"I8: {s.method} {s.path}" for s in self.proxy.seen if s.write and "/bystander" in s.path]

    async def end_state(self) -> Json:
        """Status, summary, Jobs and records, without what differs from run to run."""
        client = self.lab.client
        body = await client.get(self.path("evaljobs", NAME))
        if body is None:
            return {}
        uid = body["metadata"]["uid"]
        summary = await client.get(self.path("configmaps", summary_name(NAME)))
        jobs = await client.request("GET", self.path("jobs"))
        own = [j for j in jobs["items"] if j["metadata"]["name"] != "bystander"]
        return {
            "status": _steady(body.get("status")),
            "summary": {k: v.replace(uid, "UID") for k, v in ((summary or {}).get("data") or {}).items()},
            "jobs": {"/".join(partition_key(j)[1:]): _job(j) for j in own},
            "names": len({j["metadata"]["name"] for j in own}),
        }


def _steady(value: Any) -> Any:  # noqa: ANN401 - JSON
    """JSON without times."""
    if isinstance(value, dict):
        return {k: _steady(v) for k, v in value.items() if k not in _VOLATILE}
    return [_steady(v) for v in value] if isinstance(value, list) else value


def _job(job: Json) -> Json:
    ends = [kind for kind in ("Complete", "Failed") if condition(job, kind)]
    text = record_of(job)
    if text is None:
        return {"ends": ends, "record": None}
    try:
        record = framing.decode(text).model_dump(mode="json", exclude={"attempt"})
    except InvalidResultError as error:
        return {"ends": ends, "record": str(error)}
    return {"ends": ends, "record": record}


def difference(wanted: Json, found: Json) -> str:
    """The parts of two end states that are not equal, shortened."""
    parts = [k for k in wanted if wanted[k] != found.get(k)]
    return "; ".join(f"{k}: {json.dumps(found.get(k))[:600]}" for k in parts) or "nothing was there"
