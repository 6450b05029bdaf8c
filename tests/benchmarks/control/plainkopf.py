"""The obvious alternative: an operator of `on.create` and `on.event` handlers, as kopf's tutorial leads to.

It makes one Job per (model, dataset) and collects the termination messages into the EvalJob's status. It does not do
the rest: parallelism, retries of its own, suspension, a frozen plan, groups, crash safety between two creations.

Usage: python -m tests.benchmarks.control.plainkopf NAMESPACE
"""

import itertools
import sys
from typing import Any

import kopf
import kubernetes

LABELS = {"app.kubernetes.io/managed-by": "evaljob"}


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:  # noqa: ANN401 - same
    settings.posting.enabled = False
    kubernetes.config.load_kube_config()


@kopf.on.create("evaljob.dev", "v1alpha1", "evaljobs")
def create(body: kopf.Body, spec: kopf.Spec, name: str, namespace: str | None, **_: Any) -> dict[str, int]:  # noqa: ANN401
    results = {"metadata": {"name": f"{name}-results"}}
    kopf.adopt(results, owner=body)
    kubernetes.client.CoreV1Api().create_namespaced_config_map(namespace, results)
    batch = kubernetes.client.BatchV1Api()
    pairs = list(itertools.product(spec["models"], spec["datasets"]))
    for model, dataset in pairs:
        job = job_of(name, model, dataset)
        kopf.adopt(job, owner=body)
        batch.create_namespaced_job(namespace, job)
    return {"jobs": len(pairs)}


def job_of(name: str, model: dict[str, Any], dataset: dict[str, Any]) -> dict[str, Any]:
    keys = {"name": name, "model": model["name"], "dataset": dataset["name"], "shard": "0-of-1"}
    labels = LABELS | {f"evaljob.dev/{key}": value for key, value in keys.items()}
    container = {
        "name": "runner",
        "image": "none",
        "args": ["--model", model["name"], "--dataset", dataset["name"]],
        "resources": model["runner"]["resources"],
    }
    pod = {"restartPolicy": "Never", "containers": [container], "automountServiceAccountToken": False}
    return {
        "metadata": {"name": f"{name}-{model['name']}-{dataset['name']}", "labels": labels},
        "spec": {"backoffLimit": 3, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }


@kopf.on.event("batch", "v1", "jobs", labels=LABELS)
def collect(labels: kopf.Labels, status: kopf.Status, name: str, namespace: str | None, **_: Any) -> None:  # noqa: ANN401
    if not any(c["type"] == "Complete" and c["status"] == "True" for c in status.get("conditions") or ()):
        return
    pods = kubernetes.client.CoreV1Api().list_namespaced_pod(
        namespace,
        label_selector=f"batch.kubernetes.io/job-name={name}",
        field_selector="status.phase=Succeeded",
    )
    message = pods.items[0].status.container_statuses[0].state.terminated.message if pods.items else "lost"
    key = f"{labels['evaljob.dev/model']}.{labels['evaljob.dev/dataset']}"
    kubernetes.client.CoreV1Api().patch_namespaced_config_map(
        f"{labels['evaljob.dev/name']}-results", namespace, {"data": {key: message[:200]}}
    )


if __name__ == "__main__":
    kopf.run(namespaces=[sys.argv[1]], standalone=True)
