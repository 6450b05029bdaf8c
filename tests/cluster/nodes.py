"""What Docker and Kubernetes say about the nodes of a kind cluster."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tests.cluster.docker import Docker

MOUNT = "/mnt/evaljob"


@dataclass(frozen=True)
class Node:
    """What matters of a node's container.

    Attributes:
        name: The container's name, which is the node's.
        running: Whether it runs.
        image: The name of its image.
        data: The folder behind `MOUNT`; empty without one.
        address: In kind's network; empty while it is stopped.
    """

    name: str
    running: bool
    image: str
    data: str
    address: str


def filter_of(name: str) -> str:
    """What selects the containers of a cluster; kind sets this label."""
    return f"label=io.x-k8s.kind.cluster={name}"


def containers(docker: Docker, name: str) -> list[Node]:
    """The containers of a cluster, running or not."""
    ids = docker("ps", "-aq", "--filter", filter_of(name)).split()
    return [
        Node(
            name=container["Name"].removeprefix("/"),
            running=container["State"]["Running"],
            image=container["Config"]["Image"],
            data=next((m["Source"] for m in container["Mounts"] if m["Destination"] == MOUNT), ""),
            address=container["NetworkSettings"]["Networks"].get("kind", {}).get("IPAddress", ""),
        )
        for container in (json.loads(docker("inspect", *ids)) if ids else [])
    ]


def all_ready(listing: str, names: Sequence[str], since: str) -> bool:
    """Whether the kubelets of these nodes say that they are ready.

    Args:
        listing: `kubectl get nodes -o json`.
        names: The nodes.
        since: A time in RFC 3339; what a kubelet said before it does not count. After a restart the API server
            still shows the last word of a kubelet that is not back yet.
    """
    said = {
        node["metadata"]["name"]: condition
        for node in json.loads(listing)["items"]
        for condition in node["status"].get("conditions", [])
        if condition["type"] == "Ready"
    }
    return all(
        name in said and said[name]["status"] == "True" and said[name]["lastHeartbeatTime"] >= since
        for name in names
    )
