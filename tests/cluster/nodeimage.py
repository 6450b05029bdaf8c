"""The image of a kind node, and the base image that our own images are built on.

With an image registry these are `kindest/node` and a slim Python image. Without one they are made here:
a base from Debian packages (mmdebstrap) and a node image on it. Both lie in the cache as one file of 155 MB.

The `kindest/node` way is UNTESTED: it was written on a machine that reaches no image registry.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import binaries, digest, emptyimages
from tests.cluster.docker import Docker
from tests.cluster.paths import HERE, Cache
from tests.cluster.shell import ClusterError, Timeline, pipe, run, works

KINDEST = "kindest/node:v1.37.0"  # the default of the kind version in go.mod
SLIM_PYTHON = "python:3.12-slim"
SUITE = "bookworm"
_FOR_IMAGES = ("python3-minimal", "python3-venv", "ca-certificates", "tini")
_FOR_NODES = ("containerd", "runc", "containernetworking-plugins", "iptables", "iproute2", "conntrack")
BASE_PACKAGES = (*_FOR_IMAGES, *_FOR_NODES, "procps", "mount")
_LEFT_OUT = ("doc", "man", "locale")
_STATIC_PODS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd")
_PROGRAMS_IN_KUBE = (*_STATIC_PODS, "kubelet", "kubeadm", "kubectl", "kube-proxy")
_PROBE_SECONDS = 10.0


@dataclass(frozen=True)
class NodeImage:
    """What nodes run and what our images are built on.

    Attributes:
        ref: The node image.
        base: The base of the operator's and runners' images.
        own: Whether both were made here.
    """

    ref: str
    base: str
    own: bool


def choose(environ: Mapping[str, str], docker: Docker, cache: Cache) -> NodeImage:
    """`kindest/node` where a registry has it, else our own.

    `EVALJOB_NODE_IMAGE=kindest|own` decides without a probe. So does a node image of our own that is there.
    """
    own = _own()
    wanted = environ.get("EVALJOB_NODE_IMAGE", "")
    if wanted not in {"", "kindest", "own"}:
        raise ClusterError(f"EVALJOB_NODE_IMAGE={wanted}: must be `kindest` or `own`")
    if wanted == "own" or (not wanted and (_archive(cache, own).exists() or docker.has_image(own.ref))):
        return own
    if wanted == "kindest" or works(docker.client, "manifest", "inspect", KINDEST, timeout=_PROBE_SECONDS):
        return NodeImage(ref=KINDEST, base=SLIM_PYTHON, own=False)
    return own


def ensure(image: NodeImage, docker: Docker, cache: Cache, timeline: Timeline) -> None:
    """Have the node image and the base in the engine: there already, from the cache, pulled, or built.

    Raises:
        ClusterError: If a build fails.
    """
    if all(map(docker.has_image, (image.ref, image.base))):
        return
    archive = _archive(cache, image)
    if not image.own:
        with timeline.stage("pull images"):
            docker("pull", image.ref)
            docker("pull", image.base)
    elif archive.exists():
        with timeline.stage("load cached images"):
            pipe(["zstd", "-qdc", str(archive)], [docker.client, "load", "-q"])
    else:
        _build(image, docker, cache, timeline)


def _build(image: NodeImage, docker: Docker, cache: Cache, timeline: Timeline) -> None:
    # The base waits for the mirror and the disk while Go keeps the processors busy.
    with ThreadPoolExecutor(max_workers=1) as pool:
        base = pool.submit(_ensure_base, image.base, docker, cache, timeline)
        folder = binaries.ensure(cache, timeline)
        base.result()
    with timeline.stage("node image"):
        _build_node(image, folder, docker, cache)
    with timeline.stage("save images to the cache"):
        archive = _archive(cache, image)
        fresh = archive.with_suffix(".new")
        pipe([docker.client, "save", image.base, image.ref], ["zstd", "-q", "-3", "-T0"], stdout=fresh)
        fresh.rename(archive)
        binaries.prune(cache, "node-*.tar.zst")


def _ensure_base(ref: str, docker: Docker, cache: Cache, timeline: Timeline) -> None:
    if docker.has_image(ref):
        return
    with timeline.stage("base image"), tempfile.TemporaryDirectory(dir=cache.cluster) as folder:
        tar = Path(folder) / "base.tar"
        leave_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
        packages = f"--include={','.join(BASE_PACKAGES)}"
        mirror = debian_mirror(_apt_sources())
        run("mmdebstrap", "--quiet", "--variant=minbase", packages, *leave_out, SUITE, tar, *mirror)
        docker("import", tar, ref)


def _build_node(image: NodeImage, folder: Path, docker: Docker, cache: Cache) -> None:
    version = binaries.kubernetes_version((HERE / "go.mod").read_text())
    with tempfile.TemporaryDirectory(dir=cache.cluster) as temporary:
        context = Path(temporary)
        root = context / "fs"
        shutil.copytree(HERE / "node" / "fs", root)
        shutil.copy(HERE / "node" / "Dockerfile", context)
        (root / "kind" / "version").write_text(version + "\n")
        emptyimages.write(root / "kind" / "images.tar", folder / "pause", version)
        os.link(folder / "kube", root / "usr" / "local" / "bin" / "kube")
        (root / "usr" / "bin").mkdir()
        for program in _PROGRAMS_IN_KUBE:
            (root / "usr" / "bin" / program).symlink_to("../local/bin/kube")
        docker("build", "-q", "--build-arg", f"BASE={image.base}", "-t", image.ref, context)


def _own() -> NodeImage:
    base = digest.of([SUITE, *BASE_PACKAGES, *_LEFT_OUT], HERE)
    sources = [HERE / name for name in ("emptyimages.py", "node/Dockerfile", "node/fs")]
    node = digest.of([base, binaries.key(), *_PROGRAMS_IN_KUBE, *sources], HERE)
    repository = emptyimages.REPOSITORY
    return NodeImage(ref=f"{repository}/node:{node}", base=f"{repository}/base:{base}", own=True)


def _archive(cache: Cache, image: NodeImage) -> Path:
    return cache.cluster / f"node-{image.ref.rpartition(':')[2]}.tar.zst"


def debian_mirror(sources: str) -> list[str]:
    """The first mirror in apt's sources, as mmdebstrap's argument; none lets mmdebstrap take its default.

    Args:
        sources: The text of apt's source files, one-line or deb822 style.
    """
    found = re.search(r"^(?:URIs:|deb(?: \[[^\]]*\])?)\s+(\S*/debian/?)(?:\s|$)", sources, re.MULTILINE)
    return [found[1]] if found else []


def _apt_sources() -> str:
    etc = Path("/etc/apt")
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("debian*"))]
    return "\n".join(file.read_text() for file in files if file.is_file())
