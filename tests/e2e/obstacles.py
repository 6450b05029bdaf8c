"""What stands in the way of Jobs and pods on a shared cluster: policies and quotas."""

import json
import time
from typing import Any

from tests.cluster.shell import CommandError
from tests.e2e.world import NAMESPACE
from tests.kube import Kubectl

Manifest = dict[str, Any]

_MODEL = "object.metadata.?labels['evaljob.dev/model'].orValue('')"
_RULE = {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}
_JOBS_MADE = {"resourceRules": [_RULE]}


def _policy(name: str, model: str, action: str) -> list[Manifest]:
    """A policy about the Jobs of one model: it takes a label to say which, so that other tests are left alone."""
    rule = {"expression": f"{_MODEL} != '{model}'", "message": f"{model} needs a ticket"}
    spec = {"failurePolicy": "Fail", "matchConstraints": _JOBS_MADE, "validations": [rule]}
    group = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}}
    binding = {"policyName": name, "validationActions": [action], "matchResources": here}
    return [
        {**group, "kind": "ValidatingAdmissionPolicy", "spec": spec},
        {**group, "kind": "ValidatingAdmissionPolicyBinding", "spec": binding},
    ]


def _expiry(name: str, model: str) -> list[Manifest]:
    """A policy that gives the Jobs of one model a time to live."""
    spec = {
        "matchConstraints": _JOBS_MADE,
        "matchConditions": [{"name": "model", "expression": f"{_MODEL} == '{model}'"}],
        "reinvocationPolicy": "Never",
        "mutations": [
            {
                "patchType": "ApplyConfiguration",
                "applyConfiguration": {
                    "expression": "Object{spec: Object.spec{ttlSecondsAfterFinished: 86400}}"
                },
            }
        ],
    }
    group = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    return [
        {**group, "kind": "MutatingAdmissionPolicy", "spec": spec},
        {**group, "kind": "MutatingAdmissionPolicyBinding", "spec": {"policyName": name}},
    ]


def mutates(kubectl: Kubectl) -> bool:
    """Whether the cluster has mutating policies, as Kubernetes has since 1.36."""
    group = ("--api-group=admissionregistration.k8s.io", "-o", "name")
    return "mutatingadmissionpolicies" in kubectl.run("api-resources", *group)


def quota(name: str, **hard: str) -> Manifest:
    """A ResourceQuota of the tests' namespace."""
    meta = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": hard}}


def _in_force(kubectl: Kubectl) -> bool:
    """Whether the policies are known to the API server, which takes it a moment."""
    try:
        _probe(kubectl, "denied")
    except CommandError as error:
        return "needs a ticket" in str(error) and (
            not mutates(kubectl) or "86400" in _probe(kubectl, "nokey")
        )
    return False


def _probe(kubectl: Kubectl, model: str) -> str:
    """What becomes of a Job of a model."""
    meta = {"name": "probe", "namespace": NAMESPACE, "labels": {"evaljob.dev/model": model}}
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x"}]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": {"template": {"spec": pod}}}
    return kubectl.run("create", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(job))


def put(kubectl: Kubectl) -> None:
    """Three policies, and no GPU in the quota; returns when they are in force."""
    objects = [
        *_policy("e2e-denied", "denied", "Deny"),
        *_policy("e2e-warned", "nokey", "Warn"),
        *(_expiry("e2e-expiry", "nokey") if mutates(kubectl) else ()),
        quota("gpus", **{"requests.nvidia.com/gpu": "0"}),
    ]
    for obj in objects:
        kubectl.apply(obj)
    end = time.monotonic() + 60
    while not _in_force(kubectl):
        assert time.monotonic() < end, "the policies are not in force after 60 s"
        time.sleep(0.5)


def clear(kubectl: Kubectl) -> None:
    """Nothing of it stays."""
    kinds = "validatingadmissionpolicy,validatingadmissionpolicybinding"
    kubectl.run("delete", kinds, "e2e-denied", "e2e-warned", "--ignore-not-found")
    if mutates(kubectl):
        kinds = "mutatingadmissionpolicy,mutatingadmissionpolicybinding"
        kubectl.run("delete", kinds, "e2e-expiry", "--ignore-not-found")
    kubectl.run("delete", "resourcequota", "gpus", "jobs", "-n", NAMESPACE, "--ignore-not-found")
    kubectl.run("delete", "secret", "eval-late", "-n", NAMESPACE, "--ignore-not-found")
