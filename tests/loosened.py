"""Pods that are looser than they may be, one step each: our own check and the chart's policy must find them all."""

import copy
from typing import Any

CONTAINER, CONTEXT = "containers.0", "containers.0.securityContext"


LOOSE: list[tuple[str, object, str]] = [
    ("hostNetwork", True, "hostNetwork must not be set"),
    ("hostPID", True, "hostPID must not be set"),
    ("hostIPC", True, "hostIPC must not be set"),
    ("securityContext", None, "securityContext.runAsNonRoot must be true"),
    ("securityContext.runAsNonRoot", False, "securityContext.runAsNonRoot must be true"),
    ("securityContext.runAsUser", 0, "securityContext.runAsUser must not be 0"),
    ("securityContext.fsGroup", 0, "securityContext.fsGroup must not be 0"),
    ("securityContext.supplementalGroups", [7, 0], "securityContext.supplementalGroups must not hold 0"),
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
    ("volumes.0", {"name": "tmp", "hostPath": {"path": "/"}}, "volume tmp: hostPath is not allowed"),
    ("volumes.0", {"name": "tmp", "csi": {"driver": "x"}}, "volume tmp: csi is not allowed"),
    (
        "volumes.0",
        {"name": "tmp", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        "volume tmp: serviceAccountToken is not allowed",
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
    (
        f"{CONTAINER}.ports",
        [{"containerPort": 80, "hostPort": 80}],
        "container runner: hostPort must not be set",
    ),
    (
        f"{CONTAINER}.livenessProbe",
        {"httpGet": {"host": "10.0.0.1", "port": 80}},
        "livenessProbe must not be set",
    ),
    (
        f"{CONTAINER}.lifecycle",
        {"postStart": {"httpGet": {"host": "10.0.0.1", "port": 80}}},
        "lifecycle must not be set",
    ),
    (f"{CONTAINER}.resources", {"limits": {"cpu": 1}}, "container runner: a memory limit is needed"),
    (
        "initContainers",
        [{"name": "init", "image": "x"}],
        "container init: allowPrivilegeEscalation must be False",
    ),
    ("ephemeralContainers", [{"name": "debug"}], "container debug: capabilities must drop ALL"),
]
"""Path in the pod, value, and words of our own check."""


def loosened(pod: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """The pod with another value at a path; the pod stays as it is."""
    found: Any = copy.deepcopy(pod)
    node = found
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    for part in parents:
        node = node[part]
    node[last] = value
    assert isinstance(found, dict)
    return found
