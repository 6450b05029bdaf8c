"""No pod that a user can describe is anything but restricted."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaljob import jobs, podsecurity
from evaljob.podsecurity import secured, violations
from evaljob.spec import parse_evaljob
from tests.unit import builders
from tests.unit.builders import dataset, document, endpoint, evaljob, model

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
label = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,10}[a-z0-9])?", fullmatch=True)
quantities = st.dictionaries(
    st.sampled_from(["cpu", "memory", "nvidia.com/gpu", "ephemeral-storage"]),
    st.sampled_from([0, 1, 8, "500m", "2Gi", "0"]),
)
runners = st.fixed_dictionaries(
    {},
    optional={
        "image": st.text(min_size=1, max_size=20),
        "imagePullPolicy": st.sampled_from(["Always", "IfNotPresent", "Never"]),
        "imagePullSecrets": st.lists(st.fixed_dictionaries({"name": label}), max_size=2),
        "resources": st.fixed_dictionaries({}, optional={"limits": quantities, "requests": quantities}),
        "env": st.lists(
            st.fixed_dictionaries({"name": st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), "value": text}),
            max_size=3,
        ).filter(
            lambda env: not any(e["name"].startswith(("LD_", "PYTHON", "KUBE", "NVIDIA_")) for e in env)
        ),
        "nodeSelector": st.dictionaries(text, text, max_size=2),
        "tolerations": st.lists(
            st.fixed_dictionaries(
                {"key": text, "operator": st.just("Exists")}, optional={"effect": st.just("NoSchedule")}
            ),
            max_size=2,
        ),
        "priorityClassName": label,
    },
)


def pod_of(doc: dict[str, Any]) -> dict[str, Any]:
    of = parse_evaljob(doc)
    plan = builders.plan(of)
    spec: dict[str, Any] = jobs.job(of, plan, plan.partitions[0])["spec"]["template"]["spec"]
    return spec


@given(common=runners, own=runners, output=st.booleans(), key=st.booleans())
def test_whatever_users_set_the_pod_is_restricted(
    common: dict[str, Any], own: dict[str, Any], output: bool, key: bool
) -> None:
    models = [endpoint(secret="eval-key", runner=own) if key else model(runner=own)]
    spec: dict[str, Any] = {"output": {"claimName": "logs"}} if output else {}
    pod = pod_of(document(models, runner=common, **spec))
    assert violations(pod) == []
    assert pod["securityContext"] == podsecurity.POD["securityContext"]


POD = pod_of(document([endpoint(secret="eval-key")], [dataset(source="configmap://data/x.jsonl")]))
CONTAINER, CONTEXT = "containers.0", "containers.0.securityContext"


def loosened(path: str, value: object) -> dict[str, Any]:
    pod: Any = copy.deepcopy(POD)
    node = pod
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    for part in parents:
        node = node[part]
    node[last] = value
    assert isinstance(pod, dict)
    return pod


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("hostNetwork", True, "hostNetwork must not be set"),
        ("hostPID", True, "hostPID must not be set"),
        ("hostIPC", True, "hostIPC must not be set"),
        ("securityContext", None, "securityContext.runAsNonRoot must be true"),
        ("securityContext.runAsNonRoot", False, "securityContext.runAsNonRoot must be true"),
        ("securityContext.runAsUser", 0, "securityContext.runAsUser must not be 0"),
        (
            "securityContext.seccompProfile",
            {"type": "Unconfined"},
            "securityContext.seccompProfile.type must be",
        ),
        ("securityContext.sysctls", [{"name": "a", "value": "b"}], "securityContext.sysctls must not be set"),
        (
            "securityContext.seLinuxOptions",
            {"type": "spc_t"},
            "securityContext.seLinuxOptions must not be set",
        ),
        (
            "securityContext.appArmorProfile",
            {"type": "Unconfined"},
            "securityContext.appArmorProfile must not be",
        ),
        (
            "securityContext.windowsOptions",
            {"hostProcess": True},
            "securityContext.windowsOptions must not be set",
        ),
        ("automountServiceAccountToken", True, "automountServiceAccountToken must be false"),
        ("automountServiceAccountToken", None, "automountServiceAccountToken must be false"),
        ("activeDeadlineSeconds", None, "activeDeadlineSeconds must be set"),
        ("volumes.0", {"name": "v", "hostPath": {"path": "/"}}, "volume v: hostPath is not allowed"),
        ("volumes.0", {"name": "v", "csi": {"driver": "x"}}, "volume v: csi is not allowed"),
        (
            "volumes.0",
            {"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            "volume v: serviceAccountToken is not allowed",
        ),
        (f"{CONTAINER}.securityContext", {}, "container runner: allowPrivilegeEscalation must be False"),
        (f"{CONTEXT}.allowPrivilegeEscalation", True, "allowPrivilegeEscalation must be False"),
        (f"{CONTEXT}.readOnlyRootFilesystem", False, "readOnlyRootFilesystem must be True"),
        (
            f"{CONTEXT}.capabilities",
            {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "capabilities must drop ALL and add none",
        ),
        (f"{CONTEXT}.capabilities", {}, "capabilities must drop ALL and add none"),
        (f"{CONTEXT}.privileged", True, "container runner: privileged must not be set"),
        (f"{CONTEXT}.procMount", "Unmasked", "container runner: procMount must not be set"),
        (
            f"{CONTEXT}.seccompProfile",
            {"type": "Unconfined"},
            "container runner: seccompProfile.type must be",
        ),
        (f"{CONTEXT}.seLinuxOptions", {"user": "root"}, "container runner: seLinuxOptions must not be set"),
        (f"{CONTEXT}.runAsUser", 0, "container runner: runAsUser must not be 0"),
        (f"{CONTEXT}.runAsNonRoot", False, "container runner: runAsNonRoot must not be false"),
        (f"{CONTAINER}.ports", [{"hostPort": 80}], "container runner: hostPort must not be set"),
        (f"{CONTAINER}.livenessProbe", {"httpGet": {"host": "10.0.0.1"}}, "livenessProbe must not be set"),
        (f"{CONTAINER}.lifecycle", {"postStart": {"tcpSocket": {"host": "x"}}}, "lifecycle must not be set"),
        (f"{CONTAINER}.resources", {"limits": {"cpu": 1}}, "container runner: a memory limit is needed"),
        ("initContainers", [{"name": "init"}], "container init: allowPrivilegeEscalation must be False"),
        ("ephemeralContainers", [{"name": "debug"}], "container debug: capabilities must drop ALL"),
    ],
)
def test_each_loosening_is_found(path: str, value: object, words: str) -> None:
    assert violations(POD) == []
    assert any(words in v for v in violations(loosened(path, value)))


def test_forced_fields_win_over_whatever_was_there() -> None:
    loose = {
        "hostNetwork": True,
        "securityContext": {"runAsUser": 0},
        "automountServiceAccountToken": True,
        "activeDeadlineSeconds": 60,
        "containers": [
            {"name": "c", "securityContext": {"privileged": True}, "resources": {"limits": {"memory": "1Gi"}}}
        ],
    }
    assert violations(secured(loose)) == []
    assert loose["hostNetwork"] is True


def test_a_job_with_a_loose_pod_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podsecurity, "CONTAINER", {})
    of = evaljob()
    plan = builders.plan(of)
    with pytest.raises(RuntimeError, match="refusing to create the pod of m/d: container runner"):
        jobs.job(of, plan, plan.partitions[0])
