"""Copy images from the engine to the nodes of a cluster."""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.cluster import nodes, thinarchive
from tests.cluster.machine import Machine
from tests.cluster.shell import ClusterError, CommandError

_CTR = ("ctr", "--namespace=k8s.io")


def load(machine: Machine, name: str, refs: Sequence[str], only: Sequence[str] = ()) -> dict[str, list[str]]:
    """Copy images to nodes; a node that holds an image is left out, and gets only the layers that it lacks.

    Args:
        machine: The machine of the cluster.
        name: The cluster.
        refs: Images in the engine.
        only: The nodes that get them; none: all.

    Returns:
        For each image the nodes it was copied to.

    Raises:
        ClusterError: If there is no such node or image, or a node refuses it.
    """
    known = sorted(node.name for node in nodes.containers(machine.docker, name) if node.running)
    unknown = set(only) - set(known)
    if unknown or not known:
        raise ClusterError(f"cluster {name} has no running node {sorted(unknown)}; it has {known}")
    listings = {node: _ask(machine, node, "images", "ls") for node in only or known}
    copied = {}
    for ref in refs:
        image = machine.docker("image", "inspect", "--format", "{{.Id}}", ref).strip()
        copied[ref] = [node for node, listing in listings.items() if not holds(listing, ref, image)]
        if copied[ref]:
            _copy(machine, ref, copied[ref])
    return copied


def holds(listing: str, ref: str, image: str) -> bool:
    """Whether a node's `ctr images ls` shows an image under this name and with this content.

    containerd lists an image by name and by the digest of its configuration, which is Docker's image id;
    both lines carry the digest of its manifest.

    Args:
        listing: What `ctr images ls` printed.
        ref: The image's name.
        image: The engine's id of the image, `sha256:...`.
    """
    rows = {words[0]: words[2] for line in listing.splitlines() if len(words := line.split()) > 2}
    manifest = rows.get(full_name(ref))
    return manifest is not None and manifest in {rows.get(image), image}


def full_name(ref: str) -> str:
    """The name as Kubernetes asks containerd for it: Docker leaves out its own registry, and `latest`.

    Args:
        ref: A name as Docker takes it.
    """
    first, slash, rest = ref.partition("/")
    if not slash:
        ref = f"docker.io/library/{ref}"
    elif "." not in first and ":" not in first and first != "localhost":
        ref = f"docker.io/{first}/{rest}"
    return ref if ":" in ref.rpartition("/")[2] else f"{ref}:latest"


def _copy(machine: Machine, ref: str, names: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(dir=machine.cache.cluster) as folder:
        saved = Path(folder) / "image.tar"
        machine.docker("save", "--output", saved, ref)
        for node in names:
            present = set(_ask(machine, node, "content", "ls", "--quiet").split())
            command = [machine.docker.client, "exec", "--interactive", node, *_CTR, "images", "import", "-"]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
                if process.stdin:
                    with process.stdin as target:
                        thinarchive.write(saved, full_name(ref), present, target)
            if process.returncode:
                raise CommandError(f"{node} did not take {ref}; its reason stands above")


def _ask(machine: Machine, node: str, *question: str) -> str:
    return machine.docker("exec", node, *_CTR, *question)
