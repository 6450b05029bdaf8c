"""The reconcilers of all EvalJobs, one task each."""

import asyncio
import logging
from collections.abc import Callable

from evaljob.policies import expires_at, is_over
from evaljob.status import PartitionCounts
from evaljob_operator.api import Api, Json, evaljob_path, version_of
from evaljob_operator.informer import pages
from evaljob_operator.reconciler import Reconciler
from evaljob_operator.statuses import known
from evaljob_operator.world import World

log = logging.getLogger(__name__)
Key = tuple[str, str]
BODIES = 50
"""EvalJobs per list: they are kept whole until they have been looked at."""


class Registry:
    """Starts, wakes and ends reconcilers: serial for one EvalJob, independent of all others."""

    def __init__(self) -> None:
        self._tasks: dict[Key, tuple[Reconciler, asyncio.Task[None]]] = {}
        self._world: World | None = None

    def open(self, world: World) -> None:
        """From now on EvalJobs are taken."""
        self._world = world

    def waker(self, namespace: str) -> Callable[[str], None]:
        """How the informers of a namespace wake an EvalJob by name."""

        def wake(name: str) -> None:
            if found := self._tasks.get((namespace, name)):
                found[0].wake()

        return wake

    def seen(self, body: Json) -> None:
        """An EvalJob exists, or has changed."""
        meta = body["metadata"]
        key = (meta["namespace"], meta["name"])
        found = self._tasks.get(key)
        if found and found[0].uid != meta["uid"]:
            if version_of(body) < found[0].version:
                # One that was deleted since, in the list that `look_again` is still reading.
                return
            self._end(key)
            found = None
        if "deletionTimestamp" in meta:
            self._end(key)
        elif found:
            found[0].update(body)
        elif self._concerns(body):
            self._start(key, body)

    async def look_again(self, api: Api, namespace: str) -> None:
        """Take all EvalJobs of a namespace as they are now.

        kopf lists once and then believes its watch for ever: an EvalJob of which the one event was lost on the
        way would never be run.

        Raises:
            ApiError: when they cannot be listed.
        """
        async for page in pages(api, evaljob_path(namespace, ""), {}, dict, BODIES):
            for body in page.items:
                self.seen(body)

    def gone(self, body: Json) -> None:
        """An EvalJob was deleted; its owner references do the rest."""
        meta = body["metadata"]
        key = (meta["namespace"], meta["name"])
        found = self._tasks.get(key)
        if found and found[0].uid == meta["uid"]:
            self._end(key)

    def counts(self) -> list[tuple[str, PartitionCounts]]:
        """Namespace and partitions of each EvalJob; may be called from any thread."""
        return [(key[0], found[0].counts) for key, found in list(self._tasks.items())]

    def behind(self) -> list[str]:
        """The namespace of each EvalJob with a change that no pass has looked at; may be called from any thread."""
        return [key[0] for key, found in list(self._tasks.items()) if found[0].behind]

    def close(self) -> None:
        """End all tasks."""
        for key in list(self._tasks):
            self._end(key)

    def _concerns(self, body: Json) -> bool:
        """Whether anything is left to do; most EvalJobs of a cluster have long been finished."""
        if self._world is None or body["metadata"]["namespace"] not in self._world.informers:
            return False
        evaljob = known(body)
        jobs = self._world.informers[evaljob.metadata.namespace].jobs.of(evaljob.metadata.name)
        return bool(jobs) or not is_over(evaljob) or expires_at(evaljob) is not None

    def _start(self, key: Key, body: Json) -> None:
        if self._world is None:
            return
        reconciler = Reconciler(self._world, body)
        task = asyncio.create_task(reconciler.run(), name=f"evaljob {reconciler}")
        self._tasks[key] = (reconciler, task)
        task.add_done_callback(lambda done: self._ended(key, done))

    def _ended(self, key: Key, task: asyncio.Task[None]) -> None:
        found = self._tasks.get(key)
        if found and found[1] is task:
            del self._tasks[key]

    def _end(self, key: Key) -> None:
        if found := self._tasks.pop(key, None):
            found[1].cancel()
