"""What decides which images are built, and what is in them."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.cluster import binaries, digest, emptyimages, nodeimage
from tests.cluster.images import RECIPES, reference
from tests.cluster.packageindex import certificates, pip_conf
from tests.cluster.paths import HERE, REPOSITORY


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    root = tmp_path / "one"
    (root / "package").mkdir(parents=True)
    (root / "package" / "code.py").write_text("x = 1")
    (root / "run").write_text("#!/bin/sh")
    return root


def of(root: Path) -> str:
    return digest.of(["flag", root / "package", root / "run"], root)


def test_a_copy_elsewhere_has_the_same_digest(sources: Path, tmp_path: Path) -> None:
    copy = tmp_path / "two"
    shutil.copytree(sources, copy)
    assert of(copy) == of(sources)


def test_byte_code_does_not_change_the_digest(sources: Path) -> None:
    before = of(sources)
    (sources / "package" / "__pycache__").mkdir()
    (sources / "package" / "__pycache__" / "code.cpython-311.pyc").write_bytes(b"1")
    assert of(sources) == before


@pytest.mark.parametrize("change", ["content", "name", "mode", "new file"])
def test_what_an_image_would_show_changes_the_digest(sources: Path, change: str) -> None:
    before = of(sources)
    code = sources / "package" / "code.py"
    if change == "content":
        code.write_text("x = 2")
    elif change == "name":
        code.rename(code.with_name("other.py"))
    elif change == "mode":
        (sources / "run").chmod(0o755)
    else:
        code.with_name("new.py").write_text("")
    assert of(sources) != before


def test_neighbouring_texts_do_not_run_together(tmp_path: Path) -> None:
    assert digest.of(["ab", "c"], tmp_path) != digest.of(["a", "bc"], tmp_path)


@pytest.mark.parametrize("name", RECIPES)
def test_each_image_is_tagged_by_its_base(name: str) -> None:
    recipe = RECIPES[name]
    assert reference(name, recipe, "base:1") == reference(name, recipe, "base:1")
    assert reference(name, recipe, "base:1") != reference(name, recipe, "base:2")


@pytest.mark.parametrize("name", RECIPES)
def test_a_dockerfile_copies_only_what_counts_for_the_tag(name: str) -> None:
    recipe = RECIPES[name]
    copies = [
        line.split()[1]
        for line in (REPOSITORY / recipe.dockerfile).read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
    ]
    known = {*recipe.inputs, "${REQUIREMENTS}"}
    if "CUDA=stubs" not in recipe.arguments:
        copies = [path for path in copies if path != "requirements/cpu_stubs.py"]  # a stage that is not built
    assert copies
    assert set(copies) <= known


def test_only_pause_has_a_user(tmp_path: Path) -> None:
    """Etcd with a user cannot write its data folder."""
    (tmp_path / "pause").write_bytes(b"program")
    emptyimages.write(tmp_path / "images.tar", tmp_path / "pause", "v1.2.3")
    users = {}
    with tarfile.open(tmp_path / "images.tar") as tar:

        def read(name: str) -> bytes:
            member = tar.extractfile(name)
            assert member
            return member.read()

        for image in json.loads(read("manifest.json")):
            user = json.loads(read(image["Config"]))["config"].get("User")
            users.update(dict.fromkeys(image["RepoTags"], user))
            assert tar.getmember(image["Layers"][0])
    assert users.pop("evaljob.local/pause:1") == "65535:65535"
    assert users["evaljob.local/etcd:node"] is None
    assert "evaljob.local/kube-apiserver:v1.2.3" in users
    assert set(users.values()) == {None}


def test_each_image_that_a_node_asks_for_is_made() -> None:
    made = {"evaljob.local/pause:1", "evaljob.local/empty:1"}
    texts = [
        path.read_text() for path in (HERE / "node" / "fs").rglob("*") if path.suffix in {".yaml", ".toml"}
    ]
    words = {
        word.strip('"')
        for text in texts
        for word in text.split()
        if word.startswith(('"evaljob.local/', "evaljob.local/"))
    }
    assert words == made


def test_the_version_of_kubernetes_is_that_of_go_mod() -> None:
    assert (
        binaries.kubernetes_version("require (\n\tk8s.io/kubectl v0.9.1\n\tk8s.io/kubernetes v1.2.3\n)")
        == "v1.2.3"
    )


@pytest.mark.parametrize(
    ("sources_text", "mirror"),
    [
        (
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm",
            ["http://mirror.example/debian"],
        ),
        (
            "# deb http://old.example/debian x\ndeb http://new.example/debian/ bookworm main",
            ["http://new.example/debian/"],
        ),
        ("deb [signed-by=/k] https://m.example/debian bookworm main", ["https://m.example/debian"]),
        ("URIs: http://mirror.example/debian-security", []),
        ("", []),
    ],
)
def test_the_base_comes_from_the_mirror_of_this_machine(sources_text: str, mirror: list[str]) -> None:
    assert nodeimage.debian_mirror(sources_text) == mirror


def test_a_build_gets_the_index_of_the_host_but_not_its_paths(tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://a.example\ncert = /host/bundle\n[install]\ntrusted-host =\n  b\n  c\n"
    )
    text = pip_conf(
        {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(file), "PIP_EXTRA_INDEX_URL": "https://d.example"}
    )
    assert "index-url = https://a.example\n" in text
    assert "extra-index-url = https://d.example\n" in text
    assert "trusted-host = \n    b\n    c\n" in text
    assert "/host" not in text


def test_an_environment_variable_beats_a_file(tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("[global]\nindex-url = https://a.example\n")
    text = pip_conf(
        {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(file), "PIP_INDEX_URL": "https://b.example"}
    )
    assert "https://b.example" in text
    assert "https://a.example" not in text


def test_pip_s_own_bundle_comes_first() -> None:
    assert certificates({"PIP_CERT": "/a", "SSL_CERT_FILE": "/b"}) == Path("/a")
    assert certificates({"SSL_CERT_FILE": "/b"}) == Path("/b")
    assert certificates({}) == Path("/etc/ssl/certs/ca-certificates.crt")
