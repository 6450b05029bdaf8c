"""What can happen to the machines under a run: programs of a node that die or hang, nodes that go and come back."""

import contextlib
from collections.abc import Iterator
from functools import partial

from tests.cluster import kind
from tests.cluster.shell import CommandError
from tests.e2e.evaljobs import Handle
from tests.e2e.own import OwnWorld
from tests.e2e.world import OPERATOR_NAMESPACE, World

LOST = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
"""Says that a node is off for good, so that its pods may be taken for ended."""
# The multi-call binary runs under the name of each program; no pkill in the node's image.
_SIGNAL = (
    'for p in /proc/[0-9]*; do [ "$(cat $p/comm)" = {program} ] && kill -{signal} ${{p#/proc/}}; done; true'
)
# Runs inside the operator's container: SIGKILL to the program, which the kubelet then starts again.
_KILL_OPERATOR = """
import os, pathlib, signal
for p in pathlib.Path("/proc").iterdir():
    if p.name.isdigit() and int(p.name) not in (1, os.getpid()):
        if b"evaljob_operator" in (p / "cmdline").read_bytes():
            os.kill(int(p.name), signal.SIGKILL)
"""


def send(world: OwnWorld, node: str, program: str, signal: str) -> None:
    """A signal to a program of a node; killed ones are started again by the node's first process."""
    world.machine.docker("exec", node, "sh", "-c", _SIGNAL.format(program=program, signal=signal))


def kill(world: OwnWorld, program: str) -> None:
    """`kill -9` of a program on all workers at once."""
    for node in world.cluster.nodes[1:]:
        send(world, node, program, "KILL")


@contextlib.contextmanager
def hanging(world: OwnWorld, program: str) -> Iterator[None]:
    """A program on all workers stands still for the time of the block."""
    for node in world.cluster.nodes[1:]:
        send(world, node, program, "STOP")
    try:
        yield
    finally:
        for node in world.cluster.nodes[1:]:
            send(world, node, program, "CONT")


def restart_control_plane(world: OwnWorld) -> None:
    """Etcd, API server, controllers and scheduler, as after a power cut; ends when the API server answers."""
    world.machine.docker("restart", "--time=0", world.cluster.nodes[0])
    Handle(world, "control plane").until(lambda: _answers(world), 120)


def _answers(world: World) -> bool:
    try:
        return world.kubectl.run("get", "--raw", "/readyz", timeout=10) == "ok"
    except CommandError:
        return False


def wait_ready(world: OwnWorld) -> None:
    """All nodes are ready and have their simulated GPUs, which a restarted kubelet sets to 0."""
    world.kubectl.run("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=180s", timeout=190)
    kind.simulate_gpus(partial(world.machine.kubectl, world.cluster.name), 8, world.cluster.nodes[1:])


def kill_operator(world: World) -> None:
    """`kill -9`, and wait until the kubelet has started it again."""
    before = restarts(world)
    with contextlib.suppress(CommandError):  # the command dies with the container it runs in
        where = ("-n", OPERATOR_NAMESPACE, "deploy/evaljob")
        world.kubectl.run("exec", *where, "--", "python", "-c", _KILL_OPERATOR)
    Handle(world, "operator").until(lambda: restarts(world) > before, 90)


def take_operator(world: World) -> None:
    """`kill -9`, pod and all: there is another at once, while a container is started later each time."""
    force = ("--all", "--force", "--grace-period=0", "--wait=false")
    world.kubectl.run("delete", "pods", "-n", OPERATOR_NAMESPACE, *force)


def restarts(world: World) -> int:
    """How often the operator's container has been started again."""
    pods = world.kubectl.get_json("get", "pods", "-n", OPERATOR_NAMESPACE)["items"]
    return sum(c["restartCount"] for p in pods for c in p["status"].get("containerStatuses", ()))
