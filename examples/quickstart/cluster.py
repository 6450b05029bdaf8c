"""The quickstart through the operator, installed by Helm, on a kind cluster."""

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.quickstart import data, existing
from tests.cluster import docker, images, kind, load, nodes
from tests.cluster.machine import Machine, prepare
from tests.cluster.paths import REPOSITORY, Cache
from tests.cluster.shell import ClusterError, CommandError, Timeline, say
from tests.cluster.shell import run as shell

NAME, NAMESPACE, OPERATOR_NAMESPACE = "evaljob-quickstart", "evals", "evaljob-system"
GPUS = 8
TIME_LIMIT = 1800.0
"""Seconds that the evaluation may take before the quickstart gives up."""
_NAMESPACES = """\
apiVersion: v1
kind: Namespace
metadata: {name: evals, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: v1
kind: Namespace
metadata: {name: evaljob-system, labels: {pod-security.kubernetes.io/enforce: restricted}}
"""


@dataclass(frozen=True)
class Target:
    """The cluster to run on.

    Attributes:
        name: The name that kind knows.
        kubeconfig: Its credentials; none means kubectl's own default.
        context: The context to use.
        machine: Where it runs: its kubectl, helm and Docker Engine are used.
    """

    name: str
    kubeconfig: Path | None
    context: str
    machine: Machine

    def kubectl(self, *args: str, stdin: str | None = None) -> str:
        """Run kubectl against the cluster."""
        return shell("kubectl", *self.where("--context"), *args, env={"PATH": self.machine.path}, stdin=stdin)

    def helm(self, *args: str) -> str:
        """Run helm against the cluster."""
        return shell("helm", *self.where("--kube-context"), *args, env={"PATH": self.machine.path})

    def where(self, flag: str) -> list[str]:
        """The options that lead a tool here; `flag` is its name for a context."""
        file = ["--kubeconfig", str(self.kubeconfig)] if self.kubeconfig else []
        return [*file, flag, self.context]


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
        load.load(machine, target.name, list(refs.values()))
    with timeline.stage("install"):
        install(target, refs)
    with timeline.stage("evaluation"):
        _evaluate(target)
    return _show(target, python)


def _own(machine: Machine, folder: Path, timeline: Timeline) -> Target:
    cluster = kind.up(machine, kind.ClusterSpec(NAME, gpus=GPUS, data=folder), timeline)
    return Target(NAME, cluster.kubeconfig, cluster.context, machine)


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
    target = Target(existing.name_of(context), None, context, machine)
    try:
        listed = json.loads(target.kubectl("get", "nodes", "-o", "json"))["items"]
    except CommandError as error:
        mend = f"kind export kubeconfig --name {target.name}"
        raise ClusterError(
            f"CONTEXT={context}: kubectl does not get there; `{mend}` may help: {error}"
        ) from error
    names = [node["metadata"]["name"] for node in listed]
    existing.refuse_another(context, found, names)
    if all(node["status"]["allocatable"].get(kind.GPU, "0") == "0" for node in listed):
        say(f"    no node has {kind.GPU}: {GPUS} are simulated on each")
        kind.simulate_gpus(target.kubectl, GPUS, names)
    return target


def install(target: Target, refs: dict[str, str]) -> None:
    """Namespaces, volumes and the chart."""
    target.kubectl("apply", "-f", "-", stdin=_NAMESPACES)
    target.kubectl("apply", "-f", str(REPOSITORY / "examples" / "quickstart" / "storage.yaml"))
    repository, _, tag = refs["operator"].rpartition(":")
    settings = {
        "image.repository": repository,
        "image.tag": tag,
        "image.pullPolicy": "Never",
        "runner.images.transformers": refs["runner-cpu"],
        "watchNamespaces": f"{{{NAMESPACE}}}",
    }
    chart = str(REPOSITORY / "charts" / "evaljob")
    values = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    target.helm(
        "upgrade",
        "--install",
        "evaljob",
        chart,
        "--namespace",
        OPERATOR_NAMESPACE,
        "--wait",
        "--timeout",
        "120s",
        *values,
    )


def _evaluate(target: Target) -> None:
    """Apply the EvalJob anew and wait for its end, saying how far it is."""
    target.kubectl("delete", "evaljob", "quickstart", "-n", NAMESPACE, "--ignore-not-found", "--wait")
    _forget_samples(target)
    target.kubectl("apply", "-f", str(data.EVALJOB))
    wait(lambda: _status(target), limit=TIME_LIMIT)


def _forget_samples(target: Target) -> None:
    """Earlier samples would be taken from their log; the quickstart shows a whole evaluation."""
    node = target.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    target.machine.docker("exec", node, "rm", "-rf", "/mnt/evaljob/output/quickstart")


def _status(target: Target) -> dict[str, object]:
    text = target.kubectl("get", "evaljob", "quickstart", "-n", NAMESPACE, "-o", "json")
    status: dict[str, object] = json.loads(text).get("status") or {}
    return status


def wait(status: Callable[[], dict[str, object]], limit: float) -> None:
    """Until the EvalJob is finished, with a line for each change.

    Raises:
        ClusterError: When it takes longer than `limit` seconds.
    """
    deadline, last = time.monotonic() + limit, ""
    while time.monotonic() < deadline:
        now = status()
        line = f"    {now.get('state', 'Pending')} {now.get('progress', '')} {_counts(now)}"
        if line != last:
            say(line)
            last = line
        if now.get("completionTime"):
            return
        time.sleep(1)
    raise ClusterError(
        f"the evaluation is not finished after {limit:.0f} s: kubectl describe evaljob quickstart"
    )


def _counts(status: dict[str, object]) -> str:
    counts = status.get("partitions")
    return (
        ", ".join(f"{v} {k}" for k, v in counts.items() if k != "total") if isinstance(counts, dict) else ""
    )


def _show(target: Target, python: Path) -> int:
    """Print the summary's table, and how to look around; 0 when every partition succeeded."""
    shown = target.kubectl(
        "get", "configmap", "quickstart-summary", "-n", NAMESPACE, "-o", "jsonpath={.data.summary\\.json}"
    )
    subprocess.run(
        [python, "-m", "evaljob_cli", "summary", "-"], input=shown, text=True, check=True, cwd=REPOSITORY
    )
    where = " ".join(target.where("--context"))
    say(f"look around: kubectl {where} -n {NAMESPACE} get evaljobs,jobs,pods")
    return 0 if _status(target).get("state") == "Complete" else 1
