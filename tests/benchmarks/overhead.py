"""What isolation costs per partition, by phase.

Usage: python -m tests.benchmarks.overhead [--kubeconfig FILE --namespace NS --name EVALJOB]

Local: `evaljob run` of the tiny model's tasks, one process per partition, one after the other, beside the floor:
one process that loads the model once and loops over the same samples (tests/tiny/score.py). With --kubeconfig
the phases of a finished EvalJob's pods are added, from the timestamps of its Jobs and pods (whole seconds).
"""

import argparse
import datetime as dt
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

from evaljob.result import PartitionResult, decode
from tests.cluster.paths import REPOSITORY
from tests.e2e.evaljobs import dataset, evaljob, tiny
from tests.e2e.world import TINY


def main() -> int:
    """Print the report; its last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--kubeconfig", type=Path)
    parser.add_argument("--namespace", default="evals")
    parser.add_argument("--name", default="quickstart")
    args = parser.parse_args()
    report: dict[str, Any] = {"benchmark": "overhead", **local()}
    if args.kubeconfig:
        report["cluster"] = cluster(args.kubeconfig, args.namespace, args.name)
    print(json.dumps(report))
    return 0


def local() -> dict[str, Any]:
    """Isolated processes against one process that keeps the model; the ratio of wall times."""
    with tempfile.TemporaryDirectory() as folder:
        summary, isolated = _isolated(Path(folder))
    floor = _timed([sys.executable, "-m", "tests.tiny.score", str(TINY / "model")])
    phases = [c["seconds"] for c in summary["cells"] if "seconds" in c]
    count = len(phases)
    inside = {
        k: round(sum(p.get(k, 0.0) for p in phases) / count, 2) for k in ("start", "load", "infer", "score")
    }
    return {
        "compared": "evaljob run, one process per partition, against one process for all (tests/tiny/score.py)",
        "partitions": count,
        "isolated_seconds": round(isolated, 1),
        "one_process_seconds": round(floor, 1),
        "ratio": round(isolated / floor, 2),
        "seconds_per_partition": {**inside, "around": round(isolated / count - sum(inside.values()), 2)},
    }


def _isolated(folder: Path) -> tuple[dict[str, Any], float]:
    models = [tiny("tiny-chat", "Chat", "any"), tiny("tiny-text", "Text", "any")]
    datasets = [dataset(name) for name in ("gsm", "mc", "kind", "chat")]
    manifest = evaljob("overhead", models, datasets, exclude=[{"model": "tiny-text", "dataset": "chat"}])
    (folder / "evaljob.yaml").write_text(yaml.safe_dump(manifest))
    shutil.copytree(TINY / "model", folder / "models" / "tiny")
    command = [sys.executable, "-m", "evaljob_cli", "run", str(folder / "evaljob.yaml"), "--parallelism", "1"]
    command += ["--mount", f"models={folder / 'models'}", "--mount", f"data={TINY / 'data'}"]
    seconds = _timed([*command, "--out", str(folder / "out")])
    return json.loads((folder / "out" / "summary.json").read_text()), seconds


def _timed(command: list[str]) -> float:
    started = time.monotonic()
    subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def cluster(kubeconfig: Path, namespace: str, name: str) -> dict[str, Any]:
    """Mean seconds per partition of a finished EvalJob, from its Jobs and pods."""
    get = [
        "kubectl",
        f"--kubeconfig={kubeconfig}",
        "-n",
        namespace,
        "get",
        "-l",
        f"evaljob.dev/name={name}",
        "-o",
        "json",
    ]
    jobs = json.loads(subprocess.run([*get, "jobs"], check=True, capture_output=True).stdout)["items"]
    pods = json.loads(subprocess.run([*get, "pods"], check=True, capture_output=True).stdout)["items"]
    rows = [_phases(job, pods) for job in jobs]
    return {k: round(mean(r[k] for r in rows), 2) for k in rows[0]} | {"partitions": len(rows)}


def _phases(job: dict[str, Any], pods: list[dict[str, Any]]) -> dict[str, float]:
    pod = next(p for p in pods if p["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"])
    result = decode(job["metadata"]["annotations"]["evaljob.dev/result"])
    if not isinstance(result, PartitionResult):
        raise SystemExit(f"{job['metadata']['name']} has no result: {result.reason}")
    scheduled = next(
        c["lastTransitionTime"] for c in pod["status"]["conditions"] if c["type"] == "PodScheduled"
    )
    ran = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    recorded = max(m["time"] for m in job["metadata"]["managedFields"])
    inside = result.seconds.model_dump()
    return {
        "scheduling": _between(job["metadata"]["creationTimestamp"], scheduled),
        "container": _between(scheduled, ran["startedAt"]),
        **inside,
        "collect": _between(ran["finishedAt"], recorded),
    }


def _between(start: str, end: str) -> float:
    return (dt.datetime.fromisoformat(end) - dt.datetime.fromisoformat(start)).total_seconds()


if __name__ == "__main__":
    sys.exit(main())
