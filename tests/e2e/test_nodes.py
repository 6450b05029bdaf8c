"""Nodes under a run: what they are made of dies and comes back. Whole nodes take longer: `make node-faults`."""

import pytest

from tests.e2e import nodes
from tests.e2e.conftest import Submit
from tests.e2e.evaljobs import SLOW, SMALL, Handle, endpoint, evaljob, questions
from tests.e2e.world import World

pytestmark = pytest.mark.cluster


def _run(submit: Submit, name: str) -> Handle:
    """Four partitions, two at a time; without GPUs, as a restarted kubelet forgets the simulated ones."""
    sets = [questions(f"d{i}", 6) for i in range(4)]
    return submit(evaljob(name, [endpoint("slow", SLOW, runner=SMALL)], sets, parallelism=2, backoffLimit=0))


def _ends_well(world: World, handle: Handle) -> None:
    status = handle.finished()
    assert (status["state"], status["progress"], status["failed"]) == ("Complete", "4/4", 0)
    assert len(handle.get("jobs")) == 4
    world.each_sample_once(handle.name, 24)
    nodes.wait_ready(world)


def test_kubelets_and_containerds_that_die_in_mid_run_cost_no_attempt(world: World, submit: Submit) -> None:
    handle = _run(submit, "daemons")
    handle.until(lambda: handle.done() >= 1)
    nodes.kill(world, "kubelet")
    handle.until(lambda: handle.done() >= 2)
    nodes.kill(world, "containerd")
    _ends_well(world, handle)


def test_a_control_plane_that_restarts_in_mid_run_costs_no_attempt(world: World, submit: Submit) -> None:
    handle = _run(submit, "power")
    handle.until(lambda: handle.done() >= 1)
    nodes.restart_control_plane(world)
    _ends_well(world, handle)
