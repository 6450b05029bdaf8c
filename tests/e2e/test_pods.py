"""What users set of their pods, looked at from inside one that runs."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Submit
from tests.e2e.evaljobs import SLOW, Handle, endpoint, evaljob, questions
from tests.e2e.own import OwnWorld
from tests.e2e.world import NAMESPACE

pytestmark = pytest.mark.cluster

LOOK = """
import json, os, subprocess
def runs(folder):
    path = folder + "/program"
    with open(path, "w") as file:
        file.write("#!/bin/sh\\nexit 7\\n")
    os.chmod(path, 0o700)
    return subprocess.call([path]) == 7
def shown(path):
    found = os.stat(path)
    return {"text": open(path).read(), "group": found.st_gid, "writable": os.access(path, os.W_OK)}
shm = os.statvfs("/dev/shm")
print(json.dumps({
    "user": os.getuid(), "group": os.getgid(), "groups": sorted(os.getgroups()),
    "shm": shm.f_blocks * shm.f_frsize, "note": shown("/mnt/own/note"), "secret": shown("/etc/ssl/own/token"),
    "runs": [runs("/tmp"), runs("/dev/shm")], "claim": os.listdir("/mnt/adapters"),
    "root": os.access("/", os.W_OK), "variable": os.environ["NETRC"],
}))
"""
OBJECTS: list[dict[str, Any]] = [
    {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "own"}, "data": {"note": "mine"}},
    {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "eval-own"},
        "stringData": {"token": "secret"},
    },
]


@pytest.fixture
def objects(own_world: OwnWorld) -> Iterator[None]:
    """What the volumes show."""
    for manifest in OBJECTS:
        own_world.kubectl.apply(manifest | {"metadata": {**manifest["metadata"], "namespace": NAMESPACE}})
    yield
    for kind in ("configmap/own", "secret/eval-own"):
        own_world.kubectl.run("-n", NAMESPACE, "delete", kind, "--wait=false")


def runner(node: str) -> dict[str, Any]:
    """Much of what can be said."""
    there = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "imagePullPolicy": "Never",
        "securityContext": {
            "runAsUser": 1234,
            "runAsGroup": 1234,
            "fsGroup": 2000,
            "supplementalGroups": [3000],
        },
        "shmSize": "64Mi",
        "volumes": [
            {"name": "own", "mountPath": "/mnt/own", "configMap": {"name": "own"}},
            {"name": "token", "mountPath": "/etc/ssl/own", "secret": {"secretName": "eval-own"}},
            {
                "name": "models",
                "mountPath": "/mnt/adapters",
                "persistentVolumeClaim": {"claimName": "models"},
            },
        ],
        "env": [{"name": "NETRC", "value": "/etc/ssl/own/token"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [there]}]
                }
            }
        },
        "labels": {"example.com/team": "nlp"},
    }


@pytest.mark.usefixtures("objects")
def test_a_pod_is_as_its_user_says(own_world: OwnWorld, submit: Submit) -> None:
    node = own_world.cluster.nodes[-1]
    handle = submit(evaljob("pods", [endpoint("slow", SLOW)], [questions("q", 12)], runner=runner(node)))
    handle.until(lambda: [p for p in handle.get("pods") if p["status"]["phase"] == "Running"])
    (pod,) = handle.get("pods")
    assert (pod["spec"]["nodeName"], pod["metadata"]["labels"]["example.com/team"]) == (node, "nlp")
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["spec"][
        "tolerations"
    ]
    assert look(own_world, handle) == {
        "user": 1234,
        "group": 1234,
        "groups": [1234, 2000, 3000],
        "shm": 64 << 20,
        "note": {"text": "mine", "group": 2000, "writable": False},
        "secret": {"text": "secret", "group": 2000, "writable": False},
        "runs": [True, True],  # caches of Triton and torch hold libraries
        "claim": ["nan", "tiny"],
        "root": False,
        "variable": "/etc/ssl/own/token",
    }
    assert handle.finished()["state"] == "Complete"


def look(own_world: OwnWorld, handle: Handle) -> dict[str, Any]:
    """What the process in the pod sees."""
    (pod,) = handle.get("pods")
    name = pod["metadata"]["name"]
    text = own_world.kubectl.run("-n", NAMESPACE, "exec", name, "--", "python", "-c", LOOK)
    found: dict[str, Any] = json.loads(text)
    return found | {"claim": sorted(found["claim"]), "groups": sorted({1234, *found["groups"]})}
