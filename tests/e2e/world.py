"""What the end-to-end tests stand on: a cluster, images, data, a namespace, volumes, the chart, servers."""

import json
import shutil
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.cluster import images, kind, load
from tests.cluster.machine import Machine
from tests.cluster.paths import REPOSITORY
from tests.cluster.shell import Timeline, run
from tests.e2e import servers
from tests.kube import Kubectl

NAMESPACE = servers.NAMESPACE
OPERATOR_NAMESPACE = "evaljob-system"
TINY = REPOSITORY / "tests" / "tiny"
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
class World:
    """A cluster with the operator installed, and the folder that its nodes share with this machine."""

    machine: Machine
    cluster: kind.Cluster
    kubectl: Kubectl
    data: Path
    images: dict[str, str]
    since: datetime
    """When the tests began."""

    @property
    def torch_node(self) -> str:
        """The one worker that holds the images with torch: loading one takes 40 seconds a node."""
        return self.cluster.nodes[1]

    def samples(self, evaljob: str) -> list[dict[str, Any]]:
        """Every line of an EvalJob's sample logs, over all attempts."""
        files = sorted((self.data / "output" / evaljob).rglob("*.jsonl"))
        return [json.loads(line) for f in files for line in f.read_text().splitlines()]

    def each_sample_once(self, evaljob: str, expected: int) -> None:
        """Every sample was computed exactly once, over all attempts of all partitions."""
        answers = [s for s in self.samples(evaljob) if "outcome" in s]
        seen = Counter((s["inferenceDigest"], s["id"]) for s in answers)
        assert set(seen.values()) == {1}
        assert len(seen) == expected


def make(machine: Machine, cluster: kind.Cluster, kubectl: Kubectl) -> World:
    """Build, load, install. Everything is idempotent, so that a kept cluster is reused in seconds."""
    timeline = Timeline()
    refs = images.build(machine, ["operator", "runner", *_WITH_TORCH], timeline)
    with timeline.stage("load images"):
        workers = list(cluster.nodes[1:])
        load.load(machine, cluster.name, [refs["operator"], refs["runner"]], workers)
        load.load(machine, cluster.name, [refs[name] for name in _WITH_TORCH], workers[:1])
    world = World(machine, cluster, kubectl, machine.cache.data / "e2e", refs, datetime.now(tz=UTC))
    with timeline.stage("data"):
        _fill(world.data)
    with timeline.stage("install"):
        _namespaces(kubectl)
        kubectl.apply(_volumes())
        # First, as it takes longest to get ready; its tests wait for it.
        kubectl.apply(servers.transformers_serve(refs["runner-cpu"], refs["serving"], world.torch_node))
        _install(world)
        kubectl.apply(servers.stubs(refs["runner"], world.torch_node))
        for mode in servers.STUB_MODES:
            servers.wait(kubectl, f"stub-{mode}")
    return world


def _fill(folder: Path) -> None:
    """The shared folder: the tiny model, one with a NaN, the tiny datasets, both in a hub, two empty folders."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(TINY / "data", folder / "data")
    shutil.copytree(REPOSITORY / "tests" / "lmeval_tasks", folder / "data" / "tasks")
    for name in ("gsm", "mc", "kind"):
        _split(folder / "data" / f"{name}.jsonl", folder / "data" / "split" / name)
    shutil.copytree(TINY / "model", folder / "models" / "tiny")
    broken = folder / "models" / "nan"
    shutil.copytree(TINY / "model", broken)
    spoil(broken / "model.safetensors")
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


def _split(table: Path, folder: Path) -> None:
    """A table with a column `split` as a folder with a file for each."""
    folder.mkdir(parents=True)
    for text in table.read_text().splitlines(keepends=True):
        with (folder / f"{json.loads(text).get('split', 'test')}.jsonl").open("a") as file:
            file.write(text)


def spoil(weights: Path) -> None:
    """Put NaN in place of every number of a safetensors file's first tensor."""
    content = bytearray(weights.read_bytes())
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    start, end = next(v["data_offsets"] for k, v in header.items() if k != "__metadata__")
    content[8 + length + start : 8 + length + end] = b"\x00\x00\xc0\x7f" * ((end - start) // 4)
    weights.write_bytes(content)


def _namespaces(kubectl: Kubectl) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    for name in (NAMESPACE, OPERATOR_NAMESPACE):
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


def _volumes() -> dict[str, Any]:
    """The claims of the tests."""
    items = [o for claim, mode in _CLAIMS.items() for o in volume(claim, mode, f"{_MOUNT}/{claim}")]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def volume(claim: str, mode: str, path: str) -> list[dict[str, Any]]:
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


def _install(world: World) -> None:
    repository, _, tag = world.images["operator"].rpartition(":")
    values = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "runner": {
            "images": {
                "transformers": world.images["runner-cpu"],
                "openai": world.images["runner"],
                "lmEval": world.images["runner-lm-eval"],
            },
            "allowedMetadata": ["example.com/"],
        },
        "watchNamespaces": [NAMESPACE],
        # All that a careful installation switches on: every other test must pass with it.
        "security": {"admissionPolicy": True, "networkPolicies": True},
        "kueue": {"enabled": True},
    }
    run(
        "helm", "--kubeconfig", world.cluster.kubeconfig, "--kube-context", world.cluster.context,
        "upgrade", "--install", "evaljob", REPOSITORY / "charts" / "evaljob", "--namespace", OPERATOR_NAMESPACE,
        "--wait", "--timeout", "120s", "--values", "-",
        stdin=json.dumps(values), env={"PATH": world.machine.path},
    )  # fmt: skip


def remove(world: World) -> None:
    """Leave the cluster as it was found."""
    world.kubectl.run("delete", "namespace", NAMESPACE, OPERATOR_NAMESPACE, "--ignore-not-found", "--wait")
    # The chart keeps its CRD on purpose; users' EvalJobs would go with it.
    world.kubectl.run("delete", "crd", "evaljobs.evaljob.dev", "--ignore-not-found")
    world.kubectl.run("delete", "pv", *(f"e2e-{c}" for c in _CLAIMS), "--ignore-not-found")
