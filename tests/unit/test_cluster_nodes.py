"""What tells a cluster that can be used from one that cannot."""

import json
from pathlib import Path

import pytest

from tests.cluster.docker import has_buildkit
from tests.cluster.kind import ClusterSpec, configuration, node_names
from tests.cluster.load import holds
from tests.cluster.nodes import all_ready
from tests.cluster.paths import Cache
from tests.cluster.tools import new_enough

LISTING = """\
REF TYPE DIGEST SIZE PLATFORMS LABELS
evaljob.local/runner:1 application/manifest sha256:aa 1.0 MiB linux/amd64 io.cri-containerd.image=managed
docker.io/library/busybox:1 application/manifest sha256:bb 1.0 MiB linux/amd64 -
sha256:11 application/manifest sha256:aa 1.0 MiB linux/amd64 io.cri-containerd.image=managed
sha256:22 application/manifest sha256:bb 1.0 MiB linux/amd64 io.cri-containerd.image=managed
"""


def node(name: str, status: str, heartbeat: str) -> dict[str, object]:
    condition = {"type": "Ready", "status": status, "lastHeartbeatTime": heartbeat}
    return {"metadata": {"name": name}, "status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    ("listed", "ready"),
    [
        ([node("a", "True", "2026-01-01T00:00:09Z"), node("b", "True", "2026-01-01T00:00:07Z")], True),
        ([node("a", "True", "2026-01-01T00:00:09Z"), node("b", "False", "2026-01-01T00:00:09Z")], False),
        ([node("a", "True", "2026-01-01T00:00:09Z")], False),
        ([node("a", "True", "2026-01-01T00:00:09Z"), {"metadata": {"name": "b"}, "status": {}}], False),
        # A kubelet that has not come back since the restart: the last word before it does not count.
        ([node("a", "True", "2026-01-01T00:00:09Z"), node("b", "True", "2026-01-01T00:00:05Z")], False),
    ],
)
def test_nodes_are_ready_when_each_kubelet_says_so_since_the_start(listed: list[object], ready: bool) -> None:
    assert all_ready(json.dumps({"items": listed}), ["a", "b"], "2026-01-01T00:00:07Z") is ready


@pytest.mark.parametrize(
    ("ref", "image", "held"),
    [
        ("evaljob.local/runner:1", "sha256:11", True),
        ("busybox:1", "sha256:22", True),
        ("evaljob.local/runner:1", "sha256:22", False),  # the tag moved to another image
        ("evaljob.local/runner:2", "sha256:11", False),
        ("evaljob.local/runner:1", "sha256:aa", True),  # engines whose ids are digests of manifests
    ],
)
def test_a_node_holds_an_image_by_name_and_content(ref: str, image: str, held: bool) -> None:
    assert holds(LISTING, ref, image) is held


def test_nodes_are_called_as_kind_calls_them() -> None:
    assert node_names(ClusterSpec("c")) == ("c-control-plane",)
    names = ("c-control-plane", "c-worker", "c-worker2", "c-worker3")
    assert node_names(ClusterSpec("c", workers=3)) == names


def test_every_node_mounts_the_data_folder() -> None:
    text = configuration(ClusterSpec("c", workers=2), "node:1", Path("/data"), "kind: Cluster")
    nodes = json.loads(text.rpartition("nodes: ")[2])
    assert [node["role"] for node in nodes] == ["control-plane", "worker", "worker"]
    assert all(
        node["extraMounts"] == [{"hostPath": "/data", "containerPath": "/mnt/evaljob"}] for node in nodes
    )
    assert "\nname: c\n" in text


@pytest.mark.parametrize(
    ("version", "buildx", "usable"),
    [
        ("20.10.24+dfsg1", False, True),
        ("28.2.2", False, False),
        ("28.2.2", True, True),
        ("17.12.0", False, False),
        ("", False, False),
    ],
)
def test_a_client_without_buildkit_is_passed_over(version: str, buildx: bool, usable: bool) -> None:
    assert has_buildkit(version, buildx=buildx) is usable


@pytest.mark.parametrize(
    ("tool", "output", "usable"),
    [
        ("kubectl", "Client Version: v1.32.4-dispatcher\nKustomize Version: v5.5.0", True),
        ("kubectl", "Client Version: v1.20.2", False),  # Debian's: no strict validation
        ("helm", "v3.14.0+g3fc9f4b", True),
        ("helm", "v3.9.1+ga7c043a", False),
        ("helm", "v4.2.4", True),
        ("kind", "kind v0.33.0 go1.26.8 linux/amd64", True),
        ("helm", "", False),
    ],
)
def test_a_tool_of_the_machine_must_be_new_enough(tool: str, output: str, usable: bool) -> None:
    assert new_enough(tool, output) is usable


@pytest.mark.parametrize(
    ("environ", "root"),
    [
        ({"EVALJOB_CACHE": "{tmp}/named", "XDG_CACHE_HOME": "{tmp}/xdg", "HOME": "{tmp}"}, "named"),
        ({"XDG_CACHE_HOME": "{tmp}/xdg", "HOME": "{tmp}"}, "xdg/evaljob"),
        ({"HOME": "{tmp}"}, ".cache/evaljob"),
    ],
)
def test_the_cache_is_where_the_environment_says(tmp_path: Path, environ: dict[str, str], root: str) -> None:
    filled = {name: value.format(tmp=tmp_path) for name, value in environ.items()}
    assert Cache.from_env(filled).root == tmp_path / root
