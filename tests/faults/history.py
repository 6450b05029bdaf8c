"""What happened to the objects of one EvalJob, in order, and the promises that must hold at each step.

The promises are the invariants of docs/reliability.md; each is a function from a history to what broke it.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

from evaljob import framing
from evaljob.framing import InvalidResultError
from evaljob.names import (
    ANNOTATION_RESULT,
    ANNOTATION_RETRY,
    LABEL_DATASET,
    LABEL_MANAGED_BY,
    LABEL_MODEL,
    LABEL_SHARD,
    MANAGED_BY,
)
from evaljob.result import PartitionResult
from tests.plane.client import Change, Client, Json

_WATCHED = {
    "EvalJob": ("/apis/evaljob.dev/v1alpha1/evaljobs", ""),
    "Job": ("/apis/batch/v1/jobs", f"{LABEL_MANAGED_BY}={MANAGED_BY}"),
    "ConfigMap": ("/api/v1/configmaps", f"{LABEL_MANAGED_BY}={MANAGED_BY}"),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One change of one object."""

    kind: str
    change: Change


@dataclass
class History:
    """The changes in one namespace, ordered by resourceVersion."""

    steps: list[Step] = field(default_factory=list)
    allowed_deletions: set[str] = field(default_factory=set)
    """Names of Jobs that the test itself deletes."""

    def ordered(self) -> list[Step]:
        """In the order in which etcd took them."""
        return sorted(self.steps, key=lambda s: s.change.version)

    def of(self, kind: str) -> Iterator[Change]:
        """The changes of one kind."""
        return (s.change for s in self.ordered() if s.kind == kind)

    def present(self, kind: str) -> list[Json]:
        """The objects of one kind that are there, as they were seen last."""
        last = {change.obj["metadata"]["uid"]: change for change in self.of(kind)}
        return [change.obj for change in last.values() if change.type != "DELETED"]


class Recorder:
    """Watches the kinds that matter, everywhere."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._histories: dict[str, History] = {}
        self._changed = asyncio.Event()

    def of(self, namespace: str) -> History:
        """What has happened in a namespace so far."""
        return self._histories.setdefault(namespace, History())

    async def run(self) -> None:
        """Record until cancelled."""
        async with asyncio.TaskGroup() as group:
            for kind, (path, selector) in _WATCHED.items():
                group.create_task(self._record(kind, path, {"labelSelector": selector} if selector else {}))

    async def _record(self, kind: str, path: str, query: dict[str, str]) -> None:
        async for change in self._client.follow(path, **query):
            self.of(change.namespace).steps.append(Step(kind, change))
            self._changed.set()

    async def until_changed(self) -> None:
        """Wait for the next change of anything."""
        self._changed.clear()
        await self._changed.wait()


def violations(history: History) -> list[str]:
    """Every promise that was broken, in words."""
    return [f"{name}: {what}" for name, check in CHECKS.items() for what in dict.fromkeys(check(history))]


def partition_key(job: Json) -> tuple[str, ...]:
    """The EvalJob's uid and the partition of a Job."""
    labels = job["metadata"]["labels"]
    return (owner_of(job), *(labels.get(k, "") for k in (LABEL_MODEL, LABEL_DATASET, LABEL_SHARD)))


def owner_of(obj: Json) -> str:
    """The uid of the controlling owner."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return next((str(o["uid"]) for o in owners if o.get("controller")), "")


def record_of(job: Json) -> str | None:
    """The text of a Job's result annotation."""
    text: str | None = (job["metadata"].get("annotations") or {}).get(ANNOTATION_RESULT)
    return text


def condition(obj: Json, kind: str) -> bool:
    """Whether a condition is true."""
    found = (obj.get("status") or {}).get("conditions") or ()
    return any(c["type"] == kind and c["status"] == "True" for c in found)


def is_result(text: str) -> bool:
    """Whether a record holds numbers, not a failure."""
    try:
        return isinstance(framing.decode(text), PartitionResult)
    except InvalidResultError:
        return False


def one_job_per_partition(history: History) -> Iterator[str]:
    """I1: at most one live Job per (EvalJob uid, partition)."""
    live: dict[str, tuple[str, ...]] = {}
    for change in history.of("Job"):
        uid = change.obj["metadata"]["uid"]
        if change.type == "DELETED":
            live.pop(uid, None)
        else:
            live[uid] = partition_key(change.obj)
        if len(set(live.values())) < len(live):
            yield f"two Jobs at once for {partition_key(change.obj)[1:]}"


def jobs_have_an_owner(history: History) -> Iterator[str]:
    """I2: a Job is made only while its EvalJob exists.

    Nobody knows a uid before the object is there, so only EvalJobs that are never seen, and those that were gone,
    count: an EvalJob that a watch which began late knows by a list carries the version of its last change.
    """
    known = {c.obj["metadata"]["uid"] for c in history.of("EvalJob")}
    gone: set[str] = set()
    for step in history.ordered():
        meta = step.change.obj["metadata"]
        if step.kind == "EvalJob" and step.change.type == "DELETED":
            gone.add(meta["uid"])
        elif step.kind == "Job" and step.change.type == "ADDED":
            owner = owner_of(step.change.obj)
            if owner and (owner in gone or owner not in known):
                yield f"Job {meta['name']} was made for an EvalJob that is not there"


def results_come_from_complete_jobs(history: History) -> Iterator[str]:
    """I3: a result is put on record only for a Job that the API server calls complete."""
    for change in history.of("Job"):
        text = record_of(change.obj)
        if text is not None and is_result(text) and not condition(change.obj, "Complete"):
            yield f"Job {change.obj['metadata']['name']} has a result and is not complete"


def records_never_change(history: History) -> Iterator[str]:
    """I4: a record stays as it was written, and so does a value that the summary has shown."""
    records: dict[str, str] = {}
    cells: dict[tuple[str, str], str] = {}
    for step in history.ordered():
        obj = step.change.obj
        if step.kind == "Job" and (uid := obj["metadata"]["uid"]) in records | {uid: ""}:
            text = record_of(obj)
            if uid in records and text != records[uid]:
                yield f"the record of Job {obj['metadata']['name']} has changed"
            if text is not None:
                records.setdefault(uid, text)
        elif step.kind == "ConfigMap" and obj["metadata"]["name"].endswith("-summary"):
            for cell in json.loads(obj["data"].get("summary.json") or '{"cells": []}')["cells"]:
                if cell["state"] != "Complete":
                    continue
                key = (owner_of(obj), f"{cell['model']}/{cell['dataset']}")
                value = json.dumps(cell, sort_keys=True)
                if cells.setdefault(key, value) != value:
                    yield f"the summary's cell {key[1]} has changed"


def complete_means_all(history: History) -> Iterator[str]:
    """I5: `Complete` means that every partition succeeded."""
    for change in history.of("EvalJob"):
        status = change.obj.get("status") or {}
        if condition(change.obj, "Complete"):
            counts = status["partitions"]
            if counts["succeeded"] != counts["total"]:
                yield f"Complete with {counts}"


def counts_add_up(history: History) -> Iterator[str]:
    """I6: the counts of each status sum to its total."""
    for change in history.of("EvalJob"):
        counts = (change.obj.get("status") or {}).get("partitions")
        if counts and sum(v for k, v in counts.items() if k != "total") != counts["total"]:
            yield f"status counts {counts}"


def no_job_goes_unrecorded(history: History) -> Iterator[str]:
    """I7: no Job goes before its outcome is on record, unless its EvalJob goes or the test deletes it."""
    gone = {c.obj["metadata"]["uid"] for c in history.of("EvalJob") if c.type == "DELETED"}
    for change in history.of("Job"):
        name = change.obj["metadata"]["name"]
        if change.type != "DELETED" or owner_of(change.obj) in gone or name in history.allowed_deletions:
            continue
        if record_of(change.obj) is None:
            yield f"Job {name} went without a record"


def finished_is_for_ever(history: History) -> Iterator[str]:
    """I9: an EvalJob that is Finished stays as it is, until a retry is asked for and begun."""
    ends: dict[str, str] = {}
    begun: dict[str, str] = {}
    for change in history.of("EvalJob"):
        uid = change.obj["metadata"]["uid"]
        retried = (change.obj.get("status") or {}).get("retried") or ""
        asked = (change.obj["metadata"].get("annotations") or {}).get(ANNOTATION_RETRY)
        if retried == asked and retried != begun.get(uid, ""):
            ends.pop(uid, None)
        begun[uid] = retried
        status = json.dumps(change.obj.get("status"), sort_keys=True)
        if uid in ends and ends[uid] != status:
            yield "a finished EvalJob's status has changed"
        if condition(change.obj, "Finished"):
            ends.setdefault(uid, status)


def generation_never_goes_back(history: History) -> Iterator[str]:
    """I10: observedGeneration never goes back."""
    seen: dict[str, int] = {}
    for change in history.of("EvalJob"):
        uid = change.obj["metadata"]["uid"]
        observed = (change.obj.get("status") or {}).get("observedGeneration", seen.get(uid, 0))
        if observed < seen.get(uid, 0):
            yield f"observedGeneration fell from {seen[uid]} to {observed}"
        seen[uid] = observed


CHECKS = {
    "I1": one_job_per_partition,
    "I2": jobs_have_an_owner,
    "I3": results_come_from_complete_jobs,
    "I4": records_never_change,
    "I5": complete_means_all,
    "I6": counts_add_up,
    "I7": no_job_goes_unrecorded,
    "I9": finished_is_for_ever,
    "I10": generation_never_goes_back,
}
