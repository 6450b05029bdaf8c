"""Faults that are no single request: people, quotas, pods, outages. Each scenario is one promise.

A scenario gets a case in a namespace of its own; it fails by an assertion. They run at once on one plane.
"""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from evaljob.names import ANNOTATION_RESULT, ANNOTATION_RETRY, LABEL_DATASET, Reason, job_name, summary_name
from evaljob_operator import vigil
from tests.faults.case import NAME, QUIET, Case, evaljob, turns
from tests.faults.history import condition, owner_of, record_of, violations
from tests.faults.proxy import Fault
from tests.plane.client import MERGE, Json

Scenario = Callable[[Case], Awaitable[None]]


def status(case: Case) -> Json:
    """The EvalJob's status as it was seen last."""
    found: Json = (case.latest or {}).get("status") or {}
    return found


async def jobs(case: Case) -> dict[str, Json]:
    """The Jobs by dataset."""
    found = await case.lab.client.request("GET", case.path("jobs"))
    return {j["metadata"]["labels"].get("evaljob.dev/dataset", ""): j for j in found["items"]}


async def until(case: Case, what: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for something that must come."""
    assert await case.until(what, seconds), f"not within {seconds} s; status {json.dumps(status(case))}"


async def job_when(case: Case, dataset: str, what: Callable[[Json], Any]) -> Json:
    """A dataset's Job, once it is as wanted."""

    def wanted() -> Json | None:
        found = [j for j in case.jobs() if j["metadata"]["labels"][LABEL_DATASET] == dataset]
        return found[-1] if found and what(found[-1]) else None

    async for _ in turns(60):
        if found := wanted():
            return found
    raise AssertionError(f"the Job of {dataset} is not as wanted; status {json.dumps(status(case))}")


def running(job: Json) -> bool:
    """Whether its pod runs."""
    return bool(job.get("status", {}).get("ready"))


async def finish(case: Case, *, failed: int = 0, starts: int = 1) -> None:
    """Wait for the end; so many partitions have failed, and no promise was broken on the way."""
    await until(case, case.quiet)
    assert status(case)["failed"] == failed, status(case)["failures"]
    broken = violations(case.history)
    assert broken == [], broken
    assert case.operator is not None
    assert case.operator.starts <= starts, case.operator.tail()


async def two_replicas(case: Case) -> None:
    """Two operators by mistake: no Job twice, no record twice, the same end."""
    async with case.running(replicas=2):
        await case.submit(evaljob(NAME, ["one", "two", "bad", "slow"]))
        await finish(case, failed=1)
        assert len(await jobs(case)) == 4


async def an_outage_costs_few_requests_and_no_restart(case: Case) -> None:
    """15 s of 503 stand for five minutes: at most 5 requests a second over all tasks, no restart, then the end."""
    async with case.running():
        await case.submit(evaljob(NAME, ["slow", "one"]))
        await until(case, lambda: bool(status(case)))
        case.proxy.outage.begin(15.0)
        await asyncio.sleep(15.5)
        assert len(case.proxy.outage.refused) <= 5 * 15
        await finish(case)


async def five_minutes_of_503_cost_a_request_a_second(case: Case) -> None:
    """At most, by whatever is asked for; no restart; then the end."""
    async with case.running():
        await case.submit(evaljob(NAME, ["slow", "one"]))
        await until(case, lambda: bool(status(case)))
        case.proxy.outage.begin(300.0)
        await asyncio.sleep(300.5)
        assert [(p, n) for p, n in Counter(case.proxy.outage.refused).items() if n > 300] == []
        await finish(case)


async def a_process_of_which_a_watch_is_stale_ends_by_itself(case: Case) -> None:
    """Nobody answers what it asks about Jobs, everything else is answered: a new process has new connections."""
    async with case.running():
        operator = case.operator
        assert operator is not None
        await case.submit(evaljob(NAME, ["slow", "one"]))
        await until(case, lambda: bool(status(case)))
        case.proxy.muted = "jobs"
        await until(case, lambda: operator.starts == 2, vigil.QUIET + 2 * vigil.STALE)
        case.proxy.muted = None
        assert f"{case.namespace}/jobs: nothing heard".encode() in operator.log.read_bytes()
        await finish(case, starts=2)


async def a_rotated_token_is_taken_up(case: Case) -> None:
    """401 for a while: the operator is back without help, and at most one restart."""
    async with case.running():
        await case.submit(evaljob(NAME, ["slow", "one"]))
        await until(case, lambda: bool(status(case)))
        case.proxy.outage.begin(3.0, 401)
        await finish(case, starts=2)


async def an_evaljob_deleted_in_mid_run_leaves_nothing(case: Case) -> None:
    """No write after the deletion; Jobs and pods go with their owner."""
    async with case.running():
        await case.submit(evaljob(NAME, ["endless", "endless2"], parallelism=1))
        await job_when(case, "endless", running)
        await case.lab.client.request("DELETE", case.path("evaljobs", NAME))
        await until(case, lambda: case.latest is None)
        deleted = time.monotonic()
        await until_nothing(case)
        late = [s for s in case.proxy.seen if s.write and s.at > deleted + 0.5]
        assert late == []
        assert violations(case.history) == []


async def until_nothing(case: Case) -> None:
    """Wait until neither Jobs nor pods nor our ConfigMaps are left."""
    # Half a minute passes before the garbage collector has heard of a young CRD.
    await until(case, lambda: not case.history.present("Job"))
    left: list[str] = []
    async for _ in turns(60):
        left = []
        for kind in ("jobs", "pods", "configmaps"):
            found = await case.lab.client.request("GET", case.path(kind))
            left += [o["metadata"]["name"] for o in found["items"] if o["metadata"]["name"].startswith(NAME)]
        if not left:
            return
    raise AssertionError(f"left: {left}")


async def deleted_and_made_again_under_the_same_name(case: Case) -> None:
    """The second run is a run of its own: other Jobs, another plan, a whole summary."""
    async with case.running():
        first = await case.submit(evaljob(NAME, ["endless", "one"]))
        await job_when(case, "one", record_of)
        await case.lab.client.request("DELETE", case.path("evaljobs", NAME))
        second = await case.submit(evaljob(NAME, ["one", "two"]))
        assert second["metadata"]["uid"] != first["metadata"]["uid"]
        await finish(case)
        await only_owned_by(case, second["metadata"]["uid"])


async def only_owned_by(case: Case, uid: str) -> None:
    """Wait until the garbage collector has taken the Jobs of all others."""
    await until(case, lambda: set(map(owner_of, case.jobs())) == {uid})


async def a_job_deleted_by_hand_is_run_again(case: Case) -> None:
    """In mid-run it is made again under its name; after the end nothing happens."""
    async with case.running():
        await case.submit(evaljob(NAME, ["slow", "one"]))
        found = await job_when(case, "slow", running)
        name = found["metadata"]["name"]
        case.history.allowed_deletions.add(name)
        background = {"propagationPolicy": "Background"}
        await case.lab.client.request("DELETE", case.path("jobs", name), background)
        await finish(case)
        again = (await jobs(case))["slow"]
        assert again["metadata"]["uid"] != found["metadata"]["uid"]
        await case.lab.client.request("DELETE", case.path("jobs", name), background)
        writes = len([s for s in case.proxy.seen if s.write])
        await asyncio.sleep(QUIET)
        assert len([s for s in case.proxy.seen if s.write]) == writes


async def a_retry_of_which_deletions_fail_is_carried_through(case: Case) -> None:
    """Each failed partition is run again, whatever becomes of the deletions of their Jobs, and told of once."""
    async with case.running():
        await case.submit(evaljob(NAME, ["mended1", "mended2", "mended3", "mended4", "one"]))
        await finish(case, failed=4)
        before = {name: job["metadata"]["uid"] for name, job in (await jobs(case)).items()}
        case.proxy.spoilt["DELETE"] = [Fault.SERVER_ERROR, Fault.LOST_REPLY, Fault.CONFLICT, Fault.TOO_MANY]
        ask = {"metadata": {"annotations": {ANNOTATION_RETRY: "1"}}}
        await case.lab.client.request("PATCH", case.path("evaljobs", NAME), ask, MERGE)
        await until(case, lambda: status(case).get("retried") == "1")
        await finish(case)
        assert case.proxy.spoilt["DELETE"] == []
        after = {name: job["metadata"]["uid"] for name, job in (await jobs(case)).items()}
        assert {name for name in after if after[name] == before[name]} == {"one"}
        told = await case.lab.client.request("GET", case.path("events"))
        words = [e["message"] for e in told["items"] if e["reason"] == Reason.RETRIED]
        assert words == ["run again: 4 partitions that failed"]


async def a_foreign_job_of_our_name_blocks_one_partition(case: Case) -> None:
    """`NameCollision` on that partition, the foreign Job untouched, the others go on."""
    async with case.running():
        made = await case.submit(evaljob(NAME, ["one", "two"], suspend=True))
        uid = made["metadata"]["uid"]
        name = job_name(evaljob=NAME, uid=uid, model="m0", dataset="one", shard=0, shards=1)
        pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "none"}]}
        foreign = {"metadata": {"name": name}, "spec": {"suspend": True, "template": {"spec": pod}}}
        planted = await case.lab.client.request("POST", case.path("jobs"), foreign)
        await case.lab.client.request(
            "PATCH", case.path("evaljobs", NAME), {"spec": {"suspend": False}}, MERGE
        )
        await until(case, case.quiet)
        assert [f["reason"] for f in status(case)["failures"]] == ["NameCollision"]
        now = await case.lab.client.request("GET", case.path("jobs", name))
        assert (now["spec"], now["metadata"].get("annotations")) == (
            planted["spec"],
            planted["metadata"].get("annotations"),
        )


async def a_right_taken_away_is_named_and_waited_for(case: Case) -> None:
    """`PermissionDenied` with verb and resource; when the right is back the run goes on."""
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{case.namespace}/roles/evaljob-system-evaljob"
    client = case.lab.client
    before = await client.request("GET", role)
    fewer = [{**r, "verbs": [v for v in r["verbs"] if v != "create"] or ["list"]} for r in before["rules"]]
    await client.request("PATCH", role, {"rules": fewer}, MERGE)
    async with case.running():
        await case.submit(evaljob(NAME, ["one", "two"]))
        await until(
            case, lambda: any(c["reason"] == "PermissionDenied" for c in status(case).get("conditions", ()))
        )
        denied = next(c for c in status(case)["conditions"] if c["reason"] == "PermissionDenied")
        assert 'cannot create resource "jobs"' in denied["message"]
        await client.request("PATCH", role, {"rules": before["rules"]}, MERGE)
        await finish(case)


async def a_quota_is_waited_for(case: Case) -> None:
    """One Job at a time fits: the others come when it goes, and nothing fails."""
    quota = {"metadata": {"name": "few"}, "spec": {"hard": {"count/jobs.batch": "2"}}}
    path = f"/api/v1/namespaces/{case.namespace}/resourcequotas"
    await case.lab.client.request("POST", path, quota)
    async with case.running():
        await case.submit(evaljob(NAME, ["one", "two", "three"]))
        # All three are asked for at once: which of them the quota refuses is chance.
        await until(case, lambda: any(map(record_of, case.jobs())))
        assert len(case.jobs()) == 2
        more = {"spec": {"hard": {"count/jobs.batch": "10"}}}
        await case.lab.client.request("PATCH", f"{path}/few", more, MERGE)
        await finish(case)


async def out_of_time_it_keeps_what_has_finished_and_expires(case: Case) -> None:
    """Running Jobs are stopped and kept as the record, others never made; with a TTL all goes afterwards."""
    async with case.running():
        await case.submit(
            evaljob(NAME, ["one", "endless", "two"], parallelism=1, activeDeadlineSeconds=8, backoffLimit=0)
        )
        await finish(case, failed=2)
        found = await jobs(case)
        assert set(found) == {"one", "endless"}
        assert condition(found["endless"], "Failed")
        assert "DeadlineExceeded" in str(record_of(found["endless"]))
        assert [f["reason"] for f in status(case)["failures"]] == ["DeadlineExceeded"] * 3
        text = (await case.end_state())["summary"]["summary.md"]
        assert text.count("missing (DeadlineExceeded)") == 2
        expiry = {"spec": {"ttlSecondsAfterFinished": 0}}
        await case.lab.client.request("PATCH", case.path("evaljobs", NAME), expiry, MERGE)
        await until(case, lambda: case.latest is None)
        await until_nothing(case)


async def a_quota_that_stays_ends_at_the_pending_deadline(case: Case) -> None:
    """No room for any Job: its partitions fail with the quota's words, and a retry runs them."""
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    path = f"/api/v1/namespaces/{case.namespace}/resourcequotas"
    await case.lab.client.request("POST", path, quota)
    async with case.running():
        await case.submit(evaljob(NAME, ["one", "two"], pendingDeadlineSeconds=5))
        await finish(case, failed=2)
        assert {f["reason"] for f in status(case)["failures"]} == {"QuotaExceeded"}
        assert await jobs(case) == {}


async def a_namespace_can_go(case: Case) -> None:
    """No finalizer of ours: the namespace and everything in it go while the operator is there."""
    async with case.running():
        await case.submit(evaljob(NAME, ["endless", "one"]))
        await job_when(case, "endless", running)
        namespace = f"/api/v1/namespaces/{case.namespace}"
        await case.lab.client.request("DELETE", namespace)
        async for _ in turns(60):
            if emptied(found := await case.lab.client.get(namespace)):
                return
        raise AssertionError(f"the namespace is not empty: {found}")


def emptied(namespace: Json | None) -> bool:
    """Gone, or without content: its controller then waits for half the grace period that the pods had."""
    found = ((namespace or {}).get("status") or {}).get("conditions") or ()
    over = {c["type"] for c in found if c["status"] == "False"}
    return namespace is None or over >= {"NamespaceContentRemaining", "NamespaceFinalizersRemaining"}


async def an_edited_record_is_refused(case: Case) -> None:
    """One character of a record changed by hand: `InvalidResult`, and no average without it."""
    async with case.running():
        await case.submit(evaljob(NAME, ["slow", "one"]))
        found = await job_when(case, "one", record_of)
        text = str(record_of(found)).replace('"answered":4', '"answered":3')
        assert text != record_of(found)
        patch = {"metadata": {"annotations": {ANNOTATION_RESULT: text}}}
        await case.lab.client.request("PATCH", case.path("jobs", found["metadata"]["name"]), patch, MERGE)
        await until(case, case.quiet)
        assert [(f["partition"], f["reason"]) for f in status(case)["failures"]] == [
            ("m0/one", "InvalidResult")
        ]


async def exists(case: Case, path: str) -> None:
    """Wait until an object is there."""
    async for _ in turns(60):
        if await case.lab.client.get(path) is not None:
            return
    raise AssertionError(f"{path} does not come")


async def a_deleted_summary_is_made_again(case: Case) -> None:
    """In mid-run the summary comes back from the Jobs."""
    async with case.running():
        await case.submit(evaljob(NAME, ["long", "one"]))
        path = case.path("configmaps", summary_name(NAME))
        await exists(case, path)
        await case.lab.client.request("DELETE", path)
        await finish(case)
        assert (await case.end_state())["summary"]


async def a_pod_that_was_gone_before_it_was_read_is_a_loss(case: Case) -> None:
    """`ResultsLost` when the operator was away while the pods ended and went; never a number."""
    async with case.running():
        await case.submit(evaljob(NAME, ["slow"]))
        await job_when(case, "slow", running)
        assert case.operator is not None
        case.operator.held = True
        case.kill()
        await job_when(case, "slow", lambda j: condition(j, "Complete"))
        await case.lab.client.request("DELETE", case.path("pods"))
        case.operator.held = False
        await until(case, case.quiet)
        assert [f["reason"] for f in status(case)["failures"]] == ["ResultsLost"]


async def bad_results_are_refused_one_by_one(case: Case) -> None:
    """Nothing, garbage, a NaN, a bomb, somebody else's result: each `InvalidResult`; the good one counts."""
    async with case.running():
        await case.submit(evaljob(NAME, ["silent", "garbage", "nan", "bomb", "wrong", "one"]))
        await finish(case, failed=5)
        assert {f["reason"] for f in status(case)["failures"]} == {"InvalidResult"}
        assert all(ord(c) >= 32 for f in status(case)["failures"] for c in f["message"])


async def an_evicted_pod_is_replaced_and_not_counted(case: Case) -> None:
    """BackoffLimit 0, and the partition succeeds: a disruption is no attempt."""
    async with case.running():
        await case.submit(evaljob(NAME, ["evicted"], backoffLimit=0))
        await finish(case)


async def a_quota_of_config_maps_is_told(case: Case) -> None:
    """No room for the plan, then none for the summary: each is said in words, then all goes on to the end."""

    def refused(name: str) -> bool:
        found = [c for c in status(case).get("conditions", ()) if c["type"] == "Accepted"]
        return any(c["reason"] == "QuotaExceeded" and name in c["message"] for c in found)

    path = f"/api/v1/namespaces/{case.namespace}/resourcequotas"

    async def room(total: int) -> None:
        await case.lab.client.request(
            "PATCH", f"{path}/maps", {"spec": {"hard": {"count/configmaps": str(total)}}}, MERGE
        )

    quota = {"metadata": {"name": "maps"}, "spec": {"hard": {"count/configmaps": "0"}}}
    await case.lab.client.request("POST", path, quota)
    async with case.running():
        await case.submit(evaljob(NAME, ["one", "two"]))
        await until(case, lambda: refused(f"{NAME}-plan-"))
        there = await case.lab.client.request("GET", case.path("configmaps"))
        await room(len(there["items"]) + 1)
        await until(case, lambda: refused(summary_name(NAME)) and all(map(record_of, case.jobs())))
        assert not case.finished
        await room(100)
        await finish(case)
        assert (await case.end_state())["summary"]


async def out_of_memory_is_named(case: Case) -> None:
    """`OOMKilled` when the retries are used up."""
    async with case.running():
        await case.submit(evaljob(NAME, ["oom", "one"], backoffLimit=0))
        await finish(case, failed=1)
        assert [f["reason"] for f in status(case)["failures"]] == ["OOMKilled"]


async def a_stopped_process_catches_up(case: Case) -> None:
    """SIGSTOP for a while stands for a blocked loop, a paused machine: it goes on as if nothing had been."""
    async with case.running():
        await case.submit(evaljob(NAME, ["slow", "one", "two"]))
        await until(case, lambda: bool(status(case)))
        assert case.operator is not None
        os.kill(case.operator.pid, signal.SIGSTOP)
        await asyncio.sleep(8)
        os.kill(case.operator.pid, signal.SIGCONT)
        await finish(case)


async def a_small_evaljob_beside_a_giant_does_not_wait_for_it(case: Case) -> None:
    """The first Job of the small one is there long before the last of the giant."""
    async with case.running():
        await case.submit(evaljob("giant", [f"endless{n}" for n in range(60)], 10, parallelism=600))
        await until(case, lambda: len(case.jobs("giant")) >= 20)
        await case.submit(evaljob(NAME, ["one"]))
        await until(case, lambda: bool(case.jobs()))
        assert len(case.jobs("giant")) < 500
        await until(case, lambda: NAME in finished_names(case), 120)


def finished_names(case: Case) -> set[str]:
    """EvalJobs that have come to their end."""
    return {c.obj["metadata"]["name"] for c in case.history.of("EvalJob") if condition(c.obj, "Finished")}


async def suspended_and_resumed_in_mid_run(case: Case) -> None:
    """Running pods stop, finished partitions stay, then the rest is run."""
    async with case.running():
        await case.submit(evaljob(NAME, ["long", "one"]))
        await job_when(case, "long", running)
        await job_when(case, "one", record_of)
        await case.lab.client.request(
            "PATCH", case.path("evaljobs", NAME), {"spec": {"suspend": True}}, MERGE
        )
        await job_when(case, "long", lambda j: condition(j, "Suspended"))
        assert record_of((await jobs(case))["one"]) is not None
        await case.lab.client.request(
            "PATCH", case.path("evaljobs", NAME), {"spec": {"suspend": False}}, MERGE
        )
        await finish(case)


async def an_api_server_that_is_killed_and_comes_back(case: Case) -> None:
    """`kill -9` of the API server in mid-run, five seconds without one. Not beside other scenarios."""
    plane = case.lab.plane
    async with case.running():
        await case.submit(evaljob(NAME, ["slow", "one"]))
        await until(case, lambda: bool(status(case)))
        plane.apiserver.kill()
        await asyncio.sleep(5)
        await asyncio.to_thread(plane.start_apiserver)
        await finish(case, starts=2)


async def the_crd_removed_and_installed_again(case: Case) -> None:
    """All EvalJobs go with it; once it is back the operator runs new ones. Not beside other scenarios.

    Kubernetes' garbage collector takes the Jobs only then: it cannot ask for owners of a kind that is not there.
    """
    plane = case.lab.plane
    async with case.running():
        await case.submit(evaljob(NAME, ["endless", "one"]))
        await job_when(case, "endless", running)
        # With the CRD goes the recorder's watch of EvalJobs: it does not see that they are deleted.
        case.history.allowed_deletions |= {j["metadata"]["name"] for j in (await jobs(case)).values()}
        await asyncio.to_thread(plane.kubectl.run, "delete", "crd", "evaljobs.evaljob.dev")
        await asyncio.sleep(3)
        await asyncio.to_thread(plane.install, [])
        made = await case.submit(evaljob(NAME, ["one", "two"]))
        await finish(case, starts=100)
        await only_owned_by(case, made["metadata"]["uid"])


ALONE: tuple[Scenario, ...] = (
    an_api_server_that_is_killed_and_comes_back,
    the_crd_removed_and_installed_again,
)
"""Nothing else can run on their plane."""
LONG: tuple[Scenario, ...] = (
    five_minutes_of_503_cost_a_request_a_second,
    a_process_of_which_a_watch_is_stale_ends_by_itself,
)
"""Six minutes each."""
PATIENT: tuple[Scenario, ...] = (
    an_outage_costs_few_requests_and_no_restart,
    a_right_taken_away_is_named_and_waited_for,
    a_quota_is_waited_for,
    a_quota_that_stays_ends_at_the_pending_deadline,
    a_quota_of_config_maps_is_told,
    out_of_time_it_keeps_what_has_finished_and_expires,
    a_deleted_summary_is_made_again,
    a_stopped_process_catches_up,
    suspended_and_resumed_in_mid_run,
)
"""They wait more than they compute."""
BUSY: tuple[Scenario, ...] = (
    two_replicas,
    a_rotated_token_is_taken_up,
    an_evaljob_deleted_in_mid_run_leaves_nothing,
    deleted_and_made_again_under_the_same_name,
    a_job_deleted_by_hand_is_run_again,
    a_retry_of_which_deletions_fail_is_carried_through,
    a_foreign_job_of_our_name_blocks_one_partition,
    a_namespace_can_go,
    an_edited_record_is_refused,
    a_pod_that_was_gone_before_it_was_read_is_a_loss,
    bad_results_are_refused_one_by_one,
    an_evicted_pod_is_replaced_and_not_counted,
    out_of_memory_is_named,
    a_small_evaljob_beside_a_giant_does_not_wait_for_it,
)


def names(*, long: bool) -> dict[str, Scenario]:
    """All scenarios by name; the long ones only if wanted."""
    return {s.__name__: s for s in (*(LONG if long else ()), *PATIENT, *BUSY, *ALONE)}
