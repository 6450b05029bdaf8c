"""What isolation costs per partition, by phase: `python -m tests.benchmarks.overhead`.

The same seven partitions of the tiny model, one after the other:

- local: `evaljob run`, a process for each partition;
- cluster: the operator, a pod for each partition, on the cluster of the tests, which is made if there is none;
- before each of them the floor: one process of the runner's own code that loads the model once (one_process.py).

What isolation costs are seconds for each partition. The ratio falls with what there is to evaluate, and here that is
next to nothing. On the cluster Kubernetes' timestamps have whole seconds, cut off: only their means over the
partitions count.
"""

import datetime as dt
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

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
PARTITIONS = 7
_INSIDE = {"imports": ("start",), "load": ("load",), "evaluate": ("infer", "score")}
"""What the runner measures itself, by the names of the issue: the process' age when it begins is its imports."""


class Ran(NamedTuple):
    """A command, and all processes that it waited for."""

    seconds: float
    cpu: float
    """Seconds of a processor."""
    printed: str


def main() -> int:
    """Print the report; its last line is JSON."""
    with tempfile.TemporaryDirectory() as folder:
        here = local(Path(folder))
        with installed() as world:
            floor = one_process(Path(folder)).seconds
            phases, wall = on_cluster(world)
    report = {
        "benchmark": "overhead",
        "compared": "a process or pod per partition, one at a time, against one process of the runner for all",
        "partitions": PARTITIONS,
        "local": here,
        "cluster": account(phases, wall, floor, PARTITIONS),
    }
    print(json.dumps(report))
    return 0


def manifest(node: str) -> Manifest:
    """Seven partitions, one at a time; the pods go to this node."""
    models = [tiny("tiny-chat", "Chat", node), tiny("tiny-text", "Text", node)]
    datasets = [dataset(name) for name in ("gsm", "mc", "kind", "chat")]
    exclude = [{"model": "tiny-text", "dataset": "chat"}]
    return evaljob(NAME, models, datasets, exclude=exclude, parallelism=1)


def local(folder: Path) -> dict[str, Any]:
    """What `evaljob run` takes beside one process.

    Raises:
        SystemExit: when the two come to other results, as then they did not do the same.
    """
    (folder / "evaljob.yaml").write_text(yaml.safe_dump(manifest("any")))
    # A copy: a link that leads out of its volume is refused.
    shutil.copytree(TINY / "model", folder / "models" / "tiny")
    floor = one_process(folder)
    command = [sys.executable, "-m", "evaljob_cli", "run", str(folder / "evaljob.yaml"), "--parallelism", "1"]
    command += [f"--mount={mount}" for mount in _mounts(folder)]
    isolated = _timed([*command, "--out", str(folder / "out")])
    summary = json.loads((folder / "out" / "summary.json").read_text())
    if numbers(summary) != numbers(json.loads(floor.printed)):
        raise SystemExit(f"one process came to other results: {floor.printed}")
    parts = [inside(cell["seconds"]) for cell in summary["cells"] if "seconds" in cell]
    processor = {"cpu_seconds": round(isolated.cpu, 1), "one_process_cpu_seconds": round(floor.cpu, 1)}
    return account(means(parts), isolated.seconds, floor.seconds, len(parts)) | processor


def one_process(folder: Path) -> Ran:
    """The same in one process, which prints its summary; the fastest of three, as the first compiles bytecode."""
    command = [sys.executable, "-m", "tests.benchmarks.one_process", str(folder / "evaljob.yaml")]

    def once() -> Ran:
        with tempfile.TemporaryDirectory() as out:
            return _timed([*command, out, *_mounts(folder)])

    return min((once() for _ in range(3)), key=attrgetter("seconds"))


def _mounts(folder: Path) -> list[str]:
    return [f"models={folder / 'models'}", f"data={TINY / 'data'}"]


def numbers(summary: Manifest) -> list[Any]:
    """What was asked and scored, without what differs between any two runs."""
    keys = ("model", "dataset", "inferenceDigest", "parts")
    return [[cell.get(key) for key in keys] for cell in summary["cells"]]


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
    """What a partition's share of the wall time went into; `around` is what no phase claims.

    Args:
        phases: mean seconds.
        wall: seconds of all partitions, each in a process of its own.
        floor: seconds of one process for all of them.
        count: of partitions.
    """
    around = wall / count - sum(phases.values())
    shares = {**phases, "around": around, "total": wall / count}
    return {
        "seconds": round(wall, 1),
        "one_process_seconds": round(floor, 1),
        "ratio": round(wall / floor, 2),
        "more_per_further_partition": round((wall - floor) / (count - 1), 2),
        "per_partition": {phase: round(value, 2) for phase, value in shares.items()},
    }


def _between(start: str, end: str) -> float:
    return (dt.datetime.fromisoformat(end) - dt.datetime.fromisoformat(start)).total_seconds()


def _timed(command: list[str]) -> Ran:
    say(f"    {' '.join(command[1:4])} ...")
    # One thread, and none that spins, as `evaljob run` has it for its runners.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    started, cpu = time.monotonic(), _children()
    done = subprocess.run(
        command, check=True, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, env=environment
    )
    return Ran(time.monotonic() - started, _children() - cpu, done.stdout)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
