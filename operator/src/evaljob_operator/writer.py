"""What a decision changes in the cluster. Each write is idempotent, and conditional where it replaces."""

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Iterable, Mapping
from datetime import datetime

from evaljob import jobs
from evaljob.decide import Deletion, Record, Suspension
from evaljob.names import ANNOTATION_END, API_VERSION, KIND, LABEL_NAME, MANAGED_BY, Reason, summary_name
from evaljob.packing import Packed
from evaljob.plan import Partition, Plan
from evaljob.podfields import gpus
from evaljob.spec import EvalJob
from evaljob.standing import Event
from evaljob.status import Status
from evaljob_operator.api import (
    JSON_PATCH,
    MERGE_PATCH,
    AlreadyExistsError,
    Api,
    ApiError,
    ConflictError,
    InvalidError,
    Json,
    NameTakenError,
    NotFoundError,
    core_path,
    evaljob_path,
    job_path,
    version_number,
)
from evaljob_operator.freeze import Ownership, PredecessorError, get, ownership
from evaljob_operator.informer import OURS, Informers
from evaljob_operator.metrics import Metrics
from evaljob_operator.refusals import FOR_GOOD, refusal

log = logging.getLogger(__name__)
_WITH_PODS = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
"""Without it the API server orphans a Job's pods, GPUs included."""
MESSAGE_MAX = 1024
"""Characters of an Event's message, as Kubernetes has it."""
CREATING = 2.0
"""Seconds in which a pass makes Jobs: outcomes are put on record in between, however slow the API server is."""
AT_ONCE = 12
"""Writes of one EvalJob at the same time: of the 20 requests that there may be, a giant leaves eight to others."""


class Writer:
    """Applies decisions about one EvalJob's objects in one namespace."""

    def __init__(self, api: Api, namespace: str, informers: Informers, metrics: Metrics) -> None:
        self._metrics = metrics
        self._api = api
        self._namespace = namespace
        self._informers = informers

    async def create(
        self, evaljob: EvalJob, plan: Plan, partitions: Iterable[Partition]
    ) -> dict[Partition, ApiError | None]:
        """Make Jobs for some seconds. One that already exists with our uid is ours: a crash lost the answer.

        Of a model of which one has to wait no other is tried: they differ in name and data only.

        Returns:
            Of those that were tried, why the API server does not take the Job as it is, or not now; None if it did.

        Raises:
            ApiError: the first one, when all that had begun by then have ended.
        """
        answers: dict[Partition, ApiError | None] = {}
        waiting: set[str] = set()

        async def make(partition: Partition) -> None:
            if partition.model in waiting:
                return
            try:
                await self._create(evaljob, jobs.job(evaljob, plan, partition))
                answers[partition] = None
                log.debug("Job is there", extra={"partition": str(partition)})
            except ApiError as error:
                reason = refusal(error)
                if reason in (None, Reason.PERMISSION_DENIED):
                    raise
                answers[partition] = error
                if reason not in FOR_GOOD:
                    waiting.add(partition.model)

        await several((make(p) for p in partitions), CREATING)
        return answers

    async def _create(self, evaljob: EvalJob, job: Json) -> None:
        try:
            found: Json | None = await self._api.request("POST", job_path(self._namespace), body=job)
            self._metrics.created()
        except AlreadyExistsError as error:
            name = job["metadata"]["name"]
            found = await get(self._api, job_path(self._namespace, name))
            # Without our labels no watch would ever show it.
            if found is not None and ownership(found, evaljob.metadata) is Ownership.FOREIGN:
                raise NameTakenError(409, error.reason, f"Job {name} belongs to somebody else") from error
        if found is not None:
            self._informers.jobs.absorb(found)

    async def record(self, plan: Plan, records: Iterable[Record]) -> None:
        """Write outcomes onto their Jobs."""
        await several(self._record(plan, r) for r in records)

    async def _record(self, plan: Plan, record: Record) -> None:
        patch = jobs.record_patch(record.uid, record.text, stop_at=record.stop_at)
        if not await self._patch(record.job, patch):
            return
        self._metrics.recorded(record.outcome)
        if record.seconds:
            used = gpus(plan.model(record.partition.model).runner.resources.limits)
            self._metrics.computed(used, record.seconds)
        log.info("%s", record.outcome, extra={"partition": str(record.partition)})

    async def suspend(self, suspensions: Iterable[Suspension]) -> None:
        """Stop and continue Jobs."""
        await several(self._suspend(s) for s in suspensions)

    async def _suspend(self, change: Suspension) -> None:
        await self._patch(change.job, {"metadata": {"uid": change.uid}, "spec": {"suspend": change.suspend}})

    async def _patch(self, job: str, patch: Json) -> bool:
        """Whether it was still that Job."""
        path = job_path(self._namespace, job)
        try:
            answer = await self._api.request("PATCH", path, body=patch, content_type=MERGE_PATCH)
        except (NotFoundError, ConflictError, InvalidError) as error:
            # Gone, changed, or made again under the same name (the uid is "immutable"): the next pass sees it.
            if isinstance(error, InvalidError) and "metadata.uid" not in error.message:
                raise
            log.info("%s: %s", path, error)
            return False
        self._informers.jobs.absorb(answer)
        return True

    async def delete(self, deletions: Iterable[Deletion]) -> None:
        """Delete Jobs, unless they are gone or others by now."""
        await several(self._delete(d) for d in deletions)

    async def _delete(self, deletion: Deletion) -> None:
        path = job_path(self._namespace, deletion.job)
        guard = {"uid": deletion.uid}
        if deletion.version:
            guard["resourceVersion"] = deletion.version
        body = {**_WITH_PODS, "preconditions": guard}
        answer: Json = {}
        try:
            answer = await self._api.request("DELETE", path, body=body)
        except NotFoundError as error:
            log.info("%s: %s", path, error)
        except ConflictError as error:
            # The next pass sees what has the name now.
            log.info("%s: %s", path, error)
            return
        if answer.get("kind") == "Job":
            # Somebody's finalizer holds it.
            self._informers.jobs.absorb(answer)
        else:
            self._informers.jobs.vanished(deletion.job, deletion.uid)

    async def clean_up(self, evaljob: EvalJob) -> None:
        """Delete all Jobs of a finished EvalJob: at once, unless somebody else's has the same labels."""
        meta = evaljob.metadata
        labelled = self._informers.jobs.of(meta.name).values()
        own = [Deletion(job.name, job.uid) for job in labelled if job.owner == meta.uid]
        if len(own) < len(labelled):
            await self.delete(own)
            return
        query = {"labelSelector": f"{OURS['labelSelector']},{LABEL_NAME}={meta.name}"}
        await self._api.request("DELETE", job_path(self._namespace), query=query, body=_WITH_PODS)

    async def expire(self, evaljob: EvalJob) -> None:
        """Delete the EvalJob, if it is still as it was read; its owner references take the rest along."""
        meta = evaljob.metadata
        guard = {"uid": meta.uid, "resourceVersion": meta.resource_version}
        try:
            await self._api.request(
                "DELETE",
                evaljob_path(self._namespace, meta.name),
                body={**_WITH_PODS, "preconditions": guard},
            )
        except (NotFoundError, ConflictError) as error:
            log.info("%s/%s: %s", self._namespace, meta.name, error)

    async def summary(self, evaljob: EvalJob, packed: Packed, *, over: bool) -> None:
        """Write the summary's ConfigMap, unless it says the same already, or tells an end that came after ours.

        Args:
            evaljob: as it was when the summary was decided on.
            packed: the summary.
            over: whether it is the last one.

        Raises:
            PredecessorError: while a predecessor's summary is still there.
            NameTakenError: a ConfigMap of somebody else has its name.
            ConflictError: it has been changed in between.
        """
        wanted = jobs.summary_config_map(evaljob, packed)
        if over:
            wanted["metadata"]["annotations"] = {ANNOTATION_END: evaljob.metadata.resource_version}
        path = core_path(self._namespace, "configmaps", summary_name(evaljob.metadata.name))
        found = await get(self._api, path)
        if found is None:
            await self._api.request("POST", core_path(self._namespace, "configmaps"), body=wanted)
            return
        match ownership(found, evaljob.metadata):
            case Ownership.GOING:
                raise PredecessorError(path)
            case Ownership.FOREIGN:
                name = found["metadata"]["name"]
                raise NameTakenError(
                    409,
                    "AlreadyExists",
                    f"ConfigMap {name} is not ours: the summary is written when it is gone",
                )
            case Ownership.OURS:
                # A second operator, or a request that comes late, must not replace the last summary by an older one.
                if not _outdated(evaljob, found, over=over) and (patch := _summary_patch(found, wanted)):
                    await self._api.request("PATCH", path, body=patch, content_type=MERGE_PATCH)

    async def status(self, evaljob: EvalJob, status: Status) -> Json:
        """Write the status; the EvalJob as it is then.

        Raises:
            ConflictError: the EvalJob of that name has another uid, or has changed since it was read.
        """
        # The status of a custom resource ignores a uid in metadata: only tests keep a late write of a deleted
        # EvalJob away from the next one of its name, which would take itself for finished, and the status of one
        # operator from that of another, which has finished the EvalJob already.
        meta = evaljob.metadata
        body = [
            {"op": "test", "path": "/metadata/uid", "value": meta.uid},
            {"op": "test", "path": "/metadata/resourceVersion", "value": meta.resource_version},
            {"op": "add", "path": "/status", "value": json.loads(status.to_json())},
        ]
        path = evaljob_path(self._namespace, meta.name) + "/status"
        try:
            return await self._api.request("PATCH", path, body=body, content_type=JSON_PATCH)
        except InvalidError as error:
            # So a test that fails is answered. It says nothing about what was to be written.
            raise ConflictError(409, "Conflict", f"{path} has changed: {error.message}") from error

    async def events(self, evaljob: EvalJob, events: Iterable[Event], now: datetime) -> None:
        """Tell of changed conditions. Events are news, not state: one that cannot be posted is dropped."""
        for event in events:
            log.info("%s: %s", event.reason, event.message[:MESSAGE_MAX])
            body = event_object(evaljob, event, now)
            try:
                await self._api.request("POST", core_path(self._namespace, "events"), body=body)
            except ApiError as error:
                log.warning("%s/%s: event: %s", self._namespace, evaljob.metadata.name, error)


def _outdated(evaljob: EvalJob, found: Json, *, over: bool) -> bool:
    """Whether a summary tells an end that was decided on after what we have seen, or by the same, in mid-run."""
    ended = version_number((found["metadata"].get("annotations") or {}).get(ANNOTATION_END, ""))
    version = version_number(evaljob.metadata.resource_version)
    return ended > version or (ended == version > 0 and not over)


def _summary_patch(found: Json, wanted: Json) -> Json:
    """What makes one of the other, if it is still as it was found; empty if they say the same."""
    fields = ("data", "binaryData")
    changes: Json = {f: c for f in fields if (c := _change(found.get(f) or {}, wanted.get(f) or {}))}
    meta: Json = {"resourceVersion": found["metadata"]["resourceVersion"]}
    before, after = ((o["metadata"].get("annotations") or {}).get(ANNOTATION_END) for o in (found, wanted))
    if before != after:
        meta["annotations"] = {ANNOTATION_END: after}
    return {"metadata": meta, **changes} if changes or before != after else {}


def _change(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str | None]:
    """The merge patch from one to the other: what is no longer there has to be said."""
    changed: dict[str, str | None] = {key: None for key in before if key not in after}
    return changed | {key: text for key, text in after.items() if before.get(key) != text}


def event_object(evaljob: EvalJob, event: Event, now: datetime) -> Json:
    """A v1 Event about an EvalJob."""
    meta = evaljob.metadata
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{meta.name}.", "namespace": meta.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": meta.name,
            "namespace": meta.namespace,
            "uid": meta.uid,
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:MESSAGE_MAX],
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
        "source": {"component": MANAGED_BY},
    }


async def several(writes: Iterable[Awaitable[None]], seconds: float = math.inf) -> None:
    """Run the writes, `AT_ONCE` at a time; none begins later than that, or after an error, which is raised then."""
    waiting, clock = iter(writes), asyncio.get_running_loop().time
    ends = clock() + seconds

    async def work() -> None:
        nonlocal ends
        while clock() < ends and (write := next(waiting, None)) is not None:
            try:
                await write
            except ApiError:
                ends = clock()
                raise

    for outcome in await asyncio.gather(*(work() for _ in range(AT_ONCE)), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
