"""The security fields that every runner pod gets, and the check that a finished pod is really restricted.

A runner executes model code and data that nobody vetted, so no user field may loosen these. The check follows
the "restricted" profile of Kubernetes' Pod Security Standards and is run on the finished pod, whoever built it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

UID = 65532
"""The unprivileged user of the images; any uid works."""

POD: dict[str, Any] = {
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "restartPolicy": "Never",
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": UID,
        "runAsGroup": UID,
        "fsGroup": UID,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}
CONTAINER: dict[str, Any] = {
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
    },
}
_IDENTITY = ("runAsUser", "runAsGroup", "fsGroup")
_CHOSEN = (*_IDENTITY, "fsGroupChangePolicy", "supplementalGroups")
"""What of the pod's security context a user may decide: as whom volumes are read, and never root."""
_VOLUME_TYPES = {
    "name",
    "configMap",
    "downwardAPI",
    "emptyDir",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
_PROJECTED = {"configMap", "downwardAPI", "secret"}
"""No serviceAccountToken: the runner is nobody to the API server."""
_HANDLERS = ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe")
_HOST_FIELDS = ("hostNetwork", "hostPID", "hostIPC")


def secured(pod: Mapping[str, Any]) -> dict[str, Any]:
    """The pod spec with the forced fields on top of whatever it held."""
    containers = [{**c, **CONTAINER} for c in pod["containers"]]
    chosen = {k: v for k, v in (pod.get("securityContext") or {}).items() if k in _CHOSEN}
    context = POD["securityContext"] | chosen
    kept = {k: v for k, v in pod.items() if k not in _HOST_FIELDS}
    return {**kept, **POD, "securityContext": context, "containers": containers}


def violations(pod: Mapping[str, Any]) -> list[str]:
    """What keeps a pod spec from the restricted profile and from our own rules; empty when nothing does."""
    return [*_pod_violations(pod), *(v for c in _containers(pod) for v in _container_violations(c))]


def _containers(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from pod.get(kind, ())


def _pod_violations(pod: Mapping[str, Any]) -> Iterator[str]:
    context = pod.get("securityContext") or {}
    yield from (f"{f} must not be set" for f in _HOST_FIELDS if pod.get(f))
    if context.get("runAsNonRoot") is not True:
        yield "securityContext.runAsNonRoot must be true"
    if (context.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
        yield "securityContext.seccompProfile.type must be RuntimeDefault"
    yield from (f"securityContext.{v}" for v in _context_violations(context))
    if pod.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken must be false"
    if not pod.get("activeDeadlineSeconds"):
        yield "activeDeadlineSeconds must be set"
    for volume in pod.get("volumes", ()):
        yield from (f"volume {volume.get('name')}: {v}" for v in _volume_violations(volume))


def _volume_violations(volume: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{kind} is not allowed" for kind in volume if kind not in _VOLUME_TYPES)
    for source in (volume.get("projected") or {}).get("sources") or ():
        yield from (f"{kind} is not allowed" for kind in source if kind not in _PROJECTED)


def _context_violations(context: Mapping[str, Any]) -> Iterator[str]:
    """Of a pod or a container."""
    forbidden = ("sysctls", "privileged", "procMount", "windowsOptions", "seLinuxOptions", "appArmorProfile")
    yield from (f"{k} must not be set" for k in forbidden if context.get(k))
    yield from (f"{k} must not be 0" for k in _IDENTITY if context.get(k) == 0)
    if 0 in (context.get("supplementalGroups") or ()):
        yield "supplementalGroups must not hold 0"


def _container_violations(container: Mapping[str, Any]) -> Iterator[str]:
    context = container.get("securityContext") or {}
    where = f"container {container.get('name')}"
    wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
    yield from (f"{where}: {k} must be {v}" for k, v in wanted.items() if context.get(k) is not v)
    capabilities = context.get("capabilities") or {}
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield f"{where}: capabilities must drop ALL and add none"
    yield from (f"{where}: {v}" for v in _context_violations(context))
    if context.get("runAsNonRoot", True) is not True:
        yield f"{where}: runAsNonRoot must not be false"
    if (context.get("seccompProfile") or {"type": "RuntimeDefault"}).get("type") != "RuntimeDefault":
        yield f"{where}: seccompProfile.type must be RuntimeDefault"
    # Handlers and probes may name a host; a runner has none.
    yield from (f"{where}: {k} must not be set" for k in _HANDLERS if container.get(k))
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield f"{where}: hostPort must not be set"
    if "memory" not in ((container.get("resources") or {}).get("limits") or {}):
        yield f"{where}: a memory limit is needed"
