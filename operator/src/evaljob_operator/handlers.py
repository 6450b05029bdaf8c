"""kopf: process life, log-in, the health endpoint and the watch of EvalJobs. The only importer of kopf.

One `on.event` handler and nothing else: kopf then writes neither annotations nor finalizers, and a dead
operator never blocks the deletion of anything.
"""

import asyncio
import logging
import random
import time
from typing import Any

import kopf

from evaljob.names import GROUP, PLURAL, VERSION
from evaljob_operator.api import ApiError, discovery_path
from evaljob_operator.backoff import Backoff
from evaljob_operator.cluster import Cluster, configuration
from evaljob_operator.informer import Informers, informers
from evaljob_operator.registry import Registry
from evaljob_operator.settings import Settings, catalogue
from evaljob_operator.world import World

log = logging.getLogger(__name__)
CRD_PATIENCE = 60
"""Seconds to wait for the CRD, which Helm creates moments before the operator."""


class Operator:
    """Everything that lives as long as the process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._registry = Registry()
        self._cluster: Cluster | None = None
        self._watches: list[asyncio.Task[None]] = []

    async def start(self, settings: kopf.OperatorSettings, **_: Any) -> None:  # noqa: ANN401 - kopf's arguments
        """Wait for the CRD and the first lists, so that the first decision sees what is there."""
        configure(settings)
        mine = self._settings
        connections = mine.threads + 2 * len(mine.namespaces)
        self._cluster = cluster = Cluster(configuration(connections), mine.threads)
        await _wait_for_crd(cluster)
        watched = {
            ns: informers(cluster, ns, self._registry.waker(ns), lambda: Backoff(random.random))
            for ns in mine.namespaces
        }
        both = [i for w in watched.values() for i in (w.jobs, w.pods)]
        self._watches = [asyncio.create_task(informer.run()) for informer in both]
        await asyncio.gather(*(informer.ready.wait() for informer in both))
        self._registry.open(self._world(cluster, watched))
        log.info("ready; namespaces: %s", ", ".join(mine.namespaces))

    def _world(self, cluster: Cluster, watched: dict[str, Informers]) -> World:
        return World(
            api=cluster,
            informers=watched,
            catalogue=catalogue(),
            settings=self._settings.plan,
            now=cluster.now,
            monotonic=time.monotonic,
            random=random.random,
        )

    async def take(self, event: kopf.RawEvent, **_: Any) -> None:  # noqa: ANN401 - kopf's arguments
        """An EvalJob was listed, added, changed or deleted."""
        body: Any = event["object"]
        if event["type"] == "DELETED":
            self._registry.gone(body)
        else:
            self._registry.seen(body)

    async def stop(self, **_: Any) -> None:  # noqa: ANN401 - kopf's arguments
        """End what `start` has started. Nothing needs saving: the cluster holds all state."""
        self._registry.close()
        for watch in self._watches:
            watch.cancel()
        if self._cluster is not None:
            self._cluster.close()


def configure(settings: kopf.OperatorSettings) -> None:
    """Settings of kopf with as little as possible of its own."""
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 30
    settings.watching.chunk_size = 500
    settings.process.ultimate_exiting_timeout = 30


async def _wait_for_crd(cluster: Cluster) -> None:
    """Kopf looks for its resources once, when it starts; without them it would idle for ever.

    Raises:
        kopf.PermanentError: the CRD does not come, or the API server does not answer.
    """
    deadline = time.monotonic() + CRD_PATIENCE
    while True:
        try:
            served = await cluster.request("GET", discovery_path())
            if any(r["name"] == PLURAL for r in served["resources"]):
                return
            problem = f"{discovery_path()} does not serve {PLURAL}"
        except ApiError as error:
            problem = str(error)
        if time.monotonic() > deadline:
            raise kopf.PermanentError(f"the CRD {PLURAL}.{GROUP} is not there: {problem}")
        await asyncio.sleep(1)


def run(settings: Settings) -> None:
    """Run until a signal comes or something fails that only a new start can repair."""
    operator, registry = Operator(settings), kopf.OperatorRegistry()
    kopf.on.startup(registry=registry)(operator.start)
    kopf.on.cleanup(registry=registry)(operator.stop)
    kopf.on.login(registry=registry)(kopf.login_via_client)
    kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(operator.take)
    asyncio.run(
        kopf.operator(registry=registry, namespaces=settings.namespaces, liveness_endpoint=settings.health)
    )
