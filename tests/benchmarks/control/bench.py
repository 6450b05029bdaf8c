"""The control side of N partitions, measured.

A real etcd with fsync, API server, controllers and scheduler; nodes with 8 simulated GPUs; pods played by
tests.plane.kubelet. In one run on one plane: a raw loop over 20 connections (the floor, before and after the rest),
our operator with one EvalJob of N partitions and a small one that comes in between, its restart, EvalJobs spread over
a hundred, and a plain kopf operator of 80 lines with at most 1,000 partitions. Requests are counted by the API
server's audit log, memory and processor time by /proc. When the time is up the report has what was measured until
then, and `unfinished` names the rest.
"""

import asyncio
import contextlib
import datetime as dt
import functools
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

import aiohttp

from evaljob import jobs
from evaljob.decide import decide
from evaljob.observe import failure_on, observe
from evaljob.planning import Settings, make_plan
from evaljob.spec import parse_evaljob
from evaljob.views import job_view
from tests.benchmarks.control import pieces
from tests.benchmarks.control.audit import AuditLog, Counts
from tests.cluster.shell import say
from tests.plane.client import Client, Json, StatusError
from tests.plane.kubelet import Kubelet
from tests.plane.operatorprocess import OperatorProcess
from tests.plane.plane import ADMIN, IMAGES, OPERATOR, PLAIN, Options, Plane, plane
from tests.plane.programs import Program, cpu_seconds, rss_mib

NODES_MOST = 250
PLAIN_MOST = 1000
"""The plain operator gets at most so many partitions, and so do EvalJobs of ten each and the raw loop at the end."""
NAMESPACES = ("raw", "one", "small", "many", "plain")
IDLE_SECONDS = 5
APART = 2.0
"""Seconds between two of many EvalJobs: five partitions a second is a third of what Kubernetes itself can do here."""


@dataclass(frozen=True)
class Bench:
    """What every part needs."""

    plane: Plane
    client: Client
    audit: AuditLog
    partitions: int
    ends: float
    """On the monotonic clock: when to stop."""

    @property
    def left(self) -> float:
        """Seconds until then."""
        return self.ends - time.monotonic()


def jobs_path(namespace: str) -> str:
    """All Jobs of a namespace."""
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


def evaljobs_path(namespace: str) -> str:
    """All EvalJobs of a namespace."""
    return f"/apis/evaljob.dev/v1alpha1/namespaces/{namespace}/evaljobs"


@dataclass(frozen=True)
class Floor:
    """The same Jobs, made by nothing but a loop, with all controllers at work.

    Attributes:
        create_rate: Jobs made per second.
        all_s: Seconds until all of them have ended: what Kubernetes itself takes.
    """

    create_rate: float
    all_s: float


async def raw(bench: Bench, count: int) -> Floor:
    """The floor of this plane, for so many Jobs."""
    spec = pieces.of_size("raw", count)
    meta = {"name": "raw", "namespace": "raw", "uid": "0", "creationTimestamp": "2026-01-01T00:00:00Z"}
    body = parse_evaljob({**spec, "metadata": meta})
    plan = make_plan(body, {}, Settings(images=IMAGES), dt.date(2026, 1, 1))
    bodies = [jobs.job(body, plan, partition) for partition in plan.partitions]
    for job in bodies:
        del job["metadata"]["ownerReferences"]
    async with pieces.observed(bench.client, "raw", len(bodies)) as seen:
        started = time.monotonic()
        seconds = await pieces.create_all(bench.client, jobs_path("raw"), bodies)
        await pieces.until(lambda: len(seen.jobs) == len(bodies), bench.left)
        all_s = time.monotonic() - started
    say(f"    raw loop: {len(bodies)} Jobs created in {seconds:.1f} s, ended after {all_s:.1f} s")
    await clear(bench, "raw")
    return Floor(len(bodies) / seconds, all_s)


async def clear(bench: Bench, namespace: str) -> None:
    """Delete the EvalJobs and Jobs of a namespace and wait until they are gone."""
    while bench.left > 0:
        for path in (evaljobs_path(namespace), jobs_path(namespace)):
            # Thousands take the API server longer than it gives a request: what is left is deleted by the next.
            with contextlib.suppress(aiohttp.ClientError, StatusError):
                await bench.client.request("DELETE", path, {"propagationPolicy": "Background"})
        left = 0
        for path in (jobs_path(namespace), f"/api/v1/namespaces/{namespace}/pods"):
            left += len((await bench.client.request("GET", path, query={"limit": "1"}))["items"])
        if not left:
            return
        await asyncio.sleep(0.5)
    raise TimeoutError(f"namespace {namespace} is not empty")


async def submit(bench: Bench, namespace: str, bodies: Sequence[Json]) -> float:
    """Create EvalJobs, `APART` seconds from each other; when the first was sent."""
    started = time.monotonic()
    for number, body in enumerate(bodies):
        await asyncio.sleep(max(started + APART * number - time.monotonic(), 0))
        await bench.client.request("POST", evaljobs_path(namespace), body)
    return started


async def one(bench: Bench, operator: OperatorProcess) -> dict[str, Any]:
    """One EvalJob with all partitions."""
    body = pieces.of_size("one", bench.partitions)
    models, datasets = pieces.shape(bench.partitions)
    total = models * datasets
    await asyncio.sleep(IDLE_SECONDS)
    idle, cpu = rss_mib(operator.pid), cpu_seconds(operator.pid)
    bench.audit.take(OPERATOR)
    beside = {}
    async with pieces.observed(bench.client, "one", total) as seen:
        started = await submit(bench, "one", [body])
        with contextlib.suppress(TimeoutError):
            await pieces.until(lambda: len(seen.created) >= total // 2, bench.left)
            beside = await small(bench)
            await pieces.until(lambda: seen.all_created_at, bench.left)
            say(f"    one: {total} Jobs created in {seen.all_created_at - started:.1f} s")
            await pieces.until(lambda: seen.finished, bench.left)
        spent = cpu_seconds(operator.pid) - cpu
        await asyncio.sleep(2)
    counts = bench.audit.take(OPERATOR)
    made, took = len(seen.created), (seen.all_created_at or time.monotonic()) - started
    say(
        f"    one: {made} created, {len(seen.jobs)} ended, {time.monotonic() - started:.0f} s; {counts.by_kind}"
    )
    return {
        "partitions": total,
        "created": made,
        "ended": len(seen.jobs),
        "writes_per_partition": round(counts.writes / made, 3),
        "reads_per_partition": round(counts.reads / made, 3),
        "load_of_five_minutes": round(os.getloadavg()[1], 1),
        "create_s": round(took, 1),
        "create_rate": round(made / took, 1),
        **beside,
        **summarized(seen, started),
        "rss_idle_mib": round(idle, 1),
        "rss_peak_mib": round(rss_mib(operator.pid, peak=True), 1),
        "events": seen.events,
        "cpu_s_per_1000_events": round(1000 * spent / seen.events, 3),
    }


def summarized(seen: pieces.Progress, started: float) -> dict[str, float]:
    """Seconds of one EvalJob in all, and from its last pod and Job to its summary; nothing if it is not finished."""
    if not (finished := seen.finished.get("one")):
        return {}
    return {
        "all_s": round(finished - started, 1),
        "summary_after_last_pod_s": round(finished - seen.pod_ended["one"], 2),
        "summary_after_last_job_s": round(finished - seen.job_ended["one"], 2),
    }


async def small(bench: Bench) -> dict[str, float]:
    """A small EvalJob beside the giant: seconds until its first Job is there."""
    async with pieces.observed(bench.client, "small", 1) as seen:
        started = await submit(bench, "small", [pieces.of_size("small", 1)])
        await pieces.until(lambda: seen.all_created_at, bench.left)
    return {"small_first_job_s": round(seen.all_created_at - started, 2)}


async def look(bench: Bench) -> float:
    """Milliseconds of one look when one partition has not ended: observe and decide, no request."""
    body = await bench.client.request("GET", f"{evaljobs_path('one')}/one")
    evaljob = parse_evaljob({k: v for k, v in body.items() if k != "status"})
    created = evaljob.metadata.creation_timestamp
    assert created is not None
    plan = make_plan(evaljob, {}, Settings(images=IMAGES), created.date())
    found = await bench.client.request("GET", jobs_path("one"))
    views = {view.name: view for view in map(job_view, found["items"][1:])}
    now, why = dt.datetime.now(dt.UTC), functools.cache(failure_on)
    observe(plan, evaljob.metadata.uid, views, (), why=why)
    started = time.perf_counter()
    decide(evaljob, plan, observe(plan, evaljob.metadata.uid, views, (), why=why), now)
    return 1000 * (time.perf_counter() - started)


async def restart(bench: Bench, operator: OperatorProcess) -> dict[str, Any]:
    """A new process before all those finished Jobs: seconds until it rests, and what it writes."""
    operator.kill()
    await asyncio.sleep(2)
    bench.audit.take(OPERATOR)
    started = time.monotonic()
    operator.start()
    await pieces.until(operator.ready, bench.left)
    ready = time.monotonic() - started
    cpu, still = cpu_seconds(operator.pid), time.monotonic()
    while time.monotonic() - still < 1.0:
        await asyncio.sleep(0.1)
        now = cpu_seconds(operator.pid)
        if now - cpu > 0.02:
            cpu, still = now, time.monotonic()
    await asyncio.sleep(2)
    counts = bench.audit.take(OPERATOR)
    return {
        "restart_ready_s": round(ready, 1),
        "restart_s": round(still - started, 1),
        "restart_writes": counts.writes,
        "restart_reads": counts.reads,
        "restart_rss_mib": round(rss_mib(operator.pid), 1),
    }


async def many(bench: Bench) -> dict[str, Any]:
    """Up to a hundred EvalJobs of ten partitions each, one after the other: time from last pod to summary."""
    total = min(bench.partitions, PLAIN_MOST)
    count = min(100, max(total // 10, 1))
    bodies = [pieces.of_size(f"many-{n}", total // count) for n in range(count)]
    jobs_ = sum(len(b["spec"]["models"]) * len(b["spec"]["datasets"]) for b in bodies)
    async with pieces.observed(bench.client, "many", jobs_) as seen:
        await submit(bench, "many", bodies)
        await pieces.until(lambda: len(seen.finished) == count, bench.left)
    after_pods = [seen.finished[n] - seen.pod_ended[n] for n in seen.finished]
    after_jobs = [seen.finished[n] - seen.job_ended[n] for n in seen.finished]
    return {
        "evaljobs": count,
        "summary_p50_s": percentile(after_pods, 50),
        "summary_p99_s": percentile(after_pods, 99),
        "summary_after_job_p50_s": percentile(after_jobs, 50),
        "summary_after_job_p99_s": percentile(after_jobs, 99),
    }


def percentile(values: Sequence[float], which: int) -> float:
    """A percentile, with two digits."""
    return (
        round(quantiles(values, n=100, method="inclusive")[which - 1], 2)
        if len(values) > 1
        else round(values[0], 2)
    )


async def plain(bench: Bench) -> dict[str, Any]:
    """The obvious alternative."""
    body = pieces.of_size("plain", min(bench.partitions, PLAIN_MOST))
    total = len(body["spec"]["models"]) * len(body["spec"]["datasets"])
    command = [sys.executable, "-m", "tests.benchmarks.control.plainkopf", "plain"]
    env = {"KUBECONFIG": str(bench.plane.kubeconfig(PLAIN)), "PYTHONPATH": str(Path.cwd())}
    program = Program(command, bench.plane.folder / "plain.log", env)
    program.start()
    try:
        await asyncio.sleep(IDLE_SECONDS)
        idle, cpu = rss_mib(program.pid), cpu_seconds(program.pid)
        bench.audit.take(PLAIN)
        async with pieces.observed(bench.client, "plain", total) as seen:
            started = await submit(bench, "plain", [body])
            await pieces.until(lambda: seen.all_created_at, bench.left)
            await pieces.until(lambda: seen.collected == total, bench.left)
        spent = cpu_seconds(program.pid) - cpu
        counts: Counts = bench.audit.take(PLAIN)
        return {
            "partitions": total,
            "create_rate": round(total / (seen.all_created_at - started), 1),
            "writes_per_partition": round(counts.writes / total, 3),
            "reads_per_partition": round(counts.reads / total, 3),
            "rss_idle_mib": round(idle, 1),
            "rss_peak_mib": round(rss_mib(program.pid, peak=True), 1),
            "cpu_s_per_1000_events": round(1000 * spent / seen.events, 3),
        }
    finally:
        program.stop()


async def foreign(bench: Bench, count: int) -> None:
    """Jobs of others in the same namespace, which selectors must keep away."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none"}]}
    bodies = [
        {"metadata": {"name": f"foreign-{n}"}, "spec": {"suspend": True, "template": {"spec": pod}}}
        for n in range(count)
    ]
    await pieces.create_all(bench.client, jobs_path("one"), bodies)


async def ours(bench: Bench, strangers: int, operator: OperatorProcess, found: dict[str, Any]) -> None:
    """Our operator: one EvalJob and a restart; what is found goes into the report at once."""
    await foreign(bench, strangers)
    operator.start()
    await pieces.until(operator.ready, 60)
    found |= {"foreign_jobs": strangers, **await one(bench, operator)}
    if bench.left < 0:
        raise TimeoutError("one EvalJob with all partitions")
    found |= await restart(bench, operator)
    say(f"    restart: {found}")
    found["look_ms"] = round(await look(bench), 1)


async def measure(bench: Bench, strangers: int, *, compare: bool, spread: bool) -> dict[str, Any]:
    """All parts, in order, as far as there is time."""
    await pieces.make_nodes(bench.client, min(-(-bench.partitions // pieces.GPUS), NODES_MOST))
    kubelet = Kubelet(bench.client, pieces.RunTimes(), bound=True)
    played = asyncio.create_task(kubelet.run())
    operator = OperatorProcess(bench.plane, ["one", "small", "many"], "operator")
    found: dict[str, Any] = {"benchmark": "control"}
    try:
        floor = await raw(bench, bench.partitions) if compare else None
        await ours(bench, strangers, operator, found)
        found |= await many(bench) if spread else {}
        operator.stop()
        if floor:
            alternative = await plain(bench)
            # Other load comes and goes: the floor before and after, and all of it in the report.
            beside = await raw(bench, min(bench.partitions, PLAIN_MOST))
            both = (floor, beside)
            found |= compared(found, both if bench.partitions <= PLAIN_MOST else (floor,))
            found |= against(alternative, both if bench.partitions <= PLAIN_MOST else (beside,))
    except TimeoutError as error:
        found["unfinished"] = str(error)
    finally:
        operator.stop()
        played.cancel()
        await asyncio.gather(played, return_exceptions=True)
    return found


def compared(ours: Mapping[str, Any], floors: Sequence[Floor]) -> dict[str, Any]:
    """Our ratios, over the mean of the raw loops: how fast Jobs are made, and how fast all is over."""
    rate, all_s = fmean(f.create_rate for f in floors), fmean(f.all_s for f in floors)
    return {
        "create_ratio": round(ours["create_rate"] / rate, 2),
        "all_ratio": round(all_s / ours["all_s"], 2),
        "raw_jobs_per_s": [round(f.create_rate, 1) for f in floors],
        "raw_all_s": [round(f.all_s, 1) for f in floors],
    }


def against(alternative: dict[str, Any], floors: Sequence[Floor]) -> dict[str, Any]:
    """The plain operator's ratio, over the mean of raw loops with as many Jobs as it was given."""
    rate = fmean(f.create_rate for f in floors)
    return {
        "plain_kopf_ratio": round(alternative["create_rate"] / rate, 2),
        "plain_kopf": alternative,
    }


async def run(
    partitions: int, strangers: int, minutes: float, *, compare: bool, spread: bool = True
) -> dict[str, Any]:
    """A plane, and everything on it.

    With `compare` also the raw loop and the plain operator; with `spread` also EvalJobs of ten partitions each.
    """
    with plane(Options(fsync=True, scheduler=True)) as running:
        running.install(NAMESPACES)
        async with Client(running, ADMIN) as client:
            ends = time.monotonic() + 60 * minutes
            bench = Bench(running, client, AuditLog(running.audit_log), partitions, ends)
            return await measure(bench, strangers, compare=compare, spread=spread)
