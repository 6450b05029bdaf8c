"""What isolation costs per partition, by phase: `python -m tests.benchmarks.overhead`.

The same seven partitions of the tiny model, one after the other, three times:

- the floor: one process that loads the model once and loops over the same samples (tests/tiny/score.py);
- local: `evaljob run`, a process for each partition;
- cluster: the operator, a pod for each partition, on the cluster of the tests, which is made if there is none.

On the cluster Kubernetes' timestamps have whole seconds, cut off: only their means over the partitions count.
"""

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from evaljob.framing import decode
from evaljob.names import ANNOTATION_RESULT
from evaljob.result import PartitionResult
from tests.cluster import kind
from tests.cluster.machine import prepare
from tests.cluster.paths import REPOSITORY, Cache
from tests.cluster.shell import Timeline, say
from tests.clusters import SPEC
from tests.e2e import own
from tests.e2e.evaljobs import Handle, Manifest, dataset, evaljob, tiny
from tests.e2e.own import OwnWorld
from tests.e2e.world import NAMESPACE, TINY
from tests.kube import Kubectl

Phases = dict[str, float]
"""Mean seconds of a partition by phase."""
NAME = "overhead"
_INSIDE = {"imports": ("start",), "load": ("load",), "evaluate": ("infer", "score")}
"""What the runner measures itself, by the names of the issue: the process' age when it begins is its imports."""


def main() -> int:
    """Print the report; its last line is JSON."""
    with tempfile.TemporaryDirectory() as folder:
        summary, isolated = local(manifest("any"), Path(folder))
    parts = [cell["seconds"] for cell in summary["cells"] if "seconds" in cell]
    floor = _timed([sys.executable, "-m", "tests.tiny.score", str(TINY / "model")])
    with installed() as world:
        phases, wall = on_cluster(world)
    report = {
        "benchmark": "overhead",
        "compared": "a process or pod per partition, one at a time, against one process for all",
        "partitions": len(parts),
        "one_process_seconds": round(floor, 1),
        "local": account(means([inside(p) for p in parts]), isolated, floor, len(parts)),
        "cluster": account(phases, wall, floor, len(parts)),
    }
    print(json.dumps(report))
    return 0


def manifest(node: str) -> Manifest:
    """Seven partitions, one at a time; the pods go to this node."""
    models = [tiny("tiny-chat", "Chat", node), tiny("tiny-text", "Text", node)]
    datasets = [dataset(name) for name in ("gsm", "mc", "kind", "chat")]
    exclude = [{"model": "tiny-text", "dataset": "chat"}]
    return evaljob(NAME, models, datasets, exclude=exclude, parallelism=1)


def local(body: Manifest, folder: Path) -> tuple[Manifest, float]:
    """The summary of `evaljob run`, and the seconds that the command took."""
    (folder / "evaljob.yaml").write_text(yaml.safe_dump(body))
    # A copy: a link that leads out of its volume is refused.
    shutil.copytree(TINY / "model", folder / "models" / "tiny")
    command = [sys.executable, "-m", "evaljob_cli", "run", str(folder / "evaljob.yaml"), "--parallelism", "1"]
    command += ["--mount", f"models={folder / 'models'}", "--mount", f"data={TINY / 'data'}"]
    seconds = _timed([*command, "--out", str(folder / "out")])
    summary: Manifest = json.loads((folder / "out" / "summary.json").read_text())
    return summary, seconds


@contextmanager
def installed() -> Iterator[OwnWorld]:
    """The operator on the tests' cluster; what was made for it goes again, unless EVALJOB_KEEP_CLUSTER is set."""
    timeline = Timeline()
    machine = prepare(Cache.from_env(os.environ), timeline)
    cluster = kind.up(machine, SPEC, timeline)
    try:
        yield own.make(machine, cluster, Kubectl(cluster.context, cluster.kubeconfig, machine.path))
    finally:
        if cluster.origin == "created" and not os.environ.get("EVALJOB_KEEP_CLUSTER"):
            kind.down(machine.docker, machine.cache, cluster.name)


def on_cluster(world: OwnWorld) -> tuple[Phases, float]:
    """The phases through the operator, and the seconds from its first look to the end."""
    handle, kubectl, here = Handle(world, NAME), world.kubectl, ("-n", NAMESPACE)
    kubectl.run("delete", "evaljob", NAME, *here, "--ignore-not-found", "--wait")
    kubectl.apply(manifest(world.torch_node))
    status = handle.finished(600)
    if status["state"] != "Complete":
        raise SystemExit(f"{NAME}: {status}")
    # Unless asked, kubectl leaves out managedFields, which know when the result was recorded.
    mine = ("-l", f"evaljob.dev/name={NAME}", "--show-managed-fields")
    jobs = kubectl.get_json("get", "jobs", *here, *mine)["items"]
    pods = handle.get("pods")
    kubectl.run("delete", "evaljob", NAME, *here, "--wait")
    phases = means([pod_phases(job, pods) for job in jobs])
    return phases, _between(status["startTime"], status["completionTime"])


def pod_phases(job: Manifest, pods: list[Manifest]) -> Phases:
    """The phases of one partition, from its Job, its pod and its result."""
    pod = next(p for p in pods if p["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"])
    report = decode(job["metadata"]["annotations"][ANNOTATION_RESULT])
    if not isinstance(report, PartitionResult):
        raise SystemExit(f"{job['metadata']['name']} has no result: {report.reason}")
    conditions = {
        c["type"]: c["lastTransitionTime"] for c in pod["status"]["conditions"] + job["status"]["conditions"]
    }
    ran = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    return {
        "scheduling": _between(job["metadata"]["creationTimestamp"], conditions["PodScheduled"]),
        "start": _between(conditions["PodScheduled"], ran["startedAt"]),
        **inside(report.seconds.model_dump()),
        "count": _between(ran["finishedAt"], conditions["Complete"]),
        "collect": _between(conditions["Complete"], _recorded(job)),
    }


def _recorded(job: Manifest) -> str:
    """When the operator wrote the result onto the Job."""
    key = f"f:{ANNOTATION_RESULT}"
    fields = job["metadata"]["managedFields"]
    return next(m["time"] for m in fields if key in json.dumps(m["fieldsV1"]))  # type: ignore[no-any-return]


def inside(seconds: dict[str, float]) -> Phases:
    """The phases that the runner measured."""
    return {phase: sum(seconds.get(part, 0.0) for part in parts) for phase, parts in _INSIDE.items()}


def means(rows: list[Phases]) -> Phases:
    """The mean of each phase over the partitions."""
    return {phase: mean(row[phase] for row in rows) for phase in rows[0]}


def account(phases: Phases, wall: float, floor: float, count: int) -> dict[str, Any]:
    """What a partition's share of the wall time went into; `around` is what no phase claims."""
    around = wall / count - sum(phases.values())
    shares = {**phases, "around": around, "total": wall / count}
    return {
        "seconds": round(wall, 1),
        "ratio": round(wall / floor, 2),
        "per_partition": {phase: round(value, 2) for phase, value in shares.items()},
    }


def _between(start: str, end: str) -> float:
    return (dt.datetime.fromisoformat(end) - dt.datetime.fromisoformat(start)).total_seconds()


def _timed(command: list[str]) -> float:
    say(f"    {' '.join(command[1:4])} ...")
    started = time.monotonic()
    subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
