"""What the end-to-end tests stand on: a cluster, images, data, a namespace, volumes, the chart, a stub server."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import images, kind, load
from tests.cluster.machine import Machine
from tests.cluster.paths import REPOSITORY
from tests.cluster.shell import Timeline, run
from tests.kube import Kubectl

NAMESPACE = "e2e"
OPERATOR_NAMESPACE = "evaljob-system"
TINY = REPOSITORY / "tests" / "tiny"
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

    @property
    def torch_node(self) -> str:
        """The one worker that holds the image with torch: loading it takes 40 seconds a node."""
        return self.cluster.nodes[1]

    def samples(self, evaljob: str) -> list[dict[str, Any]]:
        """Every line of an EvalJob's sample logs, over all attempts."""
        files = sorted((self.data / "output" / evaljob).rglob("*.jsonl"))
        return [json.loads(line) for f in files for line in f.read_text().splitlines()]


def make(machine: Machine, cluster: kind.Cluster, kubectl: Kubectl) -> World:
    """Build, load, install. Everything is idempotent, so that a kept cluster is reused in seconds."""
    timeline = Timeline()
    refs = images.build(machine, ["operator", "runner", "runner-cpu"], timeline)
    with timeline.stage("load images"):
        workers = list(cluster.nodes[1:])
        load.load(machine, cluster.name, [refs["operator"], refs["runner"]], workers)
        load.load(machine, cluster.name, [refs["runner-cpu"]], workers[:1])
    world = World(machine, cluster, kubectl, machine.cache.data / "e2e", refs)
    with timeline.stage("data"):
        _fill(world.data)
    with timeline.stage("install"):
        _namespaces(kubectl)
        kubectl.apply(_volumes())
        _install(world)
        kubectl.apply(stub_servers(refs["runner"]))
        for mode in STUB_MODES:
            kubectl.run("-n", NAMESPACE, "wait", "--for=condition=Ready", f"pod/stub-{mode}", "--timeout=90s")
    return world


def _fill(folder: Path) -> None:
    """The shared folder: the tiny model, one with a NaN, the tiny datasets, both in a hub, two empty folders."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(TINY / "data", folder / "data")
    shutil.copytree(TINY / "model", folder / "models" / "tiny")
    broken = folder / "models" / "nan"
    shutil.copytree(TINY / "model", broken)
    spoil(broken / "model.safetensors")
    shutil.copytree(TINY / "model", folder / "hub" / "models" / "private" / "tiny")
    shutil.copytree(TINY / "data", folder / "hub" / "datasets" / "org" / "tiny")
    shutil.copy(REPOSITORY / "tests" / "hub_server.py", folder / "hub")
    for name in ("cache", "output"):
        written = folder / name
        written.mkdir()
        # fsGroup is not applied to hostPath: the runner's user must be able to write as it is.
        written.chmod(0o1777)


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
    """Static hostPath volumes with their claims, as examples/quickstart/storage.yaml has them."""
    items: list[dict[str, Any]] = []
    for claim, mode in _CLAIMS.items():
        common = {"accessModes": [mode], "storageClassName": ""}
        volume = {
            **common,
            "capacity": {"storage": "1Gi"},
            "claimRef": {"namespace": NAMESPACE, "name": claim},
            "hostPath": {"path": f"{_MOUNT}/{claim}", "type": "Directory"},
        }
        wish = {**common, "volumeName": f"e2e-{claim}", "resources": {"requests": {"storage": "1Gi"}}}
        items += [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"e2e-{claim}"},
                "spec": volume,
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": claim, "namespace": NAMESPACE},
                "spec": wish,
            },
        ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _install(world: World) -> None:
    repository, _, tag = world.images["operator"].rpartition(":")
    values = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "runner": {"images": {"transformers": world.images["runner-cpu"], "openai": world.images["runner"]}},
        "watchNamespaces": [NAMESPACE],
    }
    run(
        "helm", "--kubeconfig", world.cluster.kubeconfig, "--kube-context", world.cluster.context,
        "upgrade", "--install", "evaljob", REPOSITORY / "charts" / "evaljob", "--namespace", OPERATOR_NAMESPACE,
        "--wait", "--timeout", "120s", "--values", "-",
        stdin=json.dumps(values), env={"PATH": world.machine.path},
    )  # fmt: skip


STUB_MODES = ("slow", "401")


def stub_servers(image: str) -> dict[str, Any]:
    """A pod and a Service per fault of the stub server."""
    script = (REPOSITORY / "tests" / "stub_server.py").read_text()
    items = [_object("v1", "ConfigMap", "stub-server", data={"stub_server.py": script})]
    for mode in STUB_MODES:
        command = ["python", "/srv/stub_server.py", "--port", "8000", "--mode", mode]
        items += server(f"stub-{mode}", image, command, 8000, {"configMap": {"name": "stub-server"}})
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _object(api: str, kind_: str, name: str, **fields: Any) -> dict[str, Any]:  # noqa: ANN401 - manifests
    return {"apiVersion": api, "kind": kind_, "metadata": {"name": name, "namespace": NAMESPACE}, **fields}


def server(
    name: str,
    image: str,
    command: list[str],
    port: int,
    volume: dict[str, Any],
    **container: Any,  # noqa: ANN401
) -> list[dict[str, Any]]:
    """A restricted pod that serves HTTP, with the Service that names it; `volume` is mounted at /srv."""
    body = {
        "name": "server",
        "image": image,
        "imagePullPolicy": "Never",
        "command": command,
        "volumeMounts": [{"name": "srv", "mountPath": "/srv", "readOnly": True}],
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **container,
    }
    pod = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [body],
        "volumes": [{"name": "srv", **volume}],
        "terminationGracePeriodSeconds": 1,
    }
    labelled = _object("v1", "Pod", name, spec=pod)
    labelled["metadata"]["labels"] = {"app": name}
    service = _object("v1", "Service", name, spec={"selector": {"app": name}, "ports": [{"port": port}]})
    return [labelled, service]


def remove(world: World) -> None:
    """Leave the cluster as it was found."""
    for namespace in (NAMESPACE, OPERATOR_NAMESPACE):
        world.kubectl.run("delete", "namespace", namespace, "--ignore-not-found", "--wait")
    # The chart keeps its CRD on purpose; users' EvalJobs would go with it.
    world.kubectl.run("delete", "crd", "evaljobs.evaljob.dev", "--ignore-not-found")
    world.kubectl.run("delete", "pv", *(f"e2e-{c}" for c in _CLAIMS), "--ignore-not-found")
    shutil.rmtree(world.data, ignore_errors=True)
