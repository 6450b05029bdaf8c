"""Whatever goes wrong between the operator and the API server, the end is the same, and nothing is doubled."""

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from prometheus_client import generate_latest

from evaljob import framing, plan
from evaljob.names import ANNOTATION_RESULT, ANNOTATION_RETRY, job_name, plan_name
from evaljob.planning import Settings
from evaljob.status import PartitionCounts
from evaljob.views import PodView
from evaljob_operator.api import (
    ApiError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    Json,
    TooManyRequestsError,
    UnreachableError,
)
from evaljob_operator.backoff import Backoff
from evaljob_operator.informer import Informers, informers
from evaljob_operator.metrics import Metrics
from evaljob_operator.registry import Registry
from evaljob_operator.world import Timing, World
from evaljob_operator.writer import AT_ONCE
from tests.unit.builders import (
    NOW,
    SETTINGS,
    UID,
    Document,
    dataset,
    document,
    failure_text,
    later,
    model,
    scored,
)
from tests.unit.fakeapi import CREATED, FakeApi

NS = "/namespaces/evals"
EVALJOB = f"/apis/evaljob.dev/v1alpha1{NS}/evaljobs/nightly"
JOBS = f"/apis/batch/v1{NS}/jobs"
CONFIG_MAPS = f"/api/v1{NS}/configmaps"
PODS = f"/api/v1{NS}/pods"
PLAN = plan_name("nightly", UID)
QUICK = Timing(0.001, 0.01, 0.01, 0.01, 10.0, 300.0, 0.01, (0.001, 0.01))


class Stage:
    """An operator in front of an API server in memory, and a hand that plays kubelet and user."""

    def __init__(self, settings: Settings = SETTINGS, timing: Timing = QUICK) -> None:
        self.api = FakeApi()
        self.now = NOW
        self._settings, self._timing = settings, timing
        self.metrics = Metrics()
        self._tasks: list[asyncio.Task[None]] = []
        self._registry = Registry()
        self._informers: dict[str, Informers] = {}

    async def start(self, settings: Settings | None = None) -> None:
        """A new operator process, which sees the EvalJobs that are there."""
        self._registry = registry = Registry()
        self._informers = watched = {
            "evals": informers(self.api, "evals", registry.waker("evals"), lambda: Backoff(lambda: 0.0))
        }
        both = (watched["evals"].jobs, watched["evals"].pods)
        self._tasks = [asyncio.create_task(i.run()) for i in both]
        await asyncio.gather(*(i.ready.wait() for i in both))
        world = World(
            api=self.api,
            informers=watched,
            catalogue={},
            settings=settings or self._settings,
            now=lambda: self.now,
            monotonic=asyncio.get_running_loop().time,
            random=lambda: 0.0,
            timing=self._timing,
            metrics=self.metrics,
        )
        registry.open(world)
        self._tasks.append(asyncio.create_task(self._watch(registry)))

    async def _watch(self, registry: Registry) -> None:
        collection = EVALJOB.rsplit("/", 1)[0]
        watch = self.api.watch(collection, {})
        for body in self.api.of("evaljobs").values():
            registry.seen(body)
        async for batch in watch:
            for event in batch:
                (registry.gone if event["type"] == "DELETED" else registry.seen)(event["object"])

    async def kill(self) -> None:
        """The process is gone from one moment to the next."""
        self._registry.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def wake(self) -> None:
        """As an event of one of its objects does."""
        self._registry.waker("evals")("nightly")

    def submit(self, body: Json | None = None) -> None:
        body = body or document()
        self.api.put(f"{EVALJOB.rsplit('/', 1)[0]}/{body['metadata']['name']}", body)

    def change(self, **spec: object) -> None:
        """As a user changes the spec."""
        body = self.evaljob()
        self.api.put(EVALJOB, {**body, "spec": {**body["spec"], **spec}})

    def ask_for_retry(self, value: str) -> None:
        """As `evaljob retry-failed` does."""
        body = self.evaljob()
        meta = {**body["metadata"], "annotations": {ANNOTATION_RETRY: value}}
        self.api.put(EVALJOB, {**body, "metadata": meta})

    def evaljob(self, name: str = "nightly") -> Json:
        return self.api.of("evaljobs")[name]

    def pods(self) -> Mapping[str, PodView]:
        """Those that the operator holds in memory."""
        return self._informers["evals"].pods.of("nightly")

    def counts(self) -> list[tuple[str, PartitionCounts]]:
        """As the metrics show them."""
        return self._registry.counts()

    def status(self) -> Json:
        """Empty before the first write."""
        found: Json = self.evaljob().get("status", {})
        return found

    def condition(self, kind: str) -> Json | None:
        found = self.evaljob().get("status", {}).get("conditions", [])
        return next((c for c in found if c["type"] == kind), None)

    def reason_of(self, kind: str) -> str:
        """Of a condition; empty before it is there."""
        return str((self.condition(kind) or {"reason": ""})["reason"])

    def finished(self, name: str = "nightly") -> bool:
        conditions = self.evaljob(name).get("status", {}).get("conditions", [])
        return any(c["type"] == "Finished" and c["status"] == "True" for c in conditions)

    def run_job(self, name: str) -> None:
        """Kubernetes runs a Job to its end, successfully."""
        labels = self.api.of("jobs")[name]["metadata"]["labels"]
        shard, shards = map(int, labels["evaljob.dev/shard"].split("-of-"))
        part = plan.Partition(
            model=labels["evaljob.dev/model"],
            dataset=labels["evaljob.dev/dataset"],
            shard=shard,
            shards=shards,
        )
        self._end_job(name, "Succeeded", 0, framing.encode(scored(part, attempt=f"pod-{name}")))

    def fail_job(self, name: str) -> None:
        """Its one pod says that there is no use in trying again."""
        self._end_job(name, "Failed", 78, failure_text())

    def _end_job(self, name: str, phase: str, code: int, message: str) -> None:
        job = self.api.of("jobs")[name]
        labels, uid = job["metadata"]["labels"], job["metadata"]["uid"]
        ended = {"name": "runner", "state": {"terminated": {"exitCode": code, "message": message}}}
        owner = {
            "batch.kubernetes.io/controller-uid": uid,
            "batch.kubernetes.io/job-name": name,
        }
        pod = {
            "metadata": {"name": f"{name}-0", "uid": f"pod-{name}", "labels": labels | owner},
            "status": {"phase": phase, "containerStatuses": [ended]},
        }
        self.api.put(f"{PODS}/{name}-0", pod)
        kind = "Complete" if phase == "Succeeded" else "Failed"
        over = {"type": kind, "status": "True", "lastTransitionTime": CREATED}
        status = {"startTime": CREATED, phase.lower(): 1, "conditions": [over]}
        self.api.put(f"{JOBS}/{name}", {**job, "status": status})

    async def until(self, condition: Callable[[], object], seconds: float = 5.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"still not; status {self.evaljob().get('status')}"
            await asyncio.sleep(0.002)

    async def to_the_end(self, name: str = "nightly") -> None:
        """Run every Job that appears until the EvalJob is finished."""

        def step() -> bool:
            for job, body in self.api.of("jobs").items():
                if "status" not in body:
                    self.run_job(job)
            return self.finished(name)

        await self.until(step)

    async def settle(self) -> None:
        """Time for many passes."""
        await asyncio.sleep(0.05)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    yield made
    await made.kill()


FINISHED = {
    "type": "Finished",
    "status": "True",
    "reason": "AllPartitionsSucceeded",
    "lastTransitionTime": "2026-03-01T13:00:00Z",
}
NO_RIGHT = 'jobs.batch is forbidden: User "system:serviceaccount:x:evaljob" cannot create resource "jobs"'
QUOTA = 'jobs.batch "x" is forbidden: exceeded quota: few, requested: count/jobs.batch=1'
POLICY = 'admission webhook "policy.example.com" denied the request: no team label'


def forbidden(message: str = NO_RIGHT, cause: str = "") -> ForbiddenError:
    return ForbiddenError(403, "Forbidden", message, cause)


def two_shards() -> Document:
    return document(datasets=[dataset(shards=2)])


def queued(body: Document) -> Document:
    """The same in a queue of Kueue's."""
    body["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "gpu"}
    return body


async def test_pods_are_forgotten_once_their_outcome_is_on_record(stage: Stage) -> None:
    """10,000 of them with their messages take 13 MiB."""
    stage.submit(two_shards())
    await stage.start()
    await stage.until(lambda: len(stage.api.of("jobs")) == 2)
    stage.run_job(next(iter(stage.api.of("jobs"))))
    await stage.until(lambda: stage.status().get("partitions", {}).get("succeeded") == 1)
    stage.wake()
    await stage.until(lambda: not stage.pods())
    await stage.to_the_end()


async def test_an_evaljob_runs_to_its_summary(stage: Stage) -> None:
    stage.submit(two_shards())
    await stage.start()
    await stage.to_the_end()
    assert len(stage.api.of("jobs")) == 2
    assert stage.evaljob()["status"]["state"] == "Complete"
    assert set(stage.api.of("configmaps")["nightly-summary"]["data"]) == {
        "format",
        "summary.json",
        "summary.csv",
        "summary.md",
    }
    reasons = [e["reason"] for e in stage.api.of("events").values()]
    assert reasons == ["Accepted", "AllPartitionsSucceeded"]


async def test_a_summary_that_grew_too_large_for_files_is_compressed_in_their_place(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.submit(document(datasets=[dataset(shards=2)], parallelism=1))
    await stage.start()
    await stage.until(lambda: stage.api.of("jobs"))
    stage.run_job(*stage.api.of("jobs"))
    await stage.until(lambda: "nightly-summary" in stage.api.of("configmaps"))
    monkeypatch.setattr("evaljob.packing.BYTES_MAX", 1000)
    await stage.to_the_end()
    summary = stage.api.of("configmaps")["nightly-summary"]
    assert summary["data"] == {"format": "Gzip"}
    assert set(summary["binaryData"]) == {"summary.json.gz"}


async def test_a_run_is_counted_and_logged(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    stage.submit(two_shards())
    await stage.start()
    await stage.until(lambda: ("evals", PartitionCounts(total=2, pending=2)) in stage.counts())
    await stage.to_the_end()
    await stage.settle()
    text = generate_latest(stage.metrics.registry).decode()
    assert "evaljob_jobs_created_total 2.0" in text
    assert 'evaljob_partitions_recorded_total{outcome="Succeeded"} 2.0' in text
    assert 'evaljob_gpu_seconds_total{phase="infer"} 0.0' in text
    assert "evaljob_reconcile_seconds_count 0.0" not in text
    told = [(r.message, r.partition) for r in caplog.records if hasattr(r, "partition")]
    assert told == [("Succeeded", "m/d 0/2"), ("Succeeded", "m/d 1/2")]
    assert stage.counts() == [("evals", PartitionCounts())]


async def test_each_partition_costs_two_writes(stage: Stage) -> None:
    stage.submit(two_shards())
    await stage.start()
    await stage.to_the_end()
    assert sum("/jobs" in write for write in stage.api.writes) == 4


async def test_the_last_record_and_the_end_take_one_pass() -> None:
    stage = Stage(timing=dataclasses.replace(QUICK, between_passes=0.4))
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.api.of("jobs"))
    job = next(iter(stage.api.of("jobs")))
    stage.run_job(job)
    await stage.until(lambda: f"PATCH {JOBS}/{job}" in stage.api.writes)
    await asyncio.wait_for(stage.until(stage.finished), 0.2)
    await stage.kill()


async def test_a_new_process_finds_nothing_left_to_do(stage: Stage) -> None:
    stage.submit()
    await stage.start()
    await stage.to_the_end()
    await stage.kill()
    stage.api.writes.clear()
    await stage.start()
    await stage.settle()
    assert stage.api.writes == []


async def test_a_run_in_progress_that_stands_still_is_not_written_to(stage: Stage) -> None:
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.status().get("state"))
    await stage.settle()
    await stage.kill()
    stage.api.writes.clear()
    await stage.start()
    await stage.settle()
    assert stage.api.writes == []


@pytest.mark.parametrize("crash_after", range(1, 12))
async def test_a_process_killed_after_any_write_is_made_good_by_the_next(
    stage: Stage, crash_after: int
) -> None:
    stage.submit(two_shards())
    await stage.start()
    ended = asyncio.create_task(stage.to_the_end())
    await stage.until(lambda: len(stage.api.writes) >= crash_after or stage.finished())
    await stage.kill()
    await stage.start()
    await ended
    await stage.settle()
    assert len(stage.api.of("jobs")) == 2
    assert all(ANNOTATION_RESULT in j["metadata"]["annotations"] for j in stage.api.of("jobs").values())
    assert "2 of 2" in stage.api.of("configmaps")["nightly-summary"]["data"]["summary.md"]


@pytest.mark.parametrize(
    "request_",
    [
        f"POST {CONFIG_MAPS}",
        f"POST {JOBS}",
        f"PATCH {JOBS}/",
        f"PATCH {EVALJOB}/status",
        f"PATCH {CONFIG_MAPS}/nightly-summary",
        f"GET {CONFIG_MAPS}/{PLAN}",
        f"GET {EVALJOB}",
        f"POST /api/v1{NS}/events",
    ],
)
@pytest.mark.parametrize(
    "error",
    [
        UnreachableError("reset by peer"),
        TooManyRequestsError(429, "TooManyRequests", "slow down"),
        ApiError(500, "InternalError", "etcd"),
    ],
    ids=["answer lost", "429", "500"],
)
async def test_a_failing_request_delays_and_never_doubles(
    stage: Stage, request_: str, error: ApiError
) -> None:
    if isinstance(error, TooManyRequestsError):
        error.retry_after = 0.001
    stage.api.faults = [(request_, error)]
    stage.submit(two_shards())
    await stage.start()
    await stage.to_the_end()
    assert stage.evaljob()["status"]["progress"] == "2/2"
    assert len(stage.api.of("jobs")) == 2
    assert sum(w.startswith(f"PATCH {JOBS}/") for w in stage.api.writes) <= 3


async def test_a_job_whose_creation_was_not_heard_of_is_adopted(stage: Stage) -> None:
    """The answer was lost, and the watch is late: the second attempt meets the Job of the first."""
    stage.api.faults = [(f"POST {JOBS}", UnreachableError("reset by peer"))]
    stage.submit()
    stage.api.late = True
    await stage.start()
    await stage.until(lambda: f"GET {JOBS}/" in " ".join(stage.api.reads))
    await stage.settle()
    assert sum(write == f"POST {JOBS}" for write in stage.api.writes) == 2
    stage.api.late = False
    await stage.to_the_end()
    assert len(stage.api.of("jobs")) == 1


async def test_a_record_that_meets_another_job_is_decided_anew(stage: Stage) -> None:
    """422: deleted and made again between our look and our write, and a uid is immutable."""
    stage.api.faults = [(f"PATCH {JOBS}/", InvalidError(422, "Invalid", "metadata.uid: Invalid value"))]
    stage.submit()
    await stage.start()
    await stage.to_the_end()
    assert stage.evaljob()["status"]["state"] == "Complete"


async def test_a_missing_right_is_said_and_healed(stage: Stage) -> None:
    stage.api.faults = [(f"POST {JOBS}", forbidden())] * 3
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.condition("Accepted") and not stage.api.faults)
    await stage.to_the_end()
    reasons = [e["reason"] for e in stage.api.of("events").values()]
    assert reasons[0] == "PermissionDenied"
    accepted = stage.condition("Accepted")
    assert accepted is not None
    assert accepted["status"] == "True"


async def test_a_denied_operator_says_so_once(stage: Stage) -> None:
    stage.api.faults = [(f"POST {JOBS}", forbidden())] * 200
    stage.submit()
    await stage.start()
    await stage.until(lambda: len(stage.api.faults) < 195)
    condition = stage.condition("Accepted")
    assert condition is not None
    assert (condition["status"], condition["reason"]) == ("False", "PermissionDenied")
    assert 'cannot create resource "jobs"' in condition["message"]
    assert sum("/status" in write for write in stage.api.writes) == 1


CONFIG_MAP_QUOTA = 'configmaps "x" is forbidden: exceeded quota: few, requested: count/configmaps=1'
IMMUTABLE = "data: Forbidden: field is immutable when `immutable` is set"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (forbidden(CONFIG_MAP_QUOTA), "QuotaExceeded"),
        (forbidden(POLICY), "AdmissionDenied"),
        (InvalidError(422, "Invalid", IMMUTABLE), "AdmissionDenied"),
    ],
)
async def test_a_plan_that_is_refused_is_told_and_waited_for(
    stage: Stage, error: ApiError, reason: str
) -> None:
    stage.api.faults = [(f"POST {CONFIG_MAPS}", error)] * 5
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.condition("Accepted"))
    accepted = stage.condition("Accepted")
    assert accepted is not None
    assert (accepted["status"], accepted["reason"], accepted["message"]) == ("False", reason, str(error))
    await stage.to_the_end()
    assert not stage.api.faults
    events = [e["reason"] for e in stage.api.of("events").values()]
    assert events == [reason, "Accepted", "AllPartitionsSucceeded"]


class Refusing(FakeApi):
    """Takes no ConfigMap but plans while `error` is set."""

    error: ApiError | None = None

    async def request(self, method: str, path: str, **rest: Any) -> Json:  # noqa: ANN401 - as FakeApi has it
        about = (rest.get("body") or {}) if method == "POST" else {"metadata": {"name": path}}
        if (
            method != "GET"
            and "configmaps" in path
            and "-plan-" not in about["metadata"]["name"]
            and self.error
        ):
            raise self.error
        return await super().request(method, path, **rest)


async def test_a_summary_that_is_refused_holds_up_only_the_end(stage: Stage) -> None:
    stage.api = api = Refusing()
    api.error = forbidden(CONFIG_MAP_QUOTA)
    stage.submit(document(datasets=[dataset(shards=3)], parallelism=1))
    await stage.start()
    for count in range(1, 4):
        await stage.until(lambda: len(api.of("jobs")) == count)  # noqa: B023 - awaited here
        stage.run_job(list(api.of("jobs"))[-1])
    await stage.until(lambda: stage.reason_of("Accepted") == "QuotaExceeded")
    await stage.settle()
    assert not stage.finished()
    assert [e["reason"] for e in api.of("events").values()] == ["Accepted", "QuotaExceeded"]
    api.error = None
    await stage.until(stage.finished)
    assert "nightly-summary" in api.of("configmaps")
    assert stage.reason_of("Accepted") == "Accepted"


async def test_in_mid_run_a_refused_summary_slows_nothing_down() -> None:
    """Nothing is waited for but the Jobs: no pass ends with an error."""
    stage = Stage(timing=dataclasses.replace(QUICK, backoff=(60.0, 60.0)))
    stage.api = api = Refusing()
    api.error = forbidden(CONFIG_MAP_QUOTA)
    stage.submit(document(datasets=[dataset(shards=3)], parallelism=1))
    await stage.start()
    for count in (1, 2, 3):
        await stage.until(lambda: len(api.of("jobs")) == count)  # noqa: B023 - awaited here
        if count < 3:
            stage.run_job(list(api.of("jobs"))[-1])
    await stage.until(lambda: stage.reason_of("Accepted") == "QuotaExceeded")
    await stage.until(lambda: stage.status()["progress"] == "2/3")
    api.error = None
    await stage.until(lambda: stage.reason_of("Accepted") == "Accepted")
    assert "nightly-summary" in api.of("configmaps")
    await stage.kill()


async def test_a_config_map_of_somebody_else_in_the_summary_s_place_is_told_and_the_jobs_stay(
    stage: Stage,
) -> None:
    stage.submit(document(datasets=[dataset(shards=2)], parallelism=1))
    await stage.start()
    await stage.until(lambda: len(stage.api.of("jobs")) == 1)
    theirs = stage.api.put(f"{CONFIG_MAPS}/nightly-summary", {"metadata": {}, "data": {"theirs": "1"}})
    stage.run_job(next(iter(stage.api.of("jobs"))))
    await stage.until(lambda: stage.reason_of("Accepted") == "NameCollision")
    assert stage.status().get("summary") is None
    await stage.until(lambda: len(stage.api.of("jobs")) == 2)
    stage.run_job(list(stage.api.of("jobs"))[-1])
    await stage.settle()
    stage.now = later(2 * 3600)
    stage.wake()
    await stage.settle()
    assert not stage.finished()
    assert len(stage.api.of("jobs")) == 2
    assert stage.api.of("configmaps")["nightly-summary"] == theirs
    stage.api.remove(f"{CONFIG_MAPS}/nightly-summary")
    await stage.until(stage.finished)
    assert stage.status()["summary"] == "nightly-summary"


class Watchless(FakeApi):
    """Ends watches of Jobs, and refuses lists and further watches, while `lost`."""

    lost = False

    async def each(self, path: str, query: Mapping[str, str], take: Callable[[Json], object]) -> Json:
        if self.lost and path == JOBS:
            raise forbidden(NO_LIST)
        return await super().each(path, query, take)

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[list[Json]]:
        if path != JOBS:
            async for batch in super().watch(path, query):
                yield batch
        if self.lost:
            raise forbidden(NO_LIST)
        yield [{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "99"}}}]
        while not self.lost:  # noqa: ASYNC110 - a test's own clock
            await asyncio.sleep(0.001)


NO_LIST = 'jobs.batch is forbidden: User "system:serviceaccount:x:evaljob" cannot list resource "jobs"'


async def test_a_right_to_look_that_is_lost_is_said_and_healed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaljob_operator.informer.REDIAL", 0.001)
    stage.api = api = Watchless()
    stage.submit()
    await stage.start()
    await stage.until(lambda: api.of("jobs"))
    api.lost = True
    await stage.until(lambda: stage.reason_of("Accepted") == "PermissionDenied")
    assert 'cannot list resource "jobs"' in (stage.condition("Accepted") or {})["message"]
    await stage.settle()
    assert sum("/status" in write for write in api.writes) == 2
    api.lost = False
    await stage.until(lambda: stage.reason_of("Accepted") == "Accepted")


async def test_a_right_that_is_missing_after_the_end_changes_nothing_that_was_told(stage: Stage) -> None:
    stage.submit()
    await stage.start()
    await stage.to_the_end()
    await stage.settle()
    told = stage.status()
    stage.api.faults = [(f"DELETE {JOBS}", forbidden())]
    stage.now = later(2 * 3600)
    stage.wake()
    await stage.until(lambda: not stage.api.faults)
    await stage.settle()
    assert stage.status() == told
    await stage.until(lambda: not stage.api.of("jobs"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (forbidden(QUOTA), "QuotaExceeded"),
        (forbidden(POLICY), "AdmissionDenied"),
        (ApiError(400, "BadRequest", POLICY), "AdmissionDenied"),
        (InvalidError(422, "Invalid", POLICY), "AdmissionDenied"),
    ],
    ids=["quota", "webhook", "webhook with 400", "policy"],
)
async def test_a_refused_job_is_told_and_one_is_tried_again_each_15_seconds(
    stage: Stage, error: ApiError, reason: str
) -> None:
    stage.api.faults = [(f"POST {JOBS}", error)] * 4
    stage.submit(document(datasets=[dataset(shards=3)]))
    await stage.start()
    await stage.until(lambda: stage.status().get("failures"))
    (failure,) = stage.evaljob()["status"]["failures"]
    assert (failure["partition"], failure["reason"]) == ("m/d 0/3", reason)
    assert failure["message"] == f"waiting: {error.message}"
    stage.wake()
    await stage.settle()
    assert stage.api.writes.count(f"POST {JOBS}") == 3
    stage.now = later(15)
    stage.wake()
    await stage.settle()
    assert stage.api.writes.count(f"POST {JOBS}") == 4
    stage.now = later(30)
    stage.wake()
    await stage.to_the_end()
    assert stage.evaljob()["status"]["state"] == "Complete"
    assert "PermissionDenied" not in [e["reason"] for e in stage.api.of("events").values()]


async def test_of_many_jobs_that_a_quota_refuses_few_are_tried(stage: Stage) -> None:
    """Each time that there was room for one Job, all the others were tried with it."""
    stage.submit(document([model("a"), model("b")], [dataset(shards=100)], parallelism=200))
    stage.api.faults = [(f"POST {JOBS}", forbidden(QUOTA))] * 400
    await stage.start()
    await stage.until(lambda: stage.status().get("failures"))
    await stage.settle()
    assert stage.api.writes.count(f"POST {JOBS}") <= 2 * AT_ONCE


async def test_a_model_that_is_refused_does_not_hold_up_the_others(stage: Stage) -> None:
    stage.api.faults = [(f"POST {JOBS}", forbidden(POLICY))]
    stage.submit(document([model("a"), model("b")], parallelism=1))
    await stage.start()
    await stage.until(lambda: stage.api.of("jobs"))
    (job,) = stage.api.of("jobs").values()
    assert job["metadata"]["labels"]["evaljob.dev/model"] == "b"


async def test_a_job_that_the_api_server_refuses_fails_its_partition_in_its_words(stage: Stage) -> None:
    stage.api.faults = [(f"POST {JOBS}", InvalidError(422, "Invalid", "requests: must be <= limits"))]
    stage.submit(two_shards())
    await stage.start()
    await stage.to_the_end()
    (failure,) = stage.evaljob()["status"]["failures"]
    assert failure["reason"] == "InvalidSpec"
    assert "requests: must be <= limits" in failure["message"]
    assert stage.evaljob()["status"]["partitions"]["succeeded"] == 1


async def test_a_namespace_that_goes_is_left_alone(stage: Stage) -> None:
    stage.api.faults = [(f"POST {JOBS}", forbidden("terminated", "NamespaceTerminating"))] * 50
    stage.submit()
    await stage.start()
    await stage.until(lambda: len(stage.api.faults) < 50)
    await stage.settle()
    accepted = stage.condition("Accepted")
    assert accepted is None or accepted["status"] == "True"


async def test_an_evaljob_that_went_before_its_first_job_gets_none(stage: Stage) -> None:
    """The watch still shows it; the one GET before the first write does not."""
    stage.submit()
    body = stage.evaljob()
    await stage.start()
    stage.api.objects.clear()
    stage.api.writes.clear()
    stage._registry.seen(body)  # noqa: SLF001 - a late event
    await stage.settle()
    assert stage.api.writes == []


async def test_a_late_status_of_a_deleted_evaljob_never_reaches_the_next_of_its_name(stage: Stage) -> None:
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.api.of("jobs"))
    stage.api.late = True
    body = document()
    body["metadata"] = {**body["metadata"], "uid": "another"}
    stage.api.put(EVALJOB, body)
    for job in list(stage.api.of("jobs")):
        stage.run_job(job)
    stage.wake()  # the old one's last pass
    await stage.settle()
    assert "status" not in stage.evaljob()
    stage.api.late = False


async def test_an_evaljob_whose_event_was_lost_is_found_by_looking_again(stage: Stage) -> None:
    await stage.start()
    stage.api.late = True
    stage.submit()
    await stage._registry.look_again(stage.api, "evals")  # noqa: SLF001 - the handler's timer
    await stage.until(lambda: stage.api.of("jobs"))
    stage.api.late = False


async def test_an_old_list_does_not_end_the_next_evaljob_of_a_name(stage: Stage) -> None:
    """Deleted and made again while all were looked at again, 50 at a time."""
    await stage.start()
    stage.submit()
    old = stage.evaljob()
    stage.api.remove(EVALJOB)
    body = document(datasets=[dataset(shards=2)], parallelism=1)
    body["metadata"] = {**body["metadata"], "uid": "another"}
    stage.submit(body)
    await stage.until(lambda: stage.api.of("jobs"))
    for stale in (old, {**old, "metadata": {**old["metadata"], "deletionTimestamp": CREATED}}):
        stage._registry.seen(stale)  # noqa: SLF001 - a page of that list
    await stage.to_the_end()
    assert stage.status()["progress"] == "2/2"


async def test_jobs_that_went_with_their_evaljob_are_not_made_again(stage: Stage) -> None:
    """The watch has not told of its deletion: it was broken off, and began anew when all was over."""
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.api.of("jobs"))
    await stage.settle()
    del stage.api.objects[EVALJOB]
    stage.api.writes.clear()
    for job in list(stage.api.of("jobs")):
        stage.api.remove(f"{JOBS}/{job}")
    await stage.settle()
    assert stage.api.writes == []


async def test_a_wish_that_comes_while_the_end_is_told_is_not_overwritten(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edit is newer than the answer to the status that had just been written."""
    request = stage.api.request

    async def edited(method: str, path: str, **rest: Any) -> Json:  # noqa: ANN401 - as the API has them
        if path.endswith("/events") and stage.finished():
            stage.ask_for_retry("1")
            await asyncio.sleep(0.01)
        return await request(method, path, **rest)

    monkeypatch.setattr(stage.api, "request", edited)
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.api.of("jobs"))
    (job,) = stage.api.of("jobs")
    stage.fail_job(job)
    await stage.until(lambda: stage.status().get("retried") == "1")


async def test_the_end_that_another_operator_has_written_stays(stage: Stage) -> None:
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.api.of("jobs") and stage.condition("Accepted"))
    theirs = {"state": "Complete", "conditions": [FINISHED], "completionTime": "2026-03-01T13:00:00Z"}
    unseen = {**stage.evaljob()["metadata"], "resourceVersion": "5000"}
    stage.api.objects[EVALJOB] = {**stage.evaljob(), "metadata": unseen, "status": theirs}
    for job in list(stage.api.of("jobs")):
        stage.run_job(job)
    await stage.settle()
    assert stage.evaljob()["status"] == theirs


async def test_after_a_deletion_nothing_is_written(stage: Stage) -> None:
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.api.of("jobs"))
    stage.api.remove(EVALJOB)
    await stage.settle()
    stage.api.writes.clear()
    for path in [p for p in stage.api.objects if "/jobs/" in p]:
        stage.api.remove(path)
    await stage.settle()
    assert stage.api.writes == []


def old_owner() -> Json:
    return {"kind": "EvalJob", "name": "nightly", "uid": "an-older-one", "controller": True}


async def test_a_re_created_evaljob_runs_beside_what_is_left_of_its_predecessor(stage: Stage) -> None:
    """Only the summary has the same name: its first write waits until the old one has gone."""
    summary = f"{CONFIG_MAPS}/nightly-summary"
    labels = {"evaljob.dev/name": "nightly", "app.kubernetes.io/managed-by": "evaljob"}
    stage.api.put(f"{CONFIG_MAPS}/{plan_name('nightly', 'an-older-one')}", {"metadata": {}, "data": {}})
    stage.api.put(f"{PODS}/old", {"metadata": {"labels": labels}})
    stage.api.put(summary, {"metadata": {"ownerReferences": [old_owner()]}, "data": {"summary.md": "old"}})
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.api.of("jobs"))
    for job in stage.api.of("jobs"):
        stage.run_job(job)
    await stage.settle()
    assert not stage.finished()
    assert stage.api.of("configmaps")["nightly-summary"]["data"] == {"summary.md": "old"}
    stage.api.remove(summary)
    await stage.until(stage.finished)
    assert stage.evaljob()["status"]["state"] == "Complete"


async def test_a_plan_on_its_way_out_is_waited_for(stage: Stage) -> None:
    """Deleted by hand, in the foreground."""
    owner = {"kind": "EvalJob", "name": "nightly", "uid": UID, "controller": True}
    going = {"ownerReferences": [owner], "deletionTimestamp": CREATED}
    stage.api.put(f"{CONFIG_MAPS}/{PLAN}", {"metadata": going, "data": {}})
    stage.submit()
    await stage.start()
    await stage.settle()
    assert not stage.api.of("jobs")
    stage.api.remove(f"{CONFIG_MAPS}/{PLAN}")
    await stage.to_the_end()


@pytest.mark.parametrize("name", [PLAN, "nightly-summary"])
async def test_somebody_else_s_config_map_is_never_touched(stage: Stage, name: str) -> None:
    stage.api.put(f"{CONFIG_MAPS}/{name}", {"metadata": {}, "data": {"theirs": "1"}})
    stage.submit()
    await stage.start()
    await stage.until(stage.finished)
    condition = stage.condition("Accepted")
    assert condition is not None
    assert condition["reason"] == "NameCollision"
    assert name in condition["message"]
    assert stage.api.of("configmaps")[name]["data"] == {"theirs": "1"}
    assert not stage.api.of("jobs")


async def test_warnings_of_the_dry_run_stand_in_accepted_and_survive_a_restart(stage: Stage) -> None:
    stage.api.warnings = ("careful",)
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.condition("Accepted"))
    await stage.kill()
    await stage.start()
    await stage.to_the_end()
    accepted = stage.condition("Accepted")
    assert accepted is not None
    assert accepted["message"] == "1 partition; warnings: careful"
    assert len(stage.api.dry_runs) == 1


async def test_an_evaljob_whose_job_is_invalid_is_refused_before_anything_is_made(stage: Stage) -> None:
    stage.api.faults = [("DRY RUN", InvalidError(422, "Invalid", "requests: must be <= limits"))]
    stage.submit()
    await stage.start()
    await stage.until(stage.finished)
    accepted = stage.condition("Accepted")
    assert accepted is not None
    assert (accepted["status"], accepted["reason"]) == ("False", "InvalidSpec")
    assert "requests: must be <= limits" in accepted["message"]
    assert not stage.api.of("configmaps")


async def test_somebody_else_s_job_without_our_labels_fails_its_partition(stage: Stage) -> None:
    """No watch of ours shows it: the answer to the creation is the only news of it."""
    name = job_name(evaljob="nightly", uid=UID, model="m", dataset="d", shard=0, shards=1)
    foreign = {"metadata": {}, "spec": {"theirs": 1}}
    stage.api.put(f"{JOBS}/{name}", foreign)
    stage.submit()
    await stage.start()
    await stage.until(stage.finished)
    failures = stage.evaljob()["status"]["failures"]
    assert [f["reason"] for f in failures] == ["NameCollision"]
    assert stage.api.of("jobs")[name]["spec"] == {"theirs": 1}


async def test_a_spec_that_can_never_run_is_finished_with_the_reason(stage: Stage) -> None:
    stage.submit(document(datasets=[{"name": "d", "task": "no-such", "source": "pvc://data/d.jsonl"}]))
    await stage.start()
    await stage.until(stage.finished)
    condition = stage.condition("Accepted")
    assert condition is not None
    assert condition["reason"] == "InvalidSpec"
    assert "no-such" in condition["message"]
    await stage.settle()
    assert sum("/status" in write for write in stage.api.writes) == 1


async def test_a_field_that_is_not_ours_is_refused(stage: Stage) -> None:
    stage.submit(document(repeats=3))
    await stage.start()
    await stage.until(stage.finished)
    condition = stage.condition("Accepted")
    assert condition is not None
    assert condition["reason"] == "UnsupportedField"


async def test_an_upgrade_in_mid_run_changes_nothing(stage: Stage) -> None:
    stage.submit(document(datasets=[dataset(shards=2)], parallelism=1))
    await stage.start()
    await stage.until(lambda: stage.api.of("jobs"))
    await stage.kill()
    await stage.start(SETTINGS.model_copy(update={"images": {"transformers": "runner:2"}}))
    await stage.to_the_end()
    images = {j["spec"]["template"]["spec"]["containers"][0]["image"] for j in stage.api.of("jobs").values()}
    assert images == {"runner:1"}


async def test_under_a_queue_label_suspended_jobs_are_deleted_and_made_again_on_resume(stage: Stage) -> None:
    stage.submit(queued(two_shards()))
    await stage.start()
    await stage.until(lambda: len(stage.api.of("jobs")) == 2)
    first, second = stage.api.of("jobs")
    stage.run_job(first)
    await stage.until(lambda: stage.status().get("progress") == "1/2")
    stage.change(suspend=True)
    await stage.until(lambda: second not in stage.api.of("jobs"))
    await stage.settle()
    assert first in stage.api.of("jobs")
    (write,) = [(w, b) for w, b in zip(stage.api.writes, stage.api.bodies, strict=True) if "DELETE" in w]
    assert write[0] == f"DELETE {JOBS}/{second}"
    assert isinstance(write[1], dict)
    assert write[1]["propagationPolicy"] == "Background"
    stage.change(suspend=False)
    await stage.to_the_end()
    assert stage.evaljob()["status"]["state"] == "Complete"
    assert not [b for b in stage.api.bodies if isinstance(b, dict) and "suspend" in b.get("spec", {})]


async def test_a_job_that_somebody_suspends_again_and_again_is_not_fought_for(stage: Stage) -> None:
    """As Kueue does where it manages Jobs without a queue."""
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.api.of("jobs"))
    (name,) = stage.api.of("jobs")

    def held() -> bool:
        job = stage.api.of("jobs")[name]
        if not job["spec"].get("suspend"):
            stage.api.put(f"{JOBS}/{name}", {**job, "spec": {**job["spec"], "suspend": True}})
        stage.wake()
        return bool(stage.status().get("failures"))

    for second in (1, 3, 7):
        await stage.settle()
        held()
        await stage.settle()
        stage.now = later(second)
    await stage.until(held)
    assert [f["reason"] for f in stage.status()["failures"]] == ["SuspendedByOthers"]
    for _ in range(5):
        held()
        await stage.settle()
    assert stage.api.writes.count(f"PATCH {JOBS}/{name}") == 4
    stage.change(suspend=True)
    await stage.until(lambda: stage.status()["state"] == "Suspended")
    assert not stage.status().get("failures")
    stage.change(suspend=False)
    await stage.until(lambda: not stage.api.of("jobs")[name]["spec"]["suspend"])
    await stage.to_the_end()


async def test_what_completes_while_it_is_suspended_in_a_queue_is_put_on_record(stage: Stage) -> None:
    """No watch has told of its end, so it is still seen running."""
    stage.submit(queued(two_shards()))
    await stage.start()
    await stage.until(lambda: len(stage.api.of("jobs")) == 2)
    await stage.settle()
    first, second = stage.api.of("jobs")
    stage.api.late = True
    stage.run_job(first)
    stage.change(suspend=True)
    stage._registry.seen(stage.evaljob())  # noqa: SLF001 - of this the watch tells in time
    await stage.until(lambda: second not in stage.api.of("jobs"))
    await stage.settle()
    assert first in stage.api.of("jobs")
    stage.api.late = False
    await stage.until(lambda: stage.status().get("progress") == "1/2")


async def test_stricter_rules_of_an_upgrade_do_not_fail_a_running_evaljob(stage: Stage) -> None:
    """The spec is read once, for the plan; then only `suspend` and `parallelism` of it."""
    stage.submit(document(datasets=[dataset(shards=2)], parallelism=1))
    await stage.start()
    await stage.until(lambda: len(stage.api.of("jobs")) == 1)
    await stage.kill()
    body = stage.evaljob()
    stage.api.put(EVALJOB, {**body, "spec": {"models": "no longer readable", "parallelism": 2}})
    await stage.start()
    await stage.until(lambda: len(stage.api.of("jobs")) == 2)
    await stage.to_the_end()
    assert stage.evaljob()["status"]["state"] == "Complete"


async def test_a_plan_that_nobody_can_read_stops_only_its_evaljob(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    owner = {"kind": "EvalJob", "name": "nightly", "uid": UID, "controller": True}
    stage.api.put(f"{CONFIG_MAPS}/{PLAN}", {"metadata": {"ownerReferences": [owner]}, "data": {"x": "{"}})
    other = document()
    other["metadata"] = {"name": "other", "namespace": "evals", "uid": "other-uid", "generation": 1}
    stage.submit()
    stage.submit(other)
    await stage.start()
    await stage.to_the_end("other")
    assert not stage.finished()
    assert caplog.text.count(f"{PLAN} is no plan that evaljob") == 1


async def test_the_jobs_of_a_finished_evaljob_go_when_their_time_is_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.submit(two_shards())
    await stage.start()
    await stage.to_the_end()
    await stage.settle()
    assert len(stage.api.of("jobs")) == 2
    await stage.kill()
    stage.now = later(SETTINGS.job_ttl_seconds - 1)
    stage.api.writes.clear()
    stage.api.bodies.clear()
    # After a start the time counts, and none of their 10,000 records.
    monkeypatch.setattr("evaljob_operator.reconciler.observe", lambda *_: pytest.fail("looked at"))
    await stage.start()
    await stage.settle()
    assert (stage.api.writes, len(stage.api.of("jobs"))) == ([], 2)
    await stage.kill()
    stage.now = later(SETTINGS.job_ttl_seconds + 1)
    await stage.start()
    await stage.until(lambda: not stage.api.of("jobs"))
    await stage.settle()
    assert stage.api.writes == [f"DELETE {JOBS}"]
    body = stage.api.bodies[0]
    assert isinstance(body, dict)
    assert body["propagationPolicy"] == "Background"
    assert stage.finished()
    assert "nightly-summary" in stage.api.of("configmaps")


async def test_a_job_of_somebody_else_with_our_labels_outlives_ours(stage: Stage) -> None:
    """A copy that a user made to look into a failure has the labels, and no owner."""
    stage.submit(two_shards())
    await stage.start()
    await stage.to_the_end()
    copied = next(iter(stage.api.of("jobs").values()))
    meta = {"labels": copied["metadata"]["labels"], "annotations": copied["metadata"].get("annotations", {})}
    stage.api.put(f"{JOBS}/debug", {**copied, "metadata": meta})
    await stage.settle()
    stage.now = later(SETTINGS.job_ttl_seconds + 1)
    stage.wake()
    await stage.until(lambda: len(stage.api.of("jobs")) <= 1)
    await stage.settle()
    assert set(stage.api.of("jobs")) == {"debug"}
    assert all("uid" in b["preconditions"] for b in stage.api.bodies[-2:] if isinstance(b, dict))


async def test_a_job_that_is_refused_too_long_fails_and_a_retry_asks_again(stage: Stage) -> None:
    stage.api.faults = [(f"POST {JOBS}", forbidden(QUOTA))] * 3
    stage.submit(document([model("a"), model("b")], pendingDeadlineSeconds=20))
    await stage.start()
    await stage.until(lambda: len(stage.status().get("failures", ())) == 2)
    stage.now = later(19)
    stage.wake()
    await stage.until(lambda: stage.api.of("jobs") or not stage.api.faults)
    stage.now = later(20)
    stage.wake()

    def ran() -> bool:
        for job, body in stage.api.of("jobs").items():
            if "status" not in body:
                stage.run_job(job)
        return stage.finished()

    await stage.until(ran)
    assert {f["reason"] for f in stage.status()["failures"]} == {"QuotaExceeded"}
    stage.ask_for_retry("1")
    await stage.until(lambda: stage.status().get("retried") == "1")
    await stage.to_the_end()
    assert stage.status()["state"] == "Complete"


async def test_out_of_time_running_jobs_are_stopped_and_the_rest_never_made(stage: Stage) -> None:
    stage.submit(document(datasets=[dataset(shards=3)], parallelism=2, activeDeadlineSeconds=60))
    await stage.start()
    await stage.until(lambda: len(stage.api.of("jobs")) == 2)
    done, runs = stage.api.of("jobs")
    job = stage.api.of("jobs")[runs]
    stage.api.put(f"{JOBS}/{runs}", {**job, "status": {"startTime": CREATED, "active": 1, "ready": 1}})
    await stage.until(lambda: stage.status().get("startTime"))
    stage.now = later(60)
    stage.run_job(done)
    await stage.until(lambda: stage.api.of("jobs")[runs]["spec"].get("activeDeadlineSeconds") == 1)
    await stage.settle()
    assert not stage.finished()
    stopped = stage.api.of("jobs")[runs]
    over = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "lastTransitionTime": CREATED}
    stage.api.put(f"{JOBS}/{runs}", {**stopped, "status": {"conditions": [over]}})
    await stage.until(stage.finished)
    assert len(stage.api.of("jobs")) == 2
    assert stage.status()["partitions"]["succeeded"] == 1
    assert stage.condition("Failed")["reason"] == "DeadlineExceeded"  # type: ignore[index]


@pytest.mark.parametrize("refused", [False, True])
async def test_a_finished_evaljob_expires(stage: Stage, refused: bool) -> None:
    """Also one that could never run; not before its time, and by one write, of the object that was read last."""
    body = document(datasets=[dataset("d", {"metrics": []})] if refused else None, ttlSecondsAfterFinished=60)
    stage.submit(body)
    await stage.start()
    await stage.to_the_end()
    stage.now = later(59)
    await stage.settle()
    await stage.kill()
    await stage.start()
    await stage.settle()
    assert stage.finished()
    version = stage.evaljob()["metadata"]["resourceVersion"]
    stage.now = later(60)
    stage.wake()
    await stage.until(lambda: not stage.api.of("evaljobs"))
    assert stage.api.writes[-1] == f"DELETE {EVALJOB}"
    assert stage.api.bodies[-1]["preconditions"] == {"uid": UID, "resourceVersion": version}  # type: ignore[index,call-overload]


async def test_a_time_to_live_may_be_given_after_the_end_and_taken_back(stage: Stage) -> None:
    stage.submit()
    await stage.start()
    await stage.to_the_end()
    await stage.settle()
    stage.change(ttlSecondsAfterFinished=60)
    await stage.settle()
    stage.change(ttlSecondsAfterFinished=3000)
    stage.now = later(60)
    stage.wake()
    await stage.settle()
    assert stage.finished()
    stage.now = later(3000)
    stage.wake()
    await stage.until(lambda: not stage.api.of("evaljobs"))


async def test_failed_partitions_are_run_again_when_the_annotation_asks_for_it(stage: Stage) -> None:
    stage.submit(two_shards())
    await stage.start()
    await stage.until(lambda: len(stage.api.of("jobs")) == 2)
    good, bad = stage.api.of("jobs")
    stage.run_job(good)
    stage.fail_job(bad)
    await stage.until(stage.finished)
    uids = {name: job["metadata"]["uid"] for name, job in stage.api.of("jobs").items()}
    await stage.kill()
    stage.ask_for_retry("1")
    await stage.start()
    await stage.until(lambda: stage.status()["state"] == "Running")
    await stage.to_the_end()
    assert stage.status()["state"] == "Complete"
    assert stage.api.of("jobs")[good]["metadata"]["uid"] == uids[good]
    assert "2 of 2" in stage.api.of("configmaps")["nightly-summary"]["data"]["summary.md"]


@pytest.mark.parametrize("ttl", [60, None], ids=["the EvalJob's time", "the Jobs' time"])
async def test_a_retry_of_which_no_watch_has_told_keeps_what_would_expire(
    stage: Stage, ttl: int | None
) -> None:
    await failed_twice(stage)
    if ttl:
        stage.change(ttlSecondsAfterFinished=ttl)
        await stage.settle()
    stage.api.writes.clear()
    stage.api.late = True
    stage.ask_for_retry("1")
    stage.now = later(ttl or SETTINGS.job_ttl_seconds)
    stage.wake()
    await stage.until(lambda: stage.status().get("retried") == "1")
    assert not [w for w in stage.api.writes if w in (f"DELETE {EVALJOB}", f"DELETE {JOBS}")]
    stage.api.late = False
    await stage.to_the_end()
    assert stage.status()["state"] == "Complete"


async def failed_twice(stage: Stage) -> list[str]:
    """A finished EvalJob of which both partitions failed; the uids of their Jobs."""
    stage.submit(two_shards())
    await stage.start()
    await stage.until(lambda: len(stage.api.of("jobs")) == 2)
    for job in stage.api.of("jobs"):
        stage.fail_job(job)
    await stage.until(stage.finished)
    await stage.settle()
    return [job["metadata"]["uid"] for job in stage.api.of("jobs").values()]


@pytest.mark.parametrize(
    "error",
    [
        ApiError(500, "InternalError", "etcd"),
        ConflictError(409, "Conflict", "another write"),
        UnreachableError("reset by peer"),
        forbidden(),
    ],
    ids=["500", "409", "answer lost", "403"],
)
async def test_a_retry_of_which_a_deletion_fails_is_carried_through(stage: Stage, error: ApiError) -> None:
    stage.api.faults = [(f"DELETE {JOBS}/", error)]
    before = await failed_twice(stage)
    stage.ask_for_retry("1")
    await stage.until(lambda: stage.status().get("retried") == "1")
    assert not stage.finished()
    await stage.to_the_end()
    assert stage.status()["state"] == "Complete"
    assert not set(before) & {job["metadata"]["uid"] for job in stage.api.of("jobs").values()}
    told = [e["message"] for e in stage.api.of("events").values() if e["reason"] == "Retried"]
    assert told == ["run again: 2 partitions that failed"]


async def test_a_retry_waits_for_no_word_of_its_own_deletions(stage: Stage) -> None:
    """The events of the deletions are late, or lost: the Jobs would count as failed again."""
    await failed_twice(stage)
    stage.api.late = True
    stage.ask_for_retry("1")
    stage._registry.seen(stage.evaljob())  # noqa: SLF001 - of this the watch tells in time
    await stage.until(lambda: stage.status().get("retried") == "1")
    await stage.until(lambda: len(stage.api.of("jobs")) == 2)
    await stage.settle()
    assert not stage.finished()
    assert sum(w.startswith(f"DELETE {JOBS}/") for w in stage.api.writes) == 2
    stage.api.late = False
    await stage.to_the_end()
    assert stage.status()["state"] == "Complete"


async def test_a_job_that_a_finalizer_holds_is_gone_when_it_is_gone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await failed_twice(stage)
    request = stage.api.request

    async def held(method: str, path: str, **rest: Any) -> Json:  # noqa: ANN401 - as the API has them
        if method == "DELETE":
            job = stage.api.objects[path]
            meta = {**job["metadata"], "deletionTimestamp": CREATED}
            return {"kind": "Job", **stage.api.put(path, {**job, "metadata": meta})}
        return await request(method, path, **rest)

    monkeypatch.setattr(stage.api, "request", held)
    stage.ask_for_retry("1")
    await stage.until(lambda: stage.status().get("retried") == "1")
    await stage.settle()
    assert sum(write == f"POST {JOBS}" for write in stage.api.writes) == 2
    for job in list(stage.api.of("jobs")):
        stage.api.remove(f"{JOBS}/{job}")
    await stage.to_the_end()
    assert stage.status()["state"] == "Complete"


async def test_without_its_jobs_a_finished_evaljob_says_that_it_cannot_be_run_again(stage: Stage) -> None:
    stage.submit(two_shards())
    await stage.start()
    await stage.until(lambda: len(stage.api.of("jobs")) == 2)
    good, bad = stage.api.of("jobs")
    stage.run_job(good)
    stage.fail_job(bad)
    await stage.until(stage.finished)
    for name in (good, bad):
        stage.api.remove(f"{JOBS}/{name}")
    stage.ask_for_retry("1")
    await stage.until(lambda: stage.status().get("retried") == "1")
    await stage.settle()
    assert stage.finished()
    assert not stage.api.of("jobs")
    assert "RetryRefused" in [e["reason"] for e in stage.api.of("events").values()]


async def test_a_plan_that_was_deleted_is_made_again(stage: Stage) -> None:
    """Pods that have not started need it."""
    await stage.kill()
    stage = Stage(timing=dataclasses.replace(QUICK, resync=0.02))
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.api.of("jobs"))
    before = stage.api.of("configmaps")[PLAN]["data"]
    stage.api.remove(f"{CONFIG_MAPS}/{PLAN}")
    await stage.until(lambda: PLAN in stage.api.of("configmaps"))
    assert stage.api.of("configmaps")[PLAN]["data"] == before
    await stage.kill()


async def test_a_missing_secret_is_read_from_the_events_of_a_pod_that_waits_in_silence(stage: Stage) -> None:
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.api.of("jobs"))
    ((name, job),) = stage.api.of("jobs").items()
    labels = {**job["metadata"]["labels"], "batch.kubernetes.io/controller-uid": job["metadata"]["uid"]}
    stage.api.put(
        f"{PODS}/p", {"metadata": {"uid": "pod-uid", "labels": labels}, "status": {"phase": "Pending"}}
    )
    for time_, words in (("13:00", 'secret "eval-llm" not found'), ("12:00", "timed out")):
        about = {"involvedObject": {"uid": "pod-uid"}, "type": "Warning"}
        when = {"lastTimestamp": f"2026-03-01T{time_}:00Z"}
        stage.api.put(f"/api/v1{NS}/events/{words[:3]}", {"metadata": {}, **about, **when, "message": words})
    stage.now = later(30)
    stage.api.put(f"{JOBS}/{name}", {**job, "status": {"startTime": CREATED, "active": 1}})
    await stage.settle()
    assert not stage.status().get("failures")
    stage.now = later(31)
    stage.wake()
    await stage.until(lambda: stage.status().get("failures"))
    (failure,) = stage.evaljob()["status"]["failures"]
    assert (failure["reason"], failure["message"]) == (
        "SecretMissing",
        'waiting: secret "eval-llm" not found',
    )


async def test_without_the_right_to_read_events_only_the_reason_is_less_precise(stage: Stage) -> None:
    stage.api.faults = [(f"GET /api/v1{NS}/events", forbidden())] * 99
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.api.of("jobs"))
    ((name, job),) = stage.api.of("jobs").items()
    stage.now = later(61)
    stage.api.put(f"{JOBS}/{name}", {**job, "status": {"startTime": CREATED}})
    await stage.until(lambda: stage.status().get("failures"))
    assert stage.status()["failures"][0]["reason"] == "PodNotStarted"
    stage.run_job(name)
    await stage.until(stage.finished)
    assert "PermissionDenied" not in [e["reason"] for e in stage.api.of("events").values()]


async def test_a_pod_that_does_not_end_is_looked_for_by_its_job(stage: Stage) -> None:
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.api.of("jobs"))
    ((name, job),) = stage.api.of("jobs").items()
    owner = {
        "batch.kubernetes.io/controller-uid": job["metadata"]["uid"],
        "batch.kubernetes.io/job-name": name,
    }
    going = {"uid": "p", "labels": {**job["metadata"]["labels"], **owner}, "deletionTimestamp": CREATED}
    stage.api.put(
        f"{PODS}/p", {"metadata": going, "spec": {"nodeName": "lost"}, "status": {"phase": "Running"}}
    )
    stage.now = later(61)
    stage.api.put(f"{JOBS}/{name}", {**job, "status": {"startTime": CREATED, "terminating": 1}})
    await stage.until(lambda: stage.status().get("failures"))
    (failure,) = stage.evaljob()["status"]["failures"]
    assert failure["reason"] == "PodStuckTerminating"
    assert "lost" in failure["message"]


async def test_pending_pods_are_looked_at_when_a_job_has_waited(stage: Stage) -> None:
    stage.submit()
    await stage.start()
    await stage.until(lambda: stage.api.of("jobs"))
    await stage.settle()
    # The informer's list.
    assert stage.api.reads.count(f"GET {PODS}") == 1
    ((name, job),) = stage.api.of("jobs").items()
    labels = {**job["metadata"]["labels"], "batch.kubernetes.io/controller-uid": job["metadata"]["uid"]}
    waiting = {
        "name": "runner",
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
    }
    pod = {
        "metadata": {"uid": "p", "labels": labels},
        "status": {"phase": "Pending", "containerStatuses": [waiting]},
    }
    stage.api.put(f"{PODS}/p", pod)
    stage.now = later(11)
    stage.api.put(f"{JOBS}/{name}", {**job, "status": {"startTime": CREATED, "active": 1}})
    await stage.until(lambda: stage.status().get("failures"))
    (failure,) = stage.evaljob()["status"]["failures"]
    assert (failure["reason"], failure["message"]) == ("ImagePullBackOff", "waiting: no such image")
    assert stage.api.reads.count(f"GET {PODS}") == 2
