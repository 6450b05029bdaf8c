"""One cluster and one installation for all end-to-end tests; every EvalJob is deleted after its test."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.paths import Cache
from tests.cluster.shell import ClusterError
from tests.clusters import stays
from tests.e2e import named, own
from tests.e2e.evaljobs import Handle
from tests.e2e.own import OwnWorld
from tests.e2e.world import NAMESPACE, World


@pytest.fixture(scope="session")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """The cluster that `--context` names, or else the tests' own."""
    options = request.config.option
    if not options.context:
        yield request.getfixturevalue("own_world")
        return
    try:
        wanted = named.from_options(options.context, options.images, options.data_claim)
        found = named.reach(wanted, Cache.from_env(os.environ), os.environ)
    except ClusterError as error:
        pytest.exit(str(error), returncode=2)
    try:
        found.set_up()
        yield found
    finally:
        found.remove()


@pytest.fixture(scope="session")
def own_world(request: pytest.FixtureRequest) -> Iterator[OwnWorld]:
    """The tests' own cluster, for those that need hands on nodes or change what belongs to the whole cluster."""
    if request.config.option.context:
        pytest.skip("takes hold of nodes, or of the whole cluster: only on the tests' own")
    machine, cluster, kubectl = (request.getfixturevalue(name) for name in ("machine", "cluster", "kubectl"))
    made = own.make(machine, cluster, kubectl)
    yield made
    if stays(cluster):
        made.remove()


Submit = Callable[[dict[str, Any]], Handle]


@pytest.fixture
def submit(world: World) -> Iterator[Submit]:
    """Apply an EvalJob; it is deleted when the test ends, and nothing of it may stay."""
    handles: list[Handle] = []

    def apply(manifest: dict[str, Any]) -> Handle:
        world.apply(manifest)
        handle = Handle(world, manifest["metadata"]["name"])
        handles.append(handle)
        return handle

    yield apply
    for handle in handles:
        world.kubectl.run("delete", "evaljob", handle.name, "-n", NAMESPACE, "--ignore-not-found", "--wait")
        handle.until(lambda h=handle: not h.get("jobs,pods,configmaps"), 90)  # type: ignore[misc]
        world.forget(handle.name)


def needs_image(world: World, name: str) -> str:
    """An image that a named cluster may lack."""
    if name not in world.images:
        pytest.skip(f"--images names no {name}")
    return world.images[name]
