"""The chart's admission policy: the API server refuses loose Jobs of ours, whoever creates them."""

import json
import time
from collections.abc import Iterator

import pytest
import yaml

from tests.cluster.machine import Machine
from tests.cluster.paths import REPOSITORY
from tests.cluster.shell import run
from tests.kube import CommandError, Kubectl, Manifest
from tests.loosened import CONTAINER, CONTEXT, LOOSE, loosened

pytestmark = pytest.mark.cluster

NAMESPACE, ELSEWHERE = "policy-tests", "policy-free"
CASES = sorted(path.parent.name for path in REPOSITORY.glob("tests/data/*/job.yaml"))
DENIED = "ValidatingAdmissionPolicy 'policy-tests-evaljob-jobs'"
OF_THE_CHART = "company-ca"
OTHERS: list[tuple[str, object]] = [
    ("serviceAccountName", "admin"),
    ("volumes.0", {"name": "tmp", "secret": {"secretName": "production"}}),
    ("volumes.0", {"name": "tmp", "projected": {"sources": [{"secret": {"name": "eval-x"}}]}}),
    (f"{CONTAINER}.envFrom", [{"secretRef": {"name": "eval-x"}}]),
    (
        f"{CONTAINER}.env",
        [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "eval-x", "key": "k"}}}],
    ),
]
"""Rules of our own that no user field can break."""


NEVER_VALID = (
    "securityContext.windowsOptions",
    f"{CONTEXT}.privileged",
    f"{CONTEXT}.procMount",
    "ephemeralContainers",
)
"""Beside the rest of our pods no valid Job at all: the API server refuses them before it asks a policy."""


def rendered(machine: Machine, template: str) -> str:
    """One template of the chart, by helm."""
    security = {"admissionPolicy": True, "networkPolicies": True}
    volume = {"name": "ca", "mountPath": "/etc/ssl/company", "secret": {"secretName": OF_THE_CHART}}
    values = {"watchNamespaces": [NAMESPACE], "security": security, "runner": {"volumes": [volume]}}
    chart = REPOSITORY / "charts" / "evaljob"
    return run(
        "helm", "template", "evaljob", chart, "-n", NAMESPACE, "--values", "-",
        f"--show-only=templates/{template}.yaml", stdin=json.dumps(values), env={"PATH": machine.path},
    )  # fmt: skip


@pytest.fixture(scope="module")
def guarded(machine: Machine, kubectl: Kubectl) -> Iterator[Kubectl]:
    """A namespace with the policy, once the API server knows it, and one without."""
    for name in (NAMESPACE, ELSEWHERE):
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    text = rendered(machine, "admissionpolicy")
    kubectl.run("apply", "-f", "-", stdin=text)
    end = time.monotonic() + 30
    while DENIED not in refusal(kubectl, loose_job("activeDeadlineSeconds", None)):
        assert time.monotonic() < end, "the policy does not come into force"
        time.sleep(0.3)
    yield kubectl
    kubectl.run("delete", "-f", "-", stdin=text)
    kubectl.run("delete", "namespace", NAMESPACE, ELSEWHERE, "--wait=false")


def job_of(case: str = "endpoint", namespace: str = NAMESPACE) -> Manifest:
    job: Manifest = yaml.safe_load((REPOSITORY / "tests/data" / case / "job.yaml").read_text())
    job["metadata"]["namespace"] = namespace
    return job


def loose_job(path: str, value: object, namespace: str = NAMESPACE) -> Manifest:
    job = job_of(namespace=namespace)
    template = job["spec"]["template"]
    template["spec"] = loosened(template["spec"], path, value)
    return job


def refusal(kubectl: Kubectl, job: Manifest) -> str:
    """What the API server has against a Job; "" for nothing."""
    try:
        kubectl.run("create", "--dry-run=server", "--validate=ignore", "-f", "-", stdin=json.dumps(job))
    except CommandError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("case", CASES)
def test_our_jobs_pass(guarded: Kubectl, case: str) -> None:
    assert refusal(guarded, job_of(case)) == ""


@pytest.mark.parametrize(
    ("path", "value"), [*((p, v) for p, v, _ in LOOSE), *OTHERS], ids=lambda x: str(x)[:60]
)
def test_whatever_our_own_check_refuses_is_refused(guarded: Kubectl, path: str, value: object) -> None:
    found = refusal(guarded, loose_job(path, value))
    assert ("is invalid" if path in NEVER_VALID else DENIED) in found


def test_a_secret_of_the_chart_s_own_values_passes(guarded: Kubectl) -> None:
    job = job_of()
    volumes = job["spec"]["template"]["spec"]["volumes"]
    volumes.append({"name": "ca", "secret": {"secretName": OF_THE_CHART}})
    assert refusal(guarded, job) == ""


def test_a_job_without_an_evaljob_is_refused(guarded: Kubectl) -> None:
    job = job_of()
    del job["metadata"]["ownerReferences"]
    assert "an EvalJob must own it" in refusal(guarded, job)


def test_jobs_of_others_and_other_namespaces_are_left_alone(guarded: Kubectl) -> None:
    foreign = loose_job("hostNetwork", True)
    # Without any the API server would take the template's.
    foreign["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "somebody"}
    assert refusal(guarded, foreign) == ""
    assert refusal(guarded, loose_job("hostNetwork", True, namespace=ELSEWHERE)) == ""


def test_the_network_policies_are_valid(machine: Machine, guarded: Kubectl) -> None:
    """That a network enforces them is not tested here."""
    text = rendered(machine, "networkpolicies")
    assert guarded.run("apply", "--dry-run=server", "-f", "-", stdin=text).count("(server dry run)") == 2
