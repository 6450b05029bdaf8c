"""The images of a node's static pods: none of them holds a program but `pause`.

The pods mount the node's own binary (node/fs/kind/patches), so a node keeps 135 MB instead of 1.2 GB.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path

REPOSITORY = "evaljob.local"
_STATIC_PODS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")


def write(archive: Path, pause: Path, version: str) -> None:
    """Write a docker archive with the names that kubeadm, containerd and our manifests ask for.

    Args:
        archive: The tar file to write.
        pause: The static program that holds a pod's namespaces.
        version: Kubernetes' version, the tag of its images.
    """
    layer = _layer(pause.read_bytes())
    programs = [f"{name}:{version}" for name in _STATIC_PODS] + ["etcd:node", "empty:1"]
    # Only pause runs as nobody: etcd with a user dies on "permission denied" at its data folder.
    images: tuple[tuple[list[str], dict[str, str]], ...] = (
        (["pause:1"], {"User": "65535:65535"}),
        (programs, {}),
    )
    digest = hashlib.sha256(layer).hexdigest()
    with tarfile.open(archive, "w") as tar:
        _add(tar, f"{digest}/layer.tar", layer)
        manifest = []
        for names, extra in images:
            config = _config(digest, extra)
            config_name = hashlib.sha256(config).hexdigest() + ".json"
            _add(tar, config_name, config)
            tags = [f"{REPOSITORY}/{name}" for name in names]
            manifest.append({"Config": config_name, "RepoTags": tags, "Layers": [f"{digest}/layer.tar"]})
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def _layer(program: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, "pause", program, mode=0o755)
    return buffer.getvalue()


def _config(layer: str, extra: dict[str, str]) -> bytes:
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], **extra},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer}"]},
        "history": [{"created_by": "evaljob"}],
    }
    return json.dumps(config).encode()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mode = mode
    tar.addfile(info, io.BytesIO(data))
