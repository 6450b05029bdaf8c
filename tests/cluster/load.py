"""Copy images from the engine to the nodes of a cluster."""

from collections.abc import Sequence

from tests.cluster.machine import Machine
from tests.cluster.shell import ClusterError


def load(machine: Machine, name: str, refs: Sequence[str], nodes: Sequence[str] = ()) -> dict[str, list[str]]:
    """Copy images from the engine to nodes; those that hold an image already are left out.

    Args:
        machine: The machine of the cluster.
        name: The cluster.
        refs: Images in the engine.
        nodes: The nodes that get them; none: all.

    Returns:
        For each image the nodes it was copied to.
    """
    known = machine.kind("get", "nodes", "--name", name).split()
    unknown = set(nodes) - set(known)
    if unknown:
        raise ClusterError(f"cluster {name} has no node {sorted(unknown)}; it has {sorted(known)}")
    listings = {node: _images_of(machine, node) for node in nodes or sorted(known)}
    copied = {}
    for ref in refs:
        image = machine.docker("image", "inspect", "--format", "{{.Id}}", ref).strip()
        copied[ref] = [node for node, listing in listings.items() if not holds(listing, ref, image)]
        if copied[ref]:
            machine.kind("load", "docker-image", ref, "--name", name, "--nodes", ",".join(copied[ref]))
    return copied


def holds(listing: str, ref: str, image: str) -> bool:
    """Whether a node's `ctr images ls` shows an image under this name and with this content.

    containerd lists an image by name and by the digest of its configuration, which is Docker's image id;
    both lines carry the digest of its manifest.

    Args:
        listing: What `ctr images ls` printed.
        ref: The name with its registry or repository, and tag.
        image: The engine's id of the image, `sha256:...`.
    """
    rows = {words[0]: words[2] for line in listing.splitlines() if len(words := line.split()) > 2}
    manifest = rows.get(ref) or rows.get(f"docker.io/{ref}") or rows.get(f"docker.io/library/{ref}")
    return manifest is not None and manifest in {rows.get(image), image}


def _images_of(machine: Machine, node: str) -> str:
    return machine.docker("exec", node, "ctr", "-n", "k8s.io", "images", "ls")
