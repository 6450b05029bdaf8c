"""Why Kueue holds a Job back, as its Workloads tell."""

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest

from evaljob.planning import Settings
from evaljob_operator.api import ForbiddenError
from evaljob_operator.workloads import Workloads, held_back
from evaljob_operator.world import World
from tests.unit.builders import job_view
from tests.unit.fakeapi import FakeApi

PATH = "/apis/kueue.x-k8s.io/v1beta2/namespaces/evals/workloads"
LACKS = "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor default, 3 more needed"
HELD = job_view(queue="gpu", suspended=True)


def workload(status: dict[str, Any], job: str = "job-1") -> dict[str, Any]:
    return {"metadata": {"labels": {"kueue.x-k8s.io/job-uid": job}}, "status": status}


def reserved(status: str, message: str = "") -> dict[str, Any]:
    return {"type": "QuotaReserved", "status": status, "reason": "Pending", "message": message}


PREEMPTED = {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "Preempted to make room"}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({}, ""),
        ({"conditions": []}, ""),
        ({"conditions": [reserved("False", LACKS)]}, LACKS),
        ({"conditions": [PREEMPTED, reserved("False", "Preempted to accommodate a workload (UID: 1)")]},
         "Preempted to accommodate a workload (UID: 1)"),
        ({"conditions": [reserved("True", "Quota reserved")],
          "admissionChecks": [{"name": "budget", "state": "Ready"},
                              {"name": "nodes", "state": "Pending", "message": "provisioning"},
                              {"name": "owner", "state": "Pending"}]}, "nodes: provisioning; owner: Pending"),
        ({"conditions": [reserved("True", "Quota reserved"), {"type": "Admitted", "status": "True"}]}, ""),
    ],
)  # fmt: skip
def test_a_workload_says_why_it_is_held_back(status: dict[str, Any], words: str) -> None:
    assert held_back(workload(status)) == words


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def kueue() -> FakeApi:
    api = FakeApi()
    api.objects["/apis/kueue.x-k8s.io"] = {"preferredVersion": {"version": "v1beta2"}}
    api.put(f"{PATH}/job-x", workload({"conditions": [reserved("False", LACKS)]}))
    return api


def workloads(api: FakeApi, clock: Clock | None = None, *, enabled: bool = True) -> Workloads:
    world = World(
        api=api,
        informers={},
        catalogue={},
        settings=Settings(),
        now=lambda: datetime.now(UTC),
        monotonic=clock or Clock(),
        random=lambda: 0.0,
        kueue=enabled,
    )
    return Workloads(world, "evals")


async def test_what_kueue_holds_is_looked_at_once_a_minute_in_the_version_it_prefers() -> None:
    api, clock = kueue(), Clock()
    found = workloads(api, clock)
    await found.refresh([HELD])
    assert found.words == {"job-1": LACKS}
    clock.now = 59.0
    assert await found.refresh([HELD]) == 1
    clock.now = 60.0
    await found.refresh([HELD])
    assert api.reads == ["GET /apis/kueue.x-k8s.io", f"GET {PATH}", f"GET {PATH}"]


async def test_one_of_which_nothing_is_told_yet_is_looked_at_earlier() -> None:
    api, clock = kueue(), Clock()
    found = workloads(api, clock)
    await found.refresh([HELD])
    second = dataclasses.replace(HELD, uid="job-2")
    clock.now = 14.0
    assert await found.refresh([HELD, second]) == 1
    api.put(f"{PATH}/job-y", workload({"conditions": [reserved("False", "later")]}, "job-2"))
    clock.now = 15.0
    await found.refresh([HELD, second])
    assert found.words == {"job-1": LACKS, "job-2": "later"}


async def test_at_most_five_are_looked_at() -> None:
    api = kueue()
    await workloads(api).refresh([dataclasses.replace(HELD, uid=f"job-{i}") for i in range(99)])
    assert api.reads.count(f"GET {PATH}") == 5


@pytest.mark.parametrize(
    ("job", "enabled"),
    [
        (HELD, False),
        (job_view(queue="gpu"), True),
        (job_view(suspended=True), True),
        (job_view(queue="gpu", suspended=True, finished="Failed"), True),
    ],
)
async def test_otherwise_nothing_is_asked(job: Any, enabled: bool) -> None:  # noqa: ANN401
    api = kueue()
    assert await workloads(api, enabled=enabled).refresh([job]) is None
    assert api.reads == []


async def test_without_kueue_or_the_right_the_reason_is_only_less_precise() -> None:
    found = workloads(FakeApi())
    assert await found.refresh([HELD]) == 15
    assert found.words == {}
    api = kueue()
    api.faults = [(f"GET {PATH}", ForbiddenError(403, "Forbidden", "no"))]
    found = workloads(api)
    assert await found.refresh([HELD]) == 15
    assert found.words == {}
