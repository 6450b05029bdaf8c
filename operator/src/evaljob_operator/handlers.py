"""kopf: process life, log-in, the health endpoint and the watch of EvalJobs. The only importer of kopf.

One `on.event` handler and nothing else: kopf then writes neither annotations nor finalizers, and a dead
operator never blocks the deletion of anything.
"""

import asyncio
import logging
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any

import kopf

from evaljob.names import GROUP, PLURAL, VERSION
from evaljob_operator import vigil
from evaljob_operator.api import ApiError
from evaljob_operator.backoff import Backoff
from evaljob_operator.cluster import Cluster, configuration
from evaljob_operator.informer import Informers, informers
from evaljob_operator.metrics import Metrics
from evaljob_operator.registry import Registry
from evaljob_operator.settings import Settings, catalogue
from evaljob_operator.startup import permitted, wait_for_crd
from evaljob_operator.world import Timing, World

log = logging.getLogger(__name__)


class Operator:
    """Everything that lives as long as the process."""

    def __init__(self, settings: Settings, cluster: Cluster, namespaces: list[str], metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._cluster = cluster
        self._registry = Registry()
        self._informers: Mapping[str, Informers] = {
            ns: informers(cluster, ns, self._registry.waker(ns), lambda: Backoff(random.random))
            for ns in namespaces
        }
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, settings: kopf.OperatorSettings, **_: Any) -> None:  # noqa: ANN401 - kopf's arguments
        """Wait for the first lists, so that the first decision sees what is there."""
        configure(settings)
        both = [i for watched in self._informers.values() for i in (watched.jobs, watched.pods)]
        self._tasks = [asyncio.create_task(informer.run()) for informer in both]
        await asyncio.gather(*(informer.ready.wait() for informer in both))
        self._registry.open(
            World(
                api=self._cluster,
                informers=self._informers,
                catalogue=catalogue(),
                settings=self._settings.plan,
                now=self._cluster.now,
                monotonic=time.monotonic,
                random=random.random,
                metrics=self._metrics,
                kueue=self._settings.kueue,
            )
        )
        self._metrics.watch(self._registry.counts, self._registry.behind, self._silences)
        if self._settings.metrics_port:
            self._metrics.serve(self._settings.metrics_port)
        self._tasks.append(asyncio.create_task(self._look_again()))
        self._tasks.append(asyncio.create_task(vigil.keep(self._silences, lambda: self._cluster.answered_at)))
        log.info("ready; namespaces: %s", ", ".join(self._informers))

    async def _look_again(self) -> None:
        """Make good, once in a while, for what kopf's watch may have lost."""
        while True:
            await asyncio.sleep(Timing().resync)
            for namespace in self._informers:
                try:
                    await self._registry.look_again(self._cluster, namespace)
                except ApiError as error:
                    log.warning("namespace %s: %s", namespace, error)

    def _silences(self) -> Iterator[tuple[str, str, float]]:
        now = time.monotonic()
        for namespace, watched in self._informers.items():
            yield namespace, "jobs", now - watched.jobs.heard_at
            yield namespace, "pods", now - watched.pods.heard_at

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
        for task in self._tasks:
            task.cancel()
        self._cluster.close()


def configure(settings: kopf.OperatorSettings) -> None:
    """Settings of kopf with as little as possible of its own."""
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.watching.server_timeout = 300
    settings.watching.connect_timeout = 30
    settings.watching.chunk_size = 500
    # kopf waits five minutes for an answer; its first requests would hold up everything for as long.
    settings.networking.request_timeout = 30
    settings.process.ultimate_exiting_timeout = 30


async def serve(settings: Settings) -> None:
    """Run until a signal comes or something fails that only a new start can repair.

    Raises:
        StartError: there is nothing to run for.
    """
    # Each watch holds a connection beside those of the requests.
    connections = settings.threads + 2 * len(settings.namespaces)
    metrics = Metrics()
    cluster = Cluster(configuration(connections), settings.threads, metrics.requested)
    await wait_for_crd(cluster)
    namespaces = await permitted(cluster, settings.namespaces)
    operator, registry = Operator(settings, cluster, namespaces, metrics), kopf.OperatorRegistry()
    kopf.on.startup(registry=registry)(operator.start)
    kopf.on.cleanup(registry=registry)(operator.stop)
    kopf.on.login(registry=registry)(kopf.login_via_client)
    kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(operator.take)
    await kopf.operator(registry=registry, namespaces=namespaces, liveness_endpoint=settings.health)
