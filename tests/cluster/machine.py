"""What a machine needs before it can hold a cluster: an engine, the node image, the tools."""

import os
from dataclasses import dataclass

from tests.cluster import docker, nodeimage, tools
from tests.cluster.docker import Docker
from tests.cluster.nodeimage import NodeImage
from tests.cluster.paths import Cache
from tests.cluster.shell import Timeline, run


@dataclass(frozen=True)
class Machine:
    """A machine that is ready for kind.

    Attributes:
        cache: Where everything is kept.
        docker: The client of the running engine.
        image: The node image and the base of our images, both in the engine.
        path: PATH with our docker client, kind, kubectl and helm first.
    """

    cache: Cache
    docker: Docker
    image: NodeImage
    path: str

    def kind(self, *args: str) -> str:
        """Run `kind ARGS`."""
        return run("kind", *args, env={**self.docker.env, "PATH": self.path})

    def kubectl(self, name: str, *args: str, stdin: str | None = None) -> str:
        """Run `kubectl ARGS` against the cluster `name`."""
        where = ("--kubeconfig", str(self.cache.kubeconfig(name)), "--context", f"kind-{name}")
        return run("kubectl", *where, *args, env={"PATH": self.path}, stdin=stdin)


def prepare(cache: Cache, timeline: Timeline) -> Machine:
    """Install, start, build or load whatever is missing. Seconds where nothing is; minutes the first time.

    Raises:
        ClusterError: If something is missing that only the user can provide, Go for example.
    """
    with cache.lock():
        with timeline.stage("docker engine"):
            client = docker.ensure(cache)
        image = nodeimage.choose(os.environ, client, cache)
        nodeimage.ensure(image, client, cache, timeline)
        with timeline.stage("tools"):
            docker.give_kind_a_client(client, image.base)
            folder = tools.ensure(image, cache, timeline)
    path = f"{client.folder}:{tools.path_with(folder, os.environ)}"
    return Machine(cache=cache, docker=client, image=image, path=path)
