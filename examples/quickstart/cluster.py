"""The quickstart through the operator, installed by Helm, on a kind cluster."""

import json
from collections.abc import Sequence
from pathlib import Path

from examples.quickstart import data, existing
from examples.quickstart.target import Target, evaluate, install, show
from tests.cluster import docker, images, kind, load, nodes
from tests.cluster.machine import Machine, prepare
from tests.cluster.paths import REPOSITORY, Cache
from tests.cluster.shell import ClusterError, CommandError, Timeline, say

NAME = "evaljob-quickstart"
GPUS = 8
_NAMESPACES = """\
apiVersion: v1
kind: Namespace
metadata: {name: evals, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: Namespace
metadata: {name: evaljob-system, labels: {pod-security.kubernetes.io/enforce: restricted}}
"""


def run(cache: Cache, timeline: Timeline, context: str | None) -> int:
    """Evaluate examples/quickstart.yaml; 0 when every partition succeeded."""
    found = _containers(cache, context) if context else []
    folder = data.prepare(cache, timeline)
    with timeline.stage("environment"):
        python = data.environment(".venv", "dev.txt")
    machine = prepare(cache, timeline)
    target = _existing(machine, context, found) if context else _own(machine, folder, timeline)
    refs = images.build(machine, ["operator", "runner-cpu"], timeline)
    with timeline.stage("load images"):
        name = existing.name_of(target.context)
        load.load(machine, name, list(refs.values()))
    with timeline.stage("install"):
        target.kubectl("apply", "-f", "-", stdin=_NAMESPACES)
        target.kubectl("apply", "-f", str(REPOSITORY / "examples" / "quickstart" / "storage.yaml"))
        install(target, refs["operator"], refs["runner-cpu"], pull_policy="Never")
    with timeline.stage("evaluation"):
        evaluate(target, data.EVALJOB.read_text(), lambda: _forget_samples(machine, target))
    return show(target, python)


def _own(machine: Machine, folder: Path, timeline: Timeline) -> Target:
    cluster = kind.up(machine, kind.ClusterSpec(NAME, gpus=GPUS, data=folder), timeline)
    return Target(cluster.kubeconfig, cluster.context, machine.path)


def _containers(cache: Cache, context: str) -> list[nodes.Node]:
    """The nodes of a kind cluster of the user's; refused before anything is made where it cannot be used.

    Raises:
        ClusterError: With the reason.
    """
    client = docker.find()
    found = nodes.containers(client, existing.name_of(context)) if client else []
    existing.refuse_unusable(context, found, cache.data.resolve())
    return found


def _existing(machine: Machine, context: str, found: Sequence[nodes.Node]) -> Target:
    """The user's cluster, reached through the user's own kubeconfig.

    Raises:
        ClusterError: When the context leads elsewhere, or nowhere.
    """
    target = Target(None, context, machine.path)
    try:
        listed = json.loads(target.kubectl("get", "nodes", "-o", "json"))["items"]
    except CommandError as error:
        mend = f"kind export kubeconfig --name {existing.name_of(context)}"
        raise ClusterError(
            f"CONTEXT={context}: kubectl does not get there; `{mend}` may help: {error}"
        ) from error
    names = [node["metadata"]["name"] for node in listed]
    existing.refuse_another(context, found, names)
    if all(node["status"]["allocatable"].get(kind.GPU, "0") == "0" for node in listed):
        say(f"    no node has {kind.GPU}: {GPUS} are simulated on each")
        kind.simulate_gpus(target.kubectl, GPUS, names)
    return target


def _forget_samples(machine: Machine, target: Target) -> None:
    """Earlier samples would be taken from their log; the quickstart shows a whole evaluation."""
    node = target.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    machine.docker("exec", node, "rm", "-rf", "/mnt/evaljob/output/quickstart")
