"""A cluster of kind's for the tests alone: images are built and put onto its nodes, which share a folder with us."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.cluster import images, load
from tests.cluster.kind import Cluster
from tests.cluster.machine import Machine
from tests.cluster.paths import REPOSITORY
from tests.cluster.shell import Timeline
from tests.e2e import world as worlds
from tests.e2e.servers import Volume
from tests.e2e.world import CRD, NAMESPACE, OPERATOR_NAMESPACE, TINY, World
from tests.kube import Kubectl

_WITH_TORCH = ("runner-cpu", "serving", "runner-lm-eval")
_MOUNT = "/mnt/evaljob/e2e"
_CLAIMS = {
    "models": "ReadOnlyMany",
    "data": "ReadOnlyMany",
    "hub": "ReadOnlyMany",
    "cache": "ReadWriteMany",
    "output": "ReadWriteMany",
}


@dataclass(frozen=True)
class OwnWorld(World):
    """The tests' own cluster.

    Attributes:
        machine: Docker Engine and tools.
        cluster: Its nodes, of which the first is the control plane.
        data: The folder that they share with this machine.
        since: When the tests began.
    """

    machine: Machine
    cluster: Cluster
    data: Path
    since: datetime

    @property
    def torch_node(self) -> str:
        """The first worker: loading an image with torch takes 40 seconds a node."""
        return self.cluster.nodes[1]

    def volume(self, claim: str) -> Volume:
        """See World."""
        return Volume(claim)

    def log_lines(self, evaljob: str) -> list[str]:
        """See World."""
        files = sorted((self.data / "output" / evaljob).rglob("*.jsonl"))
        return [line for f in files for line in f.read_text().splitlines()]

    def forget(self, evaljob: str) -> None:
        """See World."""
        shutil.rmtree(self.data / "output" / evaljob, ignore_errors=True)

    def remove(self) -> None:
        """See World."""
        self.kubectl.run("delete", "namespace", NAMESPACE, OPERATOR_NAMESPACE, "--ignore-not-found", "--wait")
        # The chart keeps its CRD on purpose; users' EvalJobs would go with it.
        self.kubectl.run("delete", "crd", CRD, "--ignore-not-found")
        self.kubectl.run("delete", "pv", *(f"e2e-{c}" for c in _CLAIMS), "--ignore-not-found")
        shutil.rmtree(self.data, ignore_errors=True)


def make(machine: Machine, cluster: Cluster, kubectl: Kubectl) -> OwnWorld:
    """Build, load, install. Everything is idempotent, so that a kept cluster is reused in seconds."""
    timeline = Timeline()
    refs = images.build(machine, ["operator", "runner", *_WITH_TORCH], timeline)
    with timeline.stage("load images"):
        workers = list(cluster.nodes[1:])
        load.load(machine, cluster.name, [refs["operator"], refs["runner"]], workers)
        load.load(machine, cluster.name, [refs[name] for name in _WITH_TORCH], workers[:1])
    world = OwnWorld(kubectl, refs, machine, cluster, machine.cache.data / "e2e", datetime.now(tz=UTC))
    with timeline.stage("data"):
        _fill(world.data)
    with timeline.stage("install"):
        for name in (NAMESPACE, OPERATOR_NAMESPACE):
            kubectl.apply(worlds.namespace(name))
        kubectl.apply(_volumes())
        worlds.install(kubectl, refs, "Never")
        world.start_servers()
    return world


def _fill(folder: Path) -> None:
    """The shared folder: what all tests need, the same in a hub, two empty folders."""
    worlds.fill(folder)
    shutil.copytree(TINY / "model", folder / "hub" / "models" / "private" / "tiny")
    shutil.copytree(TINY / "data", folder / "hub" / "datasets" / "org" / "tiny")
    shutil.copytree(TINY / "data", folder / "hub" / "buckets" / "evals" / "tiny")
    for server in ("hub_server.py", "s3_server.py"):
        shutil.copy(REPOSITORY / "tests" / server, folder / "hub")
    for name in ("cache", "output"):
        written = folder / name
        written.mkdir()
        # fsGroup is not applied to hostPath: the runner's user must be able to write as it is.
        written.chmod(0o1777)


def _volumes() -> dict[str, Any]:
    """The claims of the tests."""
    items = [o for claim, mode in _CLAIMS.items() for o in persistent(claim, mode, f"{_MOUNT}/{claim}")]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def persistent(claim: str, mode: str, path: str) -> list[dict[str, Any]]:
    """A static hostPath volume with its claim, as examples/quickstart/storage.yaml has them."""
    common = {"accessModes": [mode], "storageClassName": ""}
    spec = {
        **common,
        "capacity": {"storage": "1Gi"},
        "claimRef": {"namespace": NAMESPACE, "name": claim},
        "hostPath": {"path": path, "type": "Directory"},
    }
    wish = {**common, "volumeName": f"e2e-{claim}", "resources": {"requests": {"storage": "1Gi"}}}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"e2e-{claim}"},
            "spec": spec,
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": claim, "namespace": NAMESPACE},
            "spec": wish,
        },
    ]
