"""Kueue's part, played by a test: its kind Workload, and one of them per Job."""

from typing import Any

from tests.e2e.evaljobs import Handle
from tests.e2e.world import NAMESPACE
from tests.kube import Kubectl

GROUP, VERSION = "kueue.x-k8s.io", "v1beta2"
LACKS = "couldn't assign flavors to pod set main: insufficient unused quota for cpu in flavor default, 3 more needed"


def install(kubectl: Kubectl) -> None:
    """The kind, without its controller."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": anything},
    }
    names = {"kind": "Workload", "listKind": "WorkloadList", "plural": "workloads", "singular": "workload"}
    name = f"workloads.{GROUP}"
    kubectl.apply(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": name,
                # The API group is protected: what it is for has to be said.
                "annotations": {"api-approved.kubernetes.io": "unapproved, a test's own"},
            },
            "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
        }
    )
    kubectl.wait(f"crd/{name}", "condition=Established")


def remove(kubectl: Kubectl) -> None:
    """The kind, and all Workloads."""
    kubectl.run("delete", "crd", f"workloads.{GROUP}", "--ignore-not-found", "--wait")


def hold_back(handle: Handle) -> None:
    """A Workload for each Job, which says that there is no room."""
    condition = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": LACKS}
    for job in handle.get("jobs"):
        meta = job["metadata"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"]}
        workload: dict[str, Any] = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "Workload",
            "metadata": {
                "name": f"job-{meta['name'][:50]}",
                "namespace": NAMESPACE,
                "labels": {f"{GROUP}/job-uid": meta["uid"]},
                "ownerReferences": [owner],
            },
            "status": {"conditions": [condition]},
        }
        handle.world.kubectl.apply(workload)
        handle.world.kubectl.apply(workload)
