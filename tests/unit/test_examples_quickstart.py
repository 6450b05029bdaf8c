"""Which clusters of a user's the quickstart takes, and in which words it refuses the others."""

from pathlib import Path

import pytest
import yaml

from evaljob.spec import parse_evaljob, sources
from examples.quickstart.__main__ import main
from examples.quickstart.data import EVALJOB
from examples.quickstart.existing import name_of, refuse_another, refuse_unusable
from examples.quickstart.foreign import given, manifest
from tests.cluster.nodes import Node
from tests.cluster.shell import ClusterError

DATA = Path("/cache/data")


def node(name: str = "mine-control-plane", *, running: bool = True, data: str = str(DATA)) -> Node:
    return Node(name, running, "kindest/node:v1.34.0", data, "172.18.0.2")


def test_a_kind_cluster_whose_nodes_all_mount_the_data_folder_is_taken() -> None:
    both = [node(), node("mine-worker")]
    refuse_unusable("kind-mine", both, DATA)
    refuse_another("kind-mine", both, ["mine-worker", "mine-control-plane"])
    assert name_of("kind-mine") == "mine"


@pytest.mark.parametrize("context", ["prod", "gke_kind-x", "kind-"])
def test_a_context_that_is_not_kinds_is_refused(context: str) -> None:
    with pytest.raises(
        ClusterError, match=f"CONTEXT={context}: not the context of a kind cluster; give kind-NAME"
    ):
        refuse_unusable(context, [node()], DATA)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ([], "no kind cluster mine on this machine; `kind get clusters`"),
        ([node(), node("mine-worker", data="")], "node mine-worker does not mount the data folder"),
        ([node(data="/other")], "node mine-control-plane mounts /other at /mnt/evaljob, not the data folder"),
        ([node(data="")], r"extraMounts: \[{hostPath: /cache/data, containerPath: /mnt/evaljob}\]"),
        ([node(running=False)], "node mine-control-plane does not run; `docker start mine-control-plane`"),
    ],
)
def test_a_cluster_that_cannot_see_the_data_is_refused_with_the_way_out(
    found: list[Node], reason: str
) -> None:
    with pytest.raises(ClusterError, match=reason):
        refuse_unusable("kind-mine", found, DATA)


def test_a_context_that_leads_to_another_cluster_is_refused() -> None:
    """It is called kind-mine, but its API server is somebody else's: the quickstart would delete things there."""
    with pytest.raises(
        ClusterError, match=r"nodes \['ip-10-0-0-1'\], kind's has .*kind export kubeconfig --name mine"
    ):
        refuse_another("kind-mine", [node()], ["ip-10-0-0-1"])


def test_a_context_without_a_cluster_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--on", "local", "--context", "kind-mine"])
    assert "--context: nothing runs on a cluster with --on local" in capsys.readouterr().err


REFS = "operator=reg.example.com:5000/evaljob-operator:0.1.0,runner=reg.example.com/runner@sha256:ab"


def test_for_any_other_cluster_images_and_data_are_named() -> None:
    found = given("prod", REFS, "eval-data")
    assert found.images["operator"] == "reg.example.com:5000/evaljob-operator:0.1.0"
    assert found.images["runner"] == "reg.example.com/runner@sha256:ab"


@pytest.mark.parametrize(
    ("images", "claim", "words"),
    [
        ("", "c", "IMAGES=: give both"),
        ("operator=a:1", "c", "operator=REFERENCE,runner=REFERENCE"),
        ("operator=a:1,runner=", "c", "give both"),
        (
            "operator=a:1,runner=b:1,other=c:1",
            "c",
            "other=c:1: expected NAME=REFERENCE with one of the names",
        ),
        (REFS, "", "DATA_CLAIM: missing; a claim in the namespace evals"),
    ],
)
def test_what_is_missing_there_is_named(images: str, claim: str, words: str) -> None:
    with pytest.raises(ClusterError, match=words):
        given("prod", images, claim)


@pytest.mark.parametrize("gpus", [True, False])
def test_there_all_sources_are_on_the_claim_and_nothing_is_written_to_it(gpus: bool) -> None:
    changed = parse_evaljob(yaml.safe_load(manifest(EVALJOB.read_text(), "eval-data", gpus=gpus))).spec
    uris = {uri for m in changed.models for d in changed.datasets for uri in sources(m, d)}
    assert uris
    assert all(uri.startswith(("pvc://eval-data/models/", "pvc://eval-data/data/")) for uri in uris)
    assert changed.output is None
    assert ("nvidia.com/gpu" in changed.runner.resources.limits) is gpus
    assert changed.runner.resources.limits["memory"] == "3Gi"


def test_images_without_a_context_are_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--images", REFS])
    assert "name it with --context" in capsys.readouterr().err
