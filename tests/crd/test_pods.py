"""Our pods in a namespace that enforces Pod Security "restricted", and what that namespace refuses."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from evaljob.podsecurity import violations
from tests.cluster.paths import REPOSITORY
from tests.kube import CommandError, Kubectl, Manifest

pytestmark = pytest.mark.cluster

NAMESPACE = "pod-tests"
CASES = sorted(path.parent.name for path in REPOSITORY.glob("tests/data/*/job.yaml"))


@pytest.fixture(scope="module")
def restricted(kubectl: Kubectl) -> Iterator[Kubectl]:
    """A cluster with a restricted namespace."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    )
    yield kubectl
    kubectl.run("delete", "namespace", NAMESPACE, "--wait=false")


def job_of(case: str) -> Manifest:
    job: Manifest = yaml.safe_load((REPOSITORY / "tests/data" / case / "job.yaml").read_text())
    job["metadata"]["namespace"] = NAMESPACE
    return job


def pod_of(case: str) -> Manifest:
    spec = job_of(case)["spec"]["template"]["spec"]
    spec.pop("priorityClassName", None)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": NAMESPACE},
        "spec": spec,
    }


def dry_run(kubectl: Kubectl, manifest: Manifest) -> str:
    """Create for show: validation and admission, nothing is kept."""
    options = ("--dry-run=server", "--validate=strict")
    return kubectl.run("create", *options, "-f", "-", stdin=json.dumps(manifest))


@pytest.mark.parametrize("case", CASES)
def test_a_job_and_its_pod_are_accepted(restricted: Kubectl, case: str) -> None:
    assert "created (server dry run)" in dry_run(restricted, job_of(case))
    assert "created (server dry run)" in dry_run(restricted, pod_of(case))


def _changed(pod: Manifest, path: str, value: object) -> Manifest:
    pod = copy.deepcopy(pod)
    node: Any = pod["spec"]
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    for part in parents:
        node = node[part]
    node[last] = value
    return pod


CONTEXT = "containers.0.securityContext"
LOOSE: list[tuple[str, object]] = [
    ("hostNetwork", True),
    ("hostPID", True),
    ("hostIPC", True),
    ("securityContext.runAsNonRoot", False),
    ("securityContext.runAsUser", 0),
    ("securityContext.seccompProfile", {"type": "Unconfined"}),
    ("securityContext.sysctls", [{"name": "kernel.msgmax", "value": "1"}]),
    ("securityContext.seLinuxOptions", {"user": "root"}),
    ("securityContext.appArmorProfile", {"type": "Unconfined"}),
    (f"{CONTEXT}.allowPrivilegeEscalation", True),
    (f"{CONTEXT}.capabilities", {"drop": ["ALL"], "add": ["NET_ADMIN"]}),
    (f"{CONTEXT}.capabilities", {}),
    (f"{CONTEXT}.procMount", "Unmasked"),
    (f"{CONTEXT}.seccompProfile", {"type": "Unconfined"}),
    (f"{CONTEXT}.seLinuxOptions", {"type": "spc_t"}),
    (f"{CONTEXT}.runAsUser", 0),
    ("volumes.0", {"name": "tmp", "hostPath": {"path": "/"}}),
    ("containers.0.ports", [{"containerPort": 80, "hostPort": 80}]),
]


@pytest.mark.parametrize(("path", "value"), LOOSE, ids=[f"{p}={v}" for p, v in LOOSE])
def test_what_the_api_server_refuses_our_own_check_refuses_too(
    restricted: Kubectl, path: str, value: object
) -> None:
    loose = _changed(pod_of("shards"), path, value)
    with pytest.raises(
        CommandError, match=r"violates PodSecurity|Invalid value|Forbidden|may not be used|must be"
    ):
        dry_run(restricted, loose)
    assert violations(loose["spec"])
