"""What the rest of the operator needs of a Kubernetes API: one protocol, its errors, and paths."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from evaljob.names import GROUP, PLURAL, VERSION

Json = dict[str, Any]

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
JOB_LABEL = "batch.kubernetes.io/job-name"
"""The label by which Kubernetes names a pod's Job."""


class ApiError(Exception):
    """The API server refused, or could not be asked (`status` 0)."""

    def __init__(self, status: int, reason: str, message: str, cause: str = "") -> None:
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status = status
        self.reason = reason
        self.message = message
        self.cause = cause
        """The first cause in the Status' details, for example `NamespaceTerminating`."""


class UnreachableError(ApiError):
    """No answer: connection refused, broken or silent. A write may have happened all the same."""

    def __init__(self, message: str) -> None:
        super().__init__(0, "Unreachable", message)


class NotFoundError(ApiError):
    """404."""


class ConflictError(ApiError):
    """409: the object has changed, or is not the one that a precondition names."""


class AlreadyExistsError(ApiError):
    """409 of a create."""


class NameTakenError(AlreadyExistsError):
    """What has the name is somebody else's."""


class GoneError(ApiError):
    """410: the version to watch from, or the list's continue token, has expired."""


class InvalidError(ApiError):
    """422: the API server's validation refused the object."""


class ForbiddenError(ApiError):
    """403: no right, a quota, an admission policy, or a namespace that is going."""

    @property
    def namespace_going(self) -> bool:
        """Whether nothing can be created because the namespace is being deleted."""
        return self.cause == "NamespaceTerminating"


class TooManyRequestsError(ApiError):
    """429: come back after `retry_after` seconds, a minute at most."""

    retry_after: float = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A decoded answer, and the warnings that came with it."""

    body: Json
    warnings: tuple[str, ...] = ()


class Api(Protocol):
    """A Kubernetes API server."""

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Json | list[Json] | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
    ) -> Json:
        """One request and its decoded answer.

        Raises:
            ApiError: for every answer but 2xx, and for none.
        """
        ...

    async def dry_run(self, path: str, body: Json) -> Answer:
        """A create that goes through all of admission and validation, and is not stored.

        Raises:
            ApiError: as the create would.
        """
        ...

    async def each(self, path: str, query: Mapping[str, str], take: Callable[[Json], object]) -> Json:
        """A list; `take` is given its objects one after the other, in any thread, and the answer has the rest.

        Raises:
            ApiError: as of any request; some of the objects may have been given by then.
        """
        ...

    def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[list[Json]]:
        """Watch events in batches, until the server ends the stream or falls silent.

        Raises:
            ApiError: when the stream cannot be opened or breaks.
        """
        ...


def version_of(obj: Mapping[str, Any]) -> int:
    """The resourceVersion of an object as a number; see `version_number`."""
    return version_number(str(obj["metadata"].get("resourceVersion") or ""))


def version_number(version: str) -> int:
    """A resourceVersion, which grows with every write; 0 where a server uses something else."""
    return int(version) if version.isdecimal() else 0


def _namespaced(prefix: str, namespace: str, plural: str, name: str) -> str:
    return f"{prefix}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


def discovery_path() -> str:
    """Which resources our API group serves."""
    return f"/apis/{GROUP}/{VERSION}"


def group_path(group: str) -> str:
    """Which versions of an API group are served."""
    return f"/apis/{group}"


def group_version_path(group: str, version: str, namespace: str, plural: str) -> str:
    """All objects of somebody else's kind in a namespace."""
    return _namespaced(f"{group_path(group)}/{version}", namespace, plural, "")


def evaljob_path(namespace: str, name: str) -> str:
    """One EvalJob."""
    return _namespaced(discovery_path(), namespace, PLURAL, name)


def job_path(namespace: str, name: str = "") -> str:
    """One Job, or all of a namespace."""
    return _namespaced("/apis/batch/v1", namespace, "jobs", name)


def core_path(namespace: str, plural: str, name: str = "") -> str:
    """One object of the core API (`pods`, `configmaps`, `events`), or all of a namespace."""
    return _namespaced("/api/v1", namespace, plural, name)
