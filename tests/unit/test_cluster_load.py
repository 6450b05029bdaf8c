"""A node gets the layers it lacks, and nothing less."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from tests.cluster.load import full_name
from tests.cluster.thinarchive import write

BASE, CODE = b"base layer", b"\x1f\x8bcompressed code layer"


def digest(blob: bytes) -> str:
    return "sha256:" + hashlib.sha256(blob).hexdigest()


def saved(path: Path, members: tuple[str, str]) -> Path:
    """What `docker save` writes: the layers under the names that an engine gives them."""
    config = json.dumps({"rootfs": {"diff_ids": [digest(BASE), digest(b"code layer")]}}).encode()
    manifest = [{"Config": "config.json", "RepoTags": ["x/y:1"], "Layers": members}]
    with tarfile.open(path, "w") as tar:
        for name, data in (
            (members[0], BASE),
            (members[1], CODE),
            ("config.json", config),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def archive(source: Path, present: set[str]) -> dict[str, bytes]:
    target = io.BytesIO()
    write(source, "x/y:1", present, target)
    target.seek(0)
    with tarfile.open(fileobj=target) as tar:
        return {member.name: (tar.extractfile(member) or io.BytesIO()).read() for member in tar}


def blob(found: dict[str, bytes], descriptor: dict[str, str]) -> bytes:
    data = found["blobs/sha256/" + descriptor["digest"].removeprefix("sha256:")]
    assert digest(data) == descriptor["digest"]
    return data


@pytest.fixture
def new_engine(tmp_path: Path) -> Path:
    names = [f"blobs/sha256/{digest(data).removeprefix('sha256:')}" for data in (BASE, CODE)]
    return saved(tmp_path / "image.tar", (names[0], names[1]))


def test_a_node_without_anything_gets_every_layer(new_engine: Path) -> None:
    found = archive(new_engine, set())
    entry = json.loads(found["index.json"])["manifests"][0]
    assert entry["annotations"] == {"io.containerd.image.name": "x/y:1"}
    manifest = json.loads(blob(found, entry))
    assert blob(found, manifest["config"])
    assert [blob(found, layer) for layer in manifest["layers"]] == [BASE, CODE]
    assert [layer["size"] for layer in manifest["layers"]] == [len(BASE), len(CODE)]
    assert [layer["mediaType"].endswith("gzip") for layer in manifest["layers"]] == [False, True]


def test_a_layer_that_the_node_holds_is_left_out_but_named(new_engine: Path) -> None:
    found = archive(new_engine, {digest(BASE)})
    assert BASE not in found.values()
    assert CODE in found.values()
    manifest = json.loads(blob(found, json.loads(found["index.json"])["manifests"][0]))
    assert manifest["layers"][0]["digest"] == digest(BASE)


def test_what_the_node_holds_does_not_change_the_image(new_engine: Path) -> None:
    assert archive(new_engine, set())["index.json"] == archive(new_engine, {digest(BASE)})["index.json"]


def test_engines_before_25_name_layers_by_other_things(tmp_path: Path) -> None:
    found = archive(saved(tmp_path / "image.tar", ("1f/layer.tar", "2f/layer.tar")), set())
    assert found["blobs/sha256/" + digest(BASE).removeprefix("sha256:")] == BASE


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("team/runner:1", "docker.io/team/runner:1"),
        ("evaljob.local/runner:1", "evaljob.local/runner:1"),
        ("localhost:5000/runner", "localhost:5000/runner:latest"),
        ("localhost/runner:1", "localhost/runner:1"),
    ],
)
def test_an_image_has_the_name_by_which_kubernetes_asks_for_it(ref: str, name: str) -> None:
    assert full_name(ref) == name
