"""`python -m tests.e2e.nodefaults`: nodes that are lost, programs of a node that die, an operator that is killed.

On a real cluster with real pods; every change of Jobs, EvalJobs and ConfigMaps is recorded and the invariants of
docs/reliability.md are checked. The last line is JSON: `faults`, `converged`, `violations`.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster import kind
from tests.cluster.machine import prepare
from tests.cluster.paths import Cache
from tests.cluster.shell import CommandError, Timeline, say
from tests.clusters import SPEC
from tests.e2e import nodes, own
from tests.e2e.evaljobs import SLOW, SMALL, Handle, Manifest, endpoint, evaljob, questions
from tests.e2e.own import OwnWorld
from tests.e2e.world import NAMESPACE, OPERATOR_NAMESPACE
from tests.faults.history import Recorder, violations
from tests.kube import Kubectl
from tests.plane.client import Client

RECORDER = "recorder"
UNREACHABLE = [
    {
        "key": f"node.kubernetes.io/{taint}",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 5,
    }
    for taint in ("unreachable", "not-ready")
]
"""Pods of a lost node are given up after 5 s and not after five minutes."""


@dataclass(frozen=True)
class Fault:
    """Something that happens in the middle of a run.

    Attributes:
        name: Also the EvalJob's.
        strike: Does it; it may wait for what must be told meanwhile.
        datasets: Partitions of the run.
        samples: Of each; one takes a second.
    """

    name: str
    strike: Callable[[OwnWorld, Handle], None]
    datasets: int = 8
    samples: int = 6

    def manifest(self) -> Manifest:
        """The run: every attempt that fails fails the partition, so that a disruption that counts is seen."""
        model = endpoint("slow", SLOW, runner={**SMALL, "tolerations": UNREACHABLE})
        sets = [questions(f"d{i}", self.samples) for i in range(self.datasets)]
        return evaljob(self.name, [model], sets, parallelism=4, backoffLimit=0)


def hanging_kubelets(world: OwnWorld, _: Handle) -> None:
    with nodes.hanging(world, "kubelet"):
        time.sleep(20)


def _stuck(handle: Handle, node: str) -> bool:
    told = [f for f in handle.status().get("failures", ()) if f["reason"] == "PodStuckTerminating"]
    return any(node in f["message"] for f in told)


def paused_node(world: OwnWorld, handle: Handle) -> None:
    """It comes back after its pods were given up: they end, and others go on."""
    victim = world.cluster.nodes[2]
    world.machine.docker("pause", victim)
    try:
        handle.until(lambda: _stuck(handle, victim), 300)
    finally:
        world.machine.docker("unpause", victim)


def dead_node(world: OwnWorld, handle: Handle) -> None:
    """It stays off until somebody says that it will: the others finish its partitions."""
    victim = world.cluster.nodes[2]
    world.machine.docker("kill", victim)
    try:
        handle.until(lambda: _stuck(handle, victim), 300)
        world.kubectl.run("taint", "node", victim, nodes.LOST)
        handle.finished(300)
    finally:
        world.machine.docker("start", victim)
        world.kubectl.run("taint", "node", victim, f"{nodes.LOST}-")


def killed_operator(rng: random.Random) -> Callable[[OwnWorld, Handle], None]:
    def strike(world: OwnWorld, _: Handle) -> None:
        for _kill in range(rng.randint(2, 4)):
            time.sleep(rng.uniform(0.5, 6.0))
            nodes.take_operator(world)

    return strike


def faults(rounds: int, seed: int) -> list[Fault]:
    """All of them; the operator is killed in so many runs of 20 partitions."""
    several = [
        Fault("kubelets-killed", lambda world, _: nodes.kill(world, "kubelet")),
        Fault("containerds-killed", lambda world, _: nodes.kill(world, "containerd")),
        Fault("kubelets-hang", hanging_kubelets),
        Fault("control-plane-restarted", lambda world, _: nodes.restart_control_plane(world)),
        Fault("node-paused", paused_node, datasets=4, samples=90),
        Fault("node-dead", dead_node, datasets=4, samples=90),
    ]
    dice = (random.Random(f"{seed} {n}") for n in range(rounds))  # noqa: S311 - no secret
    return several + [
        Fault(f"operator-killed-{n}", killed_operator(rng), datasets=20, samples=2)
        for n, rng in enumerate(dice)
    ]


@dataclass(frozen=True)
class Access:
    """A cluster's API server, for one user's token."""

    server: str
    ca: Path
    shown: str

    def token(self, user: str) -> str:  # noqa: ARG002 - there is one
        """What the recorder shows."""
        return self.shown


def access(world: OwnWorld, folder: Path) -> Access:
    """A service account that may see everything; its rights go with the test's cluster."""
    meta = {"name": RECORDER, "namespace": NAMESPACE}
    subject = {"kind": "ServiceAccount", **meta}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    world.kubectl.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    world.kubectl.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": f"e2e-{RECORDER}"},
            "roleRef": role,
            "subjects": [subject],
        }
    )
    found = yaml.safe_load(world.cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
    ca = folder / "ca.crt"
    ca.write_bytes(base64.b64decode(found["certificate-authority-data"]))
    token = world.kubectl.run("create", "token", RECORDER, "-n", NAMESPACE, "--duration=8h").strip()
    return Access(found["server"], ca, token)


def keep_apart(world: OwnWorld) -> None:
    """Operator and DNS leave the node that is taken away; the served model is not there anyway."""
    steady = {
        world.torch_node: ("evaljob", OPERATOR_NAMESPACE),
        world.cluster.nodes[0]: ("coredns", "kube-system"),
    }
    for node, (name, namespace) in steady.items():
        spec = {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": node}}}}
        patch = json.dumps({"spec": spec})
        world.kubectl.run("patch", "deployment", name, "-n", namespace, "-p", patch)
        world.kubectl.run(
            "rollout", "status", f"deployment/{name}", "-n", namespace, "--timeout=120s", timeout=130
        )


@dataclass(frozen=True)
class Verdict:
    """What came of a fault."""

    name: str
    seconds: float
    problem: str
    """Empty: the run came to the end that it has without the fault."""


def play(world: OwnWorld, fault: Fault) -> Verdict:
    """One run with its fault in the middle."""
    started, problem = time.monotonic(), ""
    handle = Handle(world, fault.name)
    world.kubectl.apply(fault.manifest())
    try:
        handle.until(lambda: len(_running(handle)) >= 2)
        fault.strike(world, handle)
        status = handle.finished(600)
        wanted = ("Complete", f"{fault.datasets}/{fault.datasets}", 0)
        if (status["state"], status["progress"], status["failed"]) != wanted:
            problem = f"{status['state']}: {status.get('failures')}"
        world.each_sample_once(fault.name, fault.datasets * fault.samples)
    except (AssertionError, CommandError) as error:
        problem = problem or f"{error}"
    nodes.wait_ready(world)
    return Verdict(fault.name, time.monotonic() - started, problem)


def _running(handle: Handle) -> list[str]:
    return [p["metadata"]["name"] for p in handle.get("pods") if p["status"]["phase"] == "Running"]


@contextlib.asynccontextmanager
async def recorded(world: OwnWorld) -> AsyncIterator[Recorder]:
    """Everything that changes is recorded for the time of the block."""
    folder = world.cluster.kubeconfig.parent
    async with Client(access(world, folder), RECORDER) as client:
        recorder = Recorder(client)
        task = asyncio.create_task(recorder.run())
        try:
            yield recorder
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def run(world: OwnWorld, wanted: Sequence[Fault]) -> tuple[list[Verdict], list[str]]:
    """All of them, one after the other."""
    verdicts: list[Verdict] = []
    async with recorded(world) as recorder:
        for fault in wanted:
            verdict = await asyncio.to_thread(play, world, fault)
            say(f"    {verdict.name}: {verdict.problem or 'as without it'} ({verdict.seconds:.0f} s)")
            verdicts.append(verdict)
        broken = violations(recorder.of(NAMESPACE))
    for fault in wanted:
        delete = ("delete", "evaljob", fault.name, "-n", NAMESPACE, "--ignore-not-found", "--wait")
        await asyncio.to_thread(world.kubectl.run, *delete)
    return verdicts, broken


def main(arguments: Sequence[str]) -> int:
    """Run it on the cluster of the end-to-end tests, which stays; the exit code says whether all is well."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.e2e.nodefaults", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5, help="runs of 20 partitions with a killed operator")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="NAME", nargs="+", help="only these faults")
    args = parser.parse_args(arguments)
    wanted = [f for f in faults(args.rounds, args.seed) if not args.only or f.name in args.only]
    machine = prepare(Cache.from_env(os.environ), Timeline())
    cluster = kind.up(machine, SPEC, Timeline())
    world = own.make(machine, cluster, Kubectl(cluster.context, cluster.kubeconfig, machine.path))
    keep_apart(world)
    started = time.monotonic()
    verdicts, broken = asyncio.run(run(world, wanted))
    for line in (*broken, *(f"{v.name}: {v.problem}" for v in verdicts if v.problem)):
        print(line)
    report = {
        "faults": len(verdicts),
        "converged": sum(not v.problem for v in verdicts),
        "violations": len(broken),
        "slowest_s": round(max((v.seconds for v in verdicts), default=0)),
        "seconds": round(time.monotonic() - started),
    }
    print(json.dumps(report))
    return 0 if report["converged"] == len(verdicts) and not broken else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
