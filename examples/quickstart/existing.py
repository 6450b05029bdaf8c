"""A kind cluster of the user's own: what it must be, and the words for what it is not."""

from collections.abc import Sequence
from pathlib import Path

from tests.cluster.nodes import MOUNT, Node
from tests.cluster.shell import ClusterError

_PREFIX = "kind-"


def name_of(context: str) -> str:
    """The name of the kind cluster behind a context: kind calls the context `kind-<name>`.

    Raises:
        ClusterError: For any other context.
    """
    name = context.removeprefix(_PREFIX)
    if name in ("", context):
        raise ClusterError(
            f"CONTEXT={context}: not the context of a kind cluster; give kind-NAME, or for any other cluster IMAGES "
            "and DATA_CLAIM too, or leave CONTEXT out for a cluster that is made for you"
        )
    return name


def refuse_unusable(context: str, nodes: Sequence[Node], data: Path) -> None:
    """Refuse a cluster that is not here, or whose nodes do not see the data.

    Args:
        context: As the user gave it.
        nodes: The containers of the kind cluster of that name.
        data: The folder with models and questions, on this machine.

    Raises:
        ClusterError: With the reason and what to do.
    """
    name = name_of(context)
    if not nodes:
        raise ClusterError(
            f"CONTEXT={context}: no kind cluster {name} on this machine; `kind get clusters` lists those there are"
        )
    for node in nodes:
        if not node.running:
            raise ClusterError(
                f"CONTEXT={context}: node {node.name} does not run; `docker start {node.name}`"
            )
        if node.data != str(data):
            mounted = f"mounts {node.data} at {MOUNT}, not" if node.data else "does not mount"
            raise ClusterError(
                f"CONTEXT={context}: node {node.name} {mounted} the data folder; kind mounts a folder only when "
                "it makes a node: make the cluster anew, in its configuration for every node "
                f"extraMounts: [{{hostPath: {data}, containerPath: {MOUNT}}}]"
            )


def refuse_another(context: str, nodes: Sequence[Node], listed: Sequence[str]) -> None:
    """Refuse a context that has the cluster's name and leads elsewhere: the quickstart installs and deletes.

    Args:
        context: As the user gave it.
        nodes: The containers of the kind cluster of that name.
        listed: The nodes that the context's API server knows.

    Raises:
        ClusterError: When they are not the same.
    """
    here = sorted(node.name for node in nodes)
    if sorted(listed) != here:
        raise ClusterError(
            f"CONTEXT={context}: leads to a cluster with the nodes {sorted(listed)}, kind's has {here}; "
            f"`kind export kubeconfig --name {name_of(context)}` mends the context"
        )
