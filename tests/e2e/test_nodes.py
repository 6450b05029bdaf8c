"""Nodes under a run: what they are made of dies and comes back. Whole nodes take longer: `make node-faults`."""

import pytest

from tests.e2e import nodes
from tests.e2e.conftest import Submit
from tests.e2e.evaljobs import SLOW, SMALL, endpoint, evaljob, questions
from tests.e2e.own import OwnWorld

pytestmark = pytest.mark.cluster


def test_kubelets_containerds_and_a_control_plane_that_die_in_mid_run_cost_no_attempt(
    own_world: OwnWorld, submit: Submit
) -> None:
    # Without GPUs, as a restarted kubelet forgets the simulated ones.
    model = endpoint("slow", SLOW, runner=SMALL)
    sets = [questions(f"d{i}", 6) for i in range(5)]
    handle = submit(evaljob("dying", [model], sets, parallelism=2, backoffLimit=0))
    handle.until(lambda: handle.done() >= 1)
    nodes.kill(own_world, "kubelet")
    handle.until(lambda: handle.done() >= 2)
    nodes.kill(own_world, "containerd")
    nodes.restart_control_plane(own_world)
    status = handle.finished()
    assert (status["state"], status["progress"], status["failed"]) == ("Complete", "5/5", 0)
    assert len(handle.get("jobs")) == 5
    own_world.each_sample_once("dying", 30)
    nodes.wait_ready(own_world)
