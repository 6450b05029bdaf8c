"""An API server in memory: create, read, merge-patch, list, watch, uids, versions; and faults on demand."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from evaljob_operator.api import (
    JSON,
    AlreadyExistsError,
    Answer,
    ApiError,
    ConflictError,
    InvalidError,
    Json,
    NotFoundError,
    UnreachableError,
)

CREATED = "2026-03-01T12:00:00Z"
COLLECTIONS = {"evaljobs", "jobs", "pods", "configmaps", "events", "workloads"}


class FakeApi:
    """Objects by path.

    Attributes:
        objects: What there is.
        writes: Every write that was asked for, as `VERB path`.
        reads: Every read.
        faults: (start of the request, error); each is raised once, in place of its request. An
            UnreachableError is raised after the request has been carried out: the answer was lost.
        bodies: Bodies of the writes.
        dry_runs: Names of the objects that were tried.
        mutation: What admission makes of an object that is tried, as a merge patch.
        warnings: What it says to it.
        late: While True, watches tell nothing: what they should have told comes when it is False again.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Json] = {}
        self.writes: list[str] = []
        self.bodies: list[Json | list[Json] | None] = []
        self.dry_runs: list[str] = []
        self.mutation: Json = {}
        self.warnings: tuple[str, ...] = ()
        self.late = False
        self.reads: list[str] = []
        self.faults: list[tuple[str, ApiError]] = []
        self._versions = itertools.count(100)
        self._watches: list[tuple[str, Mapping[str, str], asyncio.Queue[Json]]] = []

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Json | list[Json] | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,  # noqa: ARG002 - the body tells
    ) -> Json:
        await asyncio.sleep(0)
        line = f"{method} {path}"
        if method == "GET":
            self.reads.append(line)
        else:
            self.writes.append(line)
            self.bodies.append(body)
        fault = next((f for f in self.faults if line.startswith(f[0])), None)
        if fault:
            self.faults.remove(fault)
            if not isinstance(fault[1], UnreachableError):
                raise fault[1]
        answer = self._carry_out(method, path, body or {}, query or {})
        if fault:
            raise fault[1]
        return answer

    async def dry_run(self, path: str, body: Json) -> Answer:
        await asyncio.sleep(0)
        self.dry_runs.append(body["metadata"]["name"])
        line = f"DRY RUN {path}"
        if fault := next((f for f in self.faults if line.startswith(f[0])), None):
            self.faults.remove(fault)
            raise fault[1]
        return Answer(merged(body, self.mutation), self.warnings)

    async def each(self, path: str, query: Mapping[str, str], take: Callable[[Json], object]) -> Json:
        answer = await self.request("GET", path, query=query)
        for obj in answer["items"]:
            take(obj)
        return {"metadata": answer["metadata"]}

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[list[Json]]:
        queue: asyncio.Queue[Json] = asyncio.Queue()
        self._watches.append((path, query, queue))
        while True:
            event = await queue.get()
            while self.late:  # noqa: ASYNC110 - a test's own clock
                await asyncio.sleep(0.001)
            yield [event]

    def put(self, path: str, obj: Json) -> Json:
        """An object as somebody else makes or changes it."""
        kind = "MODIFIED" if path in self.objects else "ADDED"
        number = next(self._versions)
        # Made again under its name it is another one.
        meta = {"uid": f"uid-{number}", "creationTimestamp": CREATED, **obj["metadata"], "name": _name(path)}
        version = {
            "resourceVersion": str(number),
            "namespace": path.split("/namespaces/")[1].split("/", maxsplit=1)[0],
        }
        self.objects[path] = {**obj, "metadata": meta | version}
        self._tell(kind, path, self.objects[path])
        return self.objects[path]

    def remove(self, path: str) -> None:
        """An object as somebody else deletes it."""
        obj = self.objects.pop(path)
        version = {"resourceVersion": str(next(self._versions))}
        self._tell("DELETED", path, {**obj, "metadata": obj["metadata"] | version})

    def of(self, plural: str) -> dict[str, Json]:
        """All objects of a kind, by name."""
        return {_name(p): o for p, o in self.objects.items() if p.split("/")[-2] == plural}

    def _carry_out(self, method: str, path: str, body: Json | list[Json], query: Mapping[str, str]) -> Json:
        collection = path.rsplit("/", maxsplit=1)[-1] in COLLECTIONS
        if method == "GET" and collection:
            items = [o for p, o in self.objects.items() if _inside(p, path) and _selected(o, query)]
            return {"metadata": {"resourceVersion": str(next(self._versions))}, "items": items}
        if method == "DELETE" and not collection:
            return self._delete(path, body.get("preconditions", {}) if isinstance(body, dict) else {})
        if method == "DELETE":
            for found in [p for p, o in self.objects.items() if _inside(p, path) and _selected(o, query)]:
                self.remove(found)
            return {}
        if method == "POST" and isinstance(body, dict):
            meta = body["metadata"]
            target = f"{path}/{meta.get('name') or meta['generateName'] + str(next(self._versions))}"
            if target in self.objects:
                raise AlreadyExistsError(409, "AlreadyExists", target)
            return self.put(target, body)
        target = path.removesuffix("/status")
        if target not in self.objects:
            raise NotFoundError(404, "NotFound", target)
        if method == "GET":
            return self.objects[target]
        return self._patch(target, body) if isinstance(body, dict) else self._set_status(target, body)

    def _delete(self, path: str, guard: Json) -> Json:
        if path not in self.objects:
            raise NotFoundError(404, "NotFound", path)
        meta = self.objects[path]["metadata"]
        if any(meta[field] != value for field, value in guard.items()):
            raise ConflictError(409, "Conflict", "Precondition failed")
        self.remove(path)
        return {}

    def _patch(self, path: str, patch: Json) -> Json:
        before = self.objects[path]
        version = before["metadata"]["resourceVersion"]
        if patch["metadata"].get("resourceVersion", version) != version:
            raise ConflictError(409, "Conflict", "the object has been modified")
        if patch["metadata"].get("uid", before["metadata"]["uid"]) != before["metadata"]["uid"]:
            raise InvalidError(422, "Invalid", "metadata.uid: Invalid value: field is immutable")
        after = merged(before, patch)
        return before if after == before else self.put(path, after)

    def _set_status(self, path: str, operations: list[Json]) -> Json:
        """The one JSON Patch that is used: tests of uid and version, then a new status."""
        *tests, add = operations
        meta = self.objects[path]["metadata"]
        if any(test["value"] != meta[test["path"].rpartition("/")[2]] for test in tests):
            raise InvalidError(
                422, "Invalid", "the server rejected our request due to an error in our request"
            )
        return self.put(path, {**self.objects[path], "status": add["value"]})

    def _tell(self, kind: str, path: str, obj: Json) -> None:
        for collection, query, queue in self._watches:
            if _inside(path, collection) and _selected(obj, query):
                queue.put_nowait({"type": kind, "object": obj})


def merged(value: Any, patch: Any) -> Any:  # noqa: ANN401 - JSON
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    out = dict(value) if isinstance(value, dict) else {}
    for key, new in patch.items():
        if new is None:
            out.pop(key, None)
        else:
            out[key] = merged(out.get(key), new)
    return out


def _name(path: str) -> str:
    return path.rsplit("/", 1)[1]


def _inside(path: str, collection: str) -> bool:
    return path.rsplit("/", 1)[0] == collection


def _selected(obj: Json, query: Mapping[str, str]) -> bool:
    labels = obj["metadata"].get("labels") or {}
    fields = {
        "status.phase": (obj.get("status") or {}).get("phase", ""),
        "involvedObject.uid": (obj.get("involvedObject") or {}).get("uid", ""),
        "type": obj.get("type", ""),
    }
    for term in filter(None, query.get("labelSelector", "").split(",")):
        key, value = term.split("=")
        if labels.get(key) != value:
            return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        field, wanted = term.rsplit("=", 1)
        if (fields[field.removesuffix("!")] == wanted) == field.endswith("!"):
            return False
    return True
