"""One cluster and one installation for all end-to-end tests; every EvalJob is deleted after its test."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.kind import Cluster
from tests.cluster.machine import Machine
from tests.clusters import stays
from tests.e2e import world as worlds
from tests.e2e.evaljobs import Handle
from tests.e2e.world import NAMESPACE, World
from tests.kube import Kubectl


@pytest.fixture(scope="session")
def world(machine: Machine, cluster: Cluster, kubectl: Kubectl) -> Iterator[World]:
    made = worlds.make(machine, cluster, kubectl)
    yield made
    if stays(cluster):
        worlds.remove(made)
    shutil.rmtree(made.data, ignore_errors=True)


Submit = Callable[[dict[str, Any]], Handle]


@pytest.fixture
def submit(world: World) -> Iterator[Submit]:
    """Apply an EvalJob; it is deleted when the test ends, and nothing of it may stay."""
    handles: list[Handle] = []

    def apply(manifest: dict[str, Any]) -> Handle:
        world.kubectl.apply(manifest)
        handle = Handle(world, manifest["metadata"]["name"])
        handles.append(handle)
        return handle

    yield apply
    for handle in handles:
        world.kubectl.run("delete", "evaljob", handle.name, "-n", NAMESPACE, "--ignore-not-found", "--wait")
        handle.until(lambda h=handle: not h.get("jobs,pods,configmaps"), 90)  # type: ignore[misc]
        shutil.rmtree(world.data / "output" / handle.name, ignore_errors=True)
