"""Servers on the cluster: each a restricted pod with the Service that names it."""

from dataclasses import dataclass
from typing import Any

from tests.cluster.paths import REPOSITORY
from tests.kube import CommandError, Kubectl

NAMESPACE = "e2e"
PORT = 8000
STUB_MODES = ("slow", "401", "judge")
SERVED_MODEL = "/srv/tiny"
"""What `transformers serve` calls the tiny model: its path."""

PART_OF = {"app.kubernetes.io/part-of": "evaljob-e2e"}
"""The label of all that the tests put into their namespace beside EvalJobs."""

Manifest = dict[str, Any]
_HARMLESS = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@dataclass(frozen=True, slots=True)
class Volume:
    """What a pod mounts: a claim, or a folder of it."""

    claim: str
    folder: str = ""


def address(name: str) -> str:
    """Where pods reach a server."""
    return f"http://{name}.{NAMESPACE}.svc.cluster.local:{PORT}"


def url(name: str) -> str:
    """The same for a model's `openai.url`."""
    return f"{address(name)}/v1"


def wait(kubectl: Kubectl, name: str) -> None:
    """Wait until a server is ready."""
    try:
        kubectl.wait(f"pod/{name}", "condition=Ready", "-n", NAMESPACE, seconds=90)
    except CommandError as error:
        error.add_note(kubectl.run("logs", f"pod/{name}", "-n", NAMESPACE, "--tail=20"))
        raise


def stubs(image: str, node: str | None) -> Manifest:
    """A stub server per fault.

    Args:
        image: any with Python.
        node: where they run: tests take other nodes away.
    """
    script = (REPOSITORY / "tests" / "stub_server.py").read_text()
    items = [labelled("v1", "ConfigMap", "stub-server", data={"stub_server.py": script})]
    for mode in STUB_MODES:
        command = ["python", "/srv/stub_server.py", "--port", str(PORT), "--mode", mode]
        pod, service = server(f"stub-{mode}", image, command, {"configMap": {"name": "stub-server"}})
        pod["spec"]["nodeSelector"] = _only(node)
        items += [pod, service]
    return _list(items)


def transformers_serve(image: str, packages: str, models: Volume, node: str | None) -> Manifest:
    """`transformers serve` on the tiny model, called `serve`: a real OpenAI-compatible server.

    Args:
        image: with torch and transformers.
        packages: an image whose Python packages the server needs beside those.
        models: holds the tiny model.
        node: holds both images.
    """
    options = ["--device", "cpu", "--dtype", "float32", "--host", "0.0.0.0", "--port", str(PORT)]  # noqa: S104 - a pod
    command = ["python", "-m", "transformers.cli.transformers", "serve", SERVED_MODEL, *options]
    pod, service = server("serve", image, command, {"persistentVolumeClaim": {"claimName": models.claim}})
    (container,) = pod["spec"]["containers"]
    container["volumeMounts"][0]["subPath"] = models.folder
    environment = {"PYTHONPATH": "/packages", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    container["env"] = [{"name": name, "value": value} for name, value in environment.items()]
    added = {"name": "packages", "mountPath": "/packages"}
    container["volumeMounts"].append(added)
    pod["spec"]["volumes"].append({"name": "packages", "emptyDir": {}})
    pod["spec"]["nodeSelector"] = _only(node)
    copy = "cp -r /opt/venv/lib/python3*/site-packages/. /packages"
    pod["spec"]["initContainers"] = [
        {
            "name": "packages",
            "image": packages,
            "imagePullPolicy": "Never",
            "command": ["sh", "-c", copy],
            "volumeMounts": [added],
            "securityContext": _HARMLESS,
        }
    ]
    return _list([pod, service])


def server(name: str, image: str, command: list[str], volume: Manifest) -> tuple[Manifest, Manifest]:
    """A pod that serves HTTP with `volume` at /srv, and its Service."""
    container = {
        "name": "server",
        "image": image,
        "imagePullPolicy": "Never",
        "command": command,
        "volumeMounts": [{"name": "srv", "mountPath": "/srv", "readOnly": True}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "securityContext": _HARMLESS,
    }
    user = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "securityContext": user,
        "containers": [container],
        "volumes": [{"name": "srv", **volume}],
        "terminationGracePeriodSeconds": 1,
    }
    pod = labelled("v1", "Pod", name, spec=spec)
    pod["metadata"]["labels"] |= {"app": name}
    ports = {"selector": {"app": name}, "ports": [{"port": PORT}]}
    return pod, labelled("v1", "Service", name, spec=ports)


def labelled(api: str, kind: str, name: str, **fields: Any) -> Manifest:  # noqa: ANN401 - manifests
    """An object in the tests' namespace that says that it is theirs."""
    meta = {"name": name, "namespace": NAMESPACE, "labels": dict(PART_OF)}
    return {"apiVersion": api, "kind": kind, "metadata": meta, **fields}


def _only(node: str | None) -> dict[str, str]:
    """The node selector for one node, or for any."""
    return {"kubernetes.io/hostname": node} if node else {}


def _list(items: list[Manifest]) -> Manifest:
    return {"apiVersion": "v1", "kind": "List", "items": items}
