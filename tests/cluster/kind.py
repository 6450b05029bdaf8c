"""Real Kubernetes clusters of kind: made, reused, removed.

For fixtures:

    timeline = Timeline()
    machine = prepare(Cache.from_env(os.environ), timeline)
    cluster = kind.up(machine, ClusterSpec("evaljob-e2e", workers=2, gpus=8), timeline)
    refs = images.build(machine, ["operator"], timeline)
    load.load(machine, cluster.name, list(refs.values()), only=cluster.nodes[1:])
    kind.down(machine.docker, machine.cache, cluster.name)
"""

import contextlib
import ipaddress
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from tests.cluster import nodes
from tests.cluster.docker import Docker
from tests.cluster.machine import Machine
from tests.cluster.paths import HERE, Cache
from tests.cluster.shell import ClusterError, CommandError, Timeline, say

GPU = "nvidia.com/gpu"

Origin = Literal["created", "reused", "restarted"]


@dataclass(frozen=True)
class ClusterSpec:
    """What a cluster should be.

    Attributes:
        name: A DNS label; the context is called `kind-<name>`.
        workers: Nodes beside the control plane. With none, the control plane runs the pods.
        gpus: Simulated `nvidia.com/gpu` on each node that runs pods.
        data: A folder that every node mounts at /mnt/evaljob; none: `data` in the cache.
    """

    name: str
    workers: int = 0
    gpus: int = 0
    data: Path | None = None


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs.

    Attributes:
        name: As in its specification.
        context: The context in `kubeconfig`.
        kubeconfig: The file with its credentials.
        nodes: The control plane first.
        data: The folder behind /mnt/evaljob.
        origin: Whether it was there already.
    """

    name: str
    context: str
    kubeconfig: Path
    nodes: tuple[str, ...]
    data: Path
    origin: Origin


def up(machine: Machine, spec: ClusterSpec, timeline: Timeline) -> Cluster:
    """A cluster as specified: reused if it is healthy, started if it was stopped, else made anew.

    Raises:
        ClusterError: If kind cannot make it, or its nodes do not become ready.
    """
    data = (spec.data or machine.cache.data).resolve()
    data.mkdir(parents=True, exist_ok=True)
    names = node_names(spec)
    with machine.cache.lock(), timeline.stage(f"cluster {spec.name}"):
        origin = _reuse(machine, spec, data) or _create(machine, spec, data)
        simulate_gpus(partial(machine.kubectl, spec.name), spec.gpus, names[1:] or names)
    with timeline.stage("network and DNS ready"):
        for addon in ("daemonset/kube-proxy", "deployment/coredns"):
            status = ("rollout", "status", addon, "--timeout=120s")
            machine.kubectl(spec.name, "--namespace=kube-system", *status)
    kubeconfig = machine.cache.kubeconfig(spec.name)
    return Cluster(spec.name, f"kind-{spec.name}", kubeconfig, names, data, origin)


def down(docker: Docker | None, cache: Cache, name: str) -> None:
    """Leave nothing of a cluster: containers, their volumes, credentials. It may be gone already.

    Args:
        docker: The client; none where no engine runs.
        cache: Where the credentials are.
        name: The cluster's name.
    """
    if docker:
        containers = docker("ps", "-aq", "--filter", nodes.filter_of(name)).split()
        if containers:
            docker("rm", "-f", "-v", *containers)
        with contextlib.suppress(CommandError):  # another cluster still uses it
            docker("network", "rm", "kind")
    shutil.rmtree(cache.kubeconfig(name).parent, ignore_errors=True)


def node_names(spec: ClusterSpec) -> tuple[str, ...]:
    """What kind calls the nodes, the control plane first."""
    workers = ["worker", *(f"worker{number}" for number in range(2, spec.workers + 1))][: spec.workers]
    return tuple(f"{spec.name}-{role}" for role in ("control-plane", *workers))


def configuration(spec: ClusterSpec, image: str, data: Path, common: str) -> str:
    """The configuration file of a cluster.

    Args:
        spec: The cluster.
        image: The node image.
        data: The folder that every node mounts.
        common: What the nodes have in common, in YAML without `nodes`.
    """
    mounts = [{"hostPath": str(data), "containerPath": nodes.MOUNT}]
    roles = ["control-plane"] + ["worker"] * spec.workers
    listed = [{"role": role, "image": image, "extraMounts": mounts} for role in roles]
    return f"{common}\nname: {spec.name}\nnodes: {json.dumps(listed)}\n"


def _reuse(machine: Machine, spec: ClusterSpec, data: Path) -> Origin | None:
    """None if there is no such cluster or it is not what it should be."""
    found = nodes.containers(machine.docker, spec.name)
    if not found:
        return None
    wanted = {(name, machine.image.ref, str(data)) for name in node_names(spec)}
    if {(node.name, node.image, node.data) for node in found} != wanted:
        say(f"    cluster {spec.name} has other nodes, another image or another data folder: it is made anew")
        return None
    stopped = {node.name for node in found if not node.running}
    since = datetime.now(tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if stopped else ""
    for name in _start_order(machine.cache, spec):
        if name in stopped:
            machine.docker("start", name)
    try:
        _export_kubeconfig(machine, spec.name)
        _wait_for_nodes(machine, spec, since=since, seconds=60)
    except ClusterError as failure:
        say(f"    cluster {spec.name} is not healthy and is made anew: {failure}")
        return None
    return "restarted" if stopped else "reused"


def _create(machine: Machine, spec: ClusterSpec, data: Path) -> Origin:
    down(machine.docker, machine.cache, spec.name)
    machine.cache.kubeconfig(spec.name).parent.mkdir(parents=True)
    # kindest/node brings its own network, DNS and kubeadm settings.
    kindest = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4"
    common = (HERE / "node" / "kind.yaml").read_text() if machine.image.own else kindest
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(configuration(spec, machine.image.ref, data, common))
        file.flush()
        kubeconfig = str(machine.cache.kubeconfig(spec.name))
        machine.kind("create", "cluster", "--config", file.name, "--kubeconfig", kubeconfig, "--wait", "180s")
    _wait_for_nodes(machine, spec, since="", seconds=120)
    addresses = {node.address: node.name for node in nodes.containers(machine.docker, spec.name)}
    order = [addresses[address] for address in sorted(addresses, key=ipaddress.ip_address)]
    _start_order_file(machine.cache, spec.name).write_text("\n".join(order))
    return "created"


def _start_order(cache: Cache, spec: ClusterSpec) -> list[str]:
    """Docker gives out addresses in this order; certificates and routes need the old ones."""
    file = _start_order_file(cache, spec.name)
    return file.read_text().split() if file.exists() else list(node_names(spec))


def _start_order_file(cache: Cache, name: str) -> Path:
    return cache.kubeconfig(name).with_name("start-order")


def _export_kubeconfig(machine: Machine, name: str) -> None:
    path = machine.cache.kubeconfig(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    machine.kind("export", "kubeconfig", "--name", name, "--kubeconfig", str(path))


def _wait_for_nodes(machine: Machine, spec: ClusterSpec, *, since: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    failure = "some are missing or not ready"
    while time.monotonic() < end:
        try:
            listing = machine.kubectl(spec.name, "get", "nodes", "-o", "json")
            if nodes.all_ready(listing, node_names(spec), since):
                return
        except CommandError as refused:  # a control plane that starts drops the connection
            failure = str(refused)
        time.sleep(0.5)
    raise ClusterError(f"nodes of {spec.name} are not ready after {seconds:g} s: {failure}")


def simulate_gpus(kubectl: Callable[..., str], amount: int, names: Sequence[str]) -> None:
    """Let nodes report GPUs: the scheduler and the kubelet account for what the node's status says.

    A restarted kubelet sets such resources to 0: hence at each `up`.

    Args:
        kubectl: Runs kubectl against the cluster.
        amount: GPUs on each node.
        names: The nodes.
    """
    resources = {GPU: str(amount)}
    patch = json.dumps({"status": {"capacity": resources, "allocatable": resources}})
    for node in names:
        kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", patch)
