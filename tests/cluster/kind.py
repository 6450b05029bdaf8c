"""Real Kubernetes clusters of kind: made or reused, filled with images, removed.

For fixtures:

    machine = prepare(Cache.from_env(os.environ), Timeline())
    cluster = up(machine, ClusterSpec("evaljob-e2e", workers=2, gpus=8))
    load(machine, cluster.name, [ref], nodes=cluster.nodes[1:])
    down(machine.docker, machine.cache, cluster.name)
"""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.cluster.docker import Docker
from tests.cluster.machine import Machine
from tests.cluster.paths import HERE, Cache
from tests.cluster.shell import ClusterError, CommandError, Timeline, say

MOUNT = "/mnt/evaljob"
GPU = "nvidia.com/gpu"
_LABEL = "io.x-k8s.kind.cluster"

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
    with timeline.stage(f"cluster {spec.name}"):
        origin = _reuse(machine, spec, data) or _create(machine, spec, data)
    with timeline.stage("network and DNS ready"):
        machine.kubectl(
            spec.name, "-n", "kube-system", "rollout", "status", "daemonset/kube-proxy", "--timeout=120s"
        )
        machine.kubectl(
            spec.name, "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=120s"
        )
    nodes = node_names(spec)
    _simulate_gpus(machine, spec, nodes[1:] or nodes)
    kubeconfig = machine.cache.kubeconfig(spec.name)
    return Cluster(spec.name, f"kind-{spec.name}", kubeconfig, nodes, data, origin)


def down(docker: Docker | None, cache: Cache, name: str) -> None:
    """Leave nothing of a cluster: containers, their volumes, credentials. It may be gone already.

    Args:
        docker: The client; none where no engine runs.
        cache: Where the credentials are.
        name: The cluster's name.
    """
    if docker:
        nodes = docker("ps", "-aq", "--filter", f"label={_LABEL}={name}").split()
        if nodes:
            docker("rm", "-f", "-v", *nodes)
        with contextlib.suppress(CommandError):  # another cluster still uses it
            docker("network", "rm", "kind")
    shutil.rmtree(cache.kubeconfig(name).parent, ignore_errors=True)


def load(machine: Machine, name: str, refs: Sequence[str], nodes: Sequence[str] = ()) -> dict[str, list[str]]:
    """Copy images from the engine to nodes; those that hold an image already are left out.

    Args:
        machine: The machine of the cluster.
        name: The cluster.
        refs: Images in the engine.
        nodes: The nodes that get them; none: all.

    Returns:
        For each image the nodes it was copied to.
    """
    known = machine.kind("get", "nodes", "--name", name).split()
    unknown = set(nodes) - set(known)
    if unknown:
        raise ClusterError(f"cluster {name} has no node {sorted(unknown)}; it has {sorted(known)}")
    listings = {node: _images_of(machine, node) for node in nodes or sorted(known)}
    copied = {}
    for ref in refs:
        image = machine.docker("image", "inspect", "--format", "{{.Id}}", ref).strip()
        copied[ref] = [node for node, listing in listings.items() if not holds(listing, ref, image)]
        if copied[ref]:
            machine.kind("load", "docker-image", ref, "--name", name, "--nodes", ",".join(copied[ref]))
    return copied


def holds(listing: str, ref: str, image: str) -> bool:
    """Whether a node's `ctr images ls` shows an image under this name and with this content.

    containerd lists an image by name and by the digest of its configuration, which is Docker's image id;
    both lines carry the digest of its manifest.

    Args:
        listing: What `ctr images ls` printed.
        ref: The name with its registry or repository, and tag.
        image: The engine's id of the image, `sha256:...`.
    """
    rows = {words[0]: words[2] for line in listing.splitlines() if len(words := line.split()) > 2}
    manifest = rows.get(ref) or rows.get(f"docker.io/{ref}") or rows.get(f"docker.io/library/{ref}")
    return manifest is not None and manifest in {rows.get(image), image}


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
    mounts = [{"hostPath": str(data), "containerPath": MOUNT}]
    roles = ["control-plane"] + ["worker"] * spec.workers
    nodes = [{"role": role, "image": image, "extraMounts": mounts} for role in roles]
    return f"{common}\nname: {spec.name}\nnodes: {json.dumps(nodes)}\n"


@dataclass(frozen=True)
class _Node:
    """What matters of a node's container."""

    name: str
    running: bool
    image: str
    data: str


def _reuse(machine: Machine, spec: ClusterSpec, data: Path) -> Origin | None:
    """None if there is no such cluster or it is not what it should be."""
    found = _containers(machine.docker, spec.name)
    if not found:
        return None
    wanted = {_Node(name, True, machine.image.ref, str(data)) for name in node_names(spec)}
    if {_Node(node.name, True, node.image, node.data) for node in found} != wanted:
        say(f"    cluster {spec.name} has other nodes, another image or another data folder: it is made anew")
        return None
    stopped = [node.name for node in found if not node.running]
    if stopped:
        machine.docker("start", *sorted(stopped))
    try:
        _export_kubeconfig(machine, spec.name)
        _wait_for_nodes(machine, spec.name, seconds=60)
    except CommandError as failure:
        say(f"    cluster {spec.name} is not healthy: it is made anew ({failure})")
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
    _wait_for_nodes(machine, spec.name, seconds=120)
    return "created"


def _containers(docker: Docker, name: str) -> list[_Node]:
    ids = docker("ps", "-aq", "--filter", f"label={_LABEL}={name}").split()
    return [
        _Node(
            name=container["Name"].removeprefix("/"),
            running=container["State"]["Running"],
            image=container["Config"]["Image"],
            data=next((m["Source"] for m in container["Mounts"] if m["Destination"] == MOUNT), ""),
        )
        for container in (json.loads(docker("inspect", *ids)) if ids else [])
    ]


def _images_of(machine: Machine, node: str) -> str:
    return machine.docker("exec", node, "ctr", "-n", "k8s.io", "images", "ls")


def _export_kubeconfig(machine: Machine, name: str) -> None:
    path = machine.cache.kubeconfig(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    machine.kind("export", "kubeconfig", "--name", name, "--kubeconfig", str(path))


def _wait_for_nodes(machine: Machine, name: str, *, seconds: int) -> None:
    machine.kubectl(name, "wait", "nodes", "--all", "--for=condition=Ready", f"--timeout={seconds}s")


def _simulate_gpus(machine: Machine, spec: ClusterSpec, nodes: Sequence[str]) -> None:
    """The scheduler and the kubelet account for what the node's status says.

    A restarted kubelet sets such resources to 0: hence at each `up`.
    """
    amount = {GPU: str(spec.gpus)}
    patch = json.dumps({"status": {"capacity": amount, "allocatable": amount}})
    for node in nodes:
        machine.kubectl(spec.name, "patch", "node", node, "--subresource=status", "--type=merge", "-p", patch)
