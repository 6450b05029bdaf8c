"""The cluster of the tests, as fixtures: made if there is none, removed at the end if the session made it.

EVALJOB_KEEP_CLUSTER=1 keeps it for the next session, which then starts in seconds.
"""

import os
from collections.abc import Iterator

import pytest

from tests.cluster import kind
from tests.cluster.kind import Cluster, ClusterSpec
from tests.cluster.machine import Machine, prepare
from tests.cluster.paths import Cache
from tests.cluster.shell import Timeline
from tests.kube import Kubectl

SPEC = ClusterSpec("evaljob-e2e", workers=2, gpus=8)


@pytest.fixture(scope="session")
def machine() -> Machine:
    """Docker Engine, node image and tools of this machine."""
    return prepare(Cache.from_env(os.environ), Timeline())


@pytest.fixture(scope="session")
def cluster(machine: Machine) -> Iterator[Cluster]:
    """A cluster of three nodes with simulated GPUs."""
    made = kind.up(machine, SPEC, Timeline())
    yield made
    if not stays(made):
        kind.down(machine.docker, machine.cache, made.name)


def stays(cluster: Cluster) -> bool:
    """Whether a cluster outlives this session, so that what is put on it has to be removed."""
    return cluster.origin != "created" or bool(os.environ.get("EVALJOB_KEEP_CLUSTER"))


@pytest.fixture(scope="session")
def kubectl(machine: Machine, cluster: Cluster) -> Kubectl:
    """Kubectl for that cluster, and for no other."""
    return Kubectl(cluster.context, cluster.kubeconfig, machine.path)
