"""Which clusters of a user's the quickstart takes, and in which words it refuses the others."""

from pathlib import Path

import pytest

from examples.quickstart.__main__ import main
from examples.quickstart.existing import name_of, refuse_another, refuse_unusable
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
