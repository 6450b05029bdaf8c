"""Killed, suspended, deleted, made again: nothing is lost, nothing is doubled."""

import pytest

from tests.e2e import nodes
from tests.e2e.conftest import Submit
from tests.e2e.evaljobs import SLOW, Handle, Manifest, endpoint, evaljob, questions
from tests.e2e.world import NAMESPACE, World

pytestmark = pytest.mark.cluster


def _slow(name: str, datasets: int, samples: int = 4, **spec: object) -> Manifest:
    """Partitions that take a few seconds each, at a slow endpoint."""
    sets = [questions(f"d{i}", samples) for i in range(datasets)]
    return evaljob(name, [endpoint("slow", SLOW)], sets, **{"parallelism": 2, **spec})


def test_killed_twice_the_operator_loses_and_doubles_nothing(world: World, submit: Submit) -> None:
    handle = submit(_slow("killed", datasets=6))
    handle.until(lambda: handle.done() >= 1)
    nodes.kill_operator(world)
    handle.until(lambda: handle.done() >= 3)
    nodes.kill_operator(world)
    status = handle.finished()
    assert (status["state"], status["progress"]) == ("Complete", "6/6")
    assert len(handle.get("jobs")) == 6
    assert len(handle.get("pods")) == 6
    world.each_sample_once("killed", 24)


def test_recreated_under_the_same_name_it_is_a_new_run(world: World, submit: Submit) -> None:
    manifest = _slow("again", datasets=3)
    first = submit(manifest)
    first.until(lambda: first.done() >= 1)
    old = {j["metadata"]["uid"] for j in first.get("jobs")}
    world.kubectl.run("delete", "evaljob", "again", "-n", NAMESPACE, "--wait=false")
    second = submit(manifest)
    assert second.finished()["state"] == "Complete"
    owners = {j["metadata"]["ownerReferences"][0]["uid"] for j in second.get("jobs")}
    assert owners == {second.body()["metadata"]["uid"]}
    assert not old & {j["metadata"]["uid"] for j in second.get("jobs")}


def test_a_pod_killed_in_mid_run_recomputes_no_finished_sample(world: World, submit: Submit) -> None:
    handle = submit(_slow("podkill", datasets=1, samples=8))
    handle.until(lambda: len([s for s in world.samples("podkill") if "outcome" in s]) >= 3)
    (pod,) = handle.get("pods")
    world.kubectl.run("delete", "pod", pod["metadata"]["name"], "-n", NAMESPACE, "--wait=false")
    assert handle.finished()["state"] == "Complete"
    outcomes = handle.cell("slow", "d0")["outcomes"]
    assert outcomes["completed"] == 8
    assert 3 <= outcomes["fromLog"] < 8
    world.each_sample_once("podkill", 8)


def test_suspended_it_frees_its_gpus_and_resumed_it_ends(world: World, submit: Submit) -> None:
    # Long enough that the second pair is far from its end when the first is seen.
    handle = submit(_slow("pause", datasets=4, samples=12))
    handle.until(lambda: handle.done() >= 1)
    handle.patch(suspend=True)
    handle.until(lambda: handle.status()["state"] == "Suspended" and not _holding_gpus(handle), 90)
    assert handle.done() < 4
    handle.patch(suspend=False)
    status = handle.finished()
    assert (status["state"], status["progress"]) == ("Complete", "4/4")
    world.each_sample_once("pause", 48)


def _holding_gpus(handle: Handle) -> list[str]:
    """Pods that the scheduler still counts."""
    return [
        p["metadata"]["name"]
        for p in handle.get("pods")
        if p["status"]["phase"] not in ("Succeeded", "Failed")
    ]


def test_a_job_deleted_by_hand_is_run_again(world: World, submit: Submit) -> None:
    handle = submit(_slow("byhand", datasets=2))
    handle.until(lambda: len(handle.get("jobs")) == 2)
    victim = handle.get("jobs")[0]["metadata"]
    world.kubectl.run("delete", "job", victim["name"], "-n", NAMESPACE, "--wait=false")
    assert handle.finished()["state"] == "Complete"
    jobs = {j["metadata"]["name"]: j["metadata"]["uid"] for j in handle.get("jobs")}
    assert len(jobs) == 2
    assert jobs[victim["name"]] != victim["uid"]


def test_out_of_time_its_gpus_are_free_at_the_end_and_then_it_expires(world: World, submit: Submit) -> None:
    sets = [questions("quick", 2), questions("endless", 200), questions("never", 2)]
    model = endpoint("slow", SLOW)
    handle = submit(evaljob("hurry", [model], sets, parallelism=1, activeDeadlineSeconds=15))
    status = handle.finished(90)
    assert _holding_gpus(handle) == []
    assert (status["state"], status["partitions"]["succeeded"], status["failed"]) == ("Failed", 1, 2)
    assert handle.cell("slow", "quick")["state"] == "Complete"
    for name in ("endless", "never"):
        assert handle.cell("slow", name)["reason"] == "DeadlineExceeded"
    assert len(handle.get("jobs")) == 2
    assert world.samples("hurry/slow/endless")
    handle.patch(ttlSecondsAfterFinished=0)
    handle.until(lambda: not handle.get("evaljobs,jobs,pods,configmaps"), 60)


def test_deleted_in_mid_run_it_leaves_nothing(world: World, submit: Submit) -> None:
    handle = submit(_slow("gone", datasets=4, samples=40))
    handle.until(lambda: len(_holding_gpus(handle)) == 2)
    world.kubectl.run("delete", "evaljob", "gone", "-n", NAMESPACE, "--wait=false")
    # The grace period of a runner is 60 s; it ends within a second or two of its SIGTERM.
    handle.until(lambda: not handle.get("jobs,pods,configmaps"), 60)
