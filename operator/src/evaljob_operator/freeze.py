"""The frozen plan: made once, then read from its ConfigMap for ever."""

from collections.abc import Callable, Mapping
from datetime import UTC
from enum import Enum
from typing import TypeVar

from pydantic import ValidationError

from evaljob import __version__
from evaljob.jobs import plan_config_map
from evaljob.names import KIND, Reason, plan_name, summary_name
from evaljob.plan import RUN_KEY, Plan, RunPlan, from_data
from evaljob.planning import Settings, make_plan
from evaljob.spec import EvalJob, InvalidSpecError, Metadata
from evaljob.task import Task
from evaljob_operator.api import AlreadyExistsError, Api, Json, NotFoundError, core_path

T = TypeVar("T")


class PredecessorError(Exception):
    """An object whose name we need is being deleted, or belongs to a deleted EvalJob: try again soon."""


class UnreadablePlanError(Exception):
    """A plan of ours that this version of the program does not understand."""


class Ownership(Enum):
    """Whose object it is that already has the name we want."""

    OURS = "ours"
    GOING = "going"
    FOREIGN = "foreign"


def ownership(obj: Json, meta: Metadata) -> Ownership:
    """Whose `obj` is, seen from the EvalJob `meta`.

    An EvalJob of the same name and another uid is our predecessor: names are unique, so it is gone, and the
    garbage collector is on its way.
    """
    found = obj["metadata"]
    owner: Json = next((o for o in found.get("ownerReferences") or () if o.get("controller")), {})
    if owner.get("uid") == meta.uid and "deletionTimestamp" not in found:
        return Ownership.OURS
    predecessor = owner.get("kind") == KIND and owner.get("name") == meta.name
    return Ownership.GOING if predecessor or "deletionTimestamp" in found else Ownership.FOREIGN


async def get(api: Api, path: str) -> Json | None:
    """An object, or None when it does not exist."""
    try:
        return await api.request("GET", path)
    except NotFoundError:
        return None


async def read(api: Api, evaljob: EvalJob) -> Plan | None:
    """The plan that was frozen for this EvalJob, or None.

    Raises:
        PredecessorError: while it is on its way out.
        InvalidSpecError: when somebody else's ConfigMap has the name.
        UnreadablePlanError: when another version made it.
    """
    return await _read(api, evaljob, from_data)


async def read_run(api: Api, evaljob: EvalJob) -> RunPlan | None:
    """What the plan says of all partitions, without looking at any: at 10,000 of them that takes a second.

    Raises:
        PredecessorError, InvalidSpecError, UnreadablePlanError: as `read`.
    """
    return await _read(api, evaljob, lambda data: RunPlan.model_validate_json(data[RUN_KEY]))


async def _read(api: Api, evaljob: EvalJob, parse: Callable[[Mapping[str, str]], T]) -> T | None:
    meta = evaljob.metadata
    found = await get(api, core_path(meta.namespace, "configmaps", plan_name(meta.name, meta.uid)))
    if found is None:
        return None
    _require_ours(found, meta)
    try:
        return parse(found["data"])
    except (KeyError, ValidationError) as error:
        raise UnreadablePlanError(
            f"ConfigMap {found['metadata']['name']} is no plan that evaljob {__version__} can read; "
            "go back to the version that made it, or create the EvalJob again"
        ) from error


def make(evaljob: EvalJob, catalogue: Mapping[str, Task], settings: Settings) -> Plan:
    """The plan of a new EvalJob, not frozen yet.

    Raises:
        InvalidSpecError: for a spec that can never run.
    """
    created = evaljob.metadata.creation_timestamp
    if created is None:
        raise InvalidSpecError("metadata.creationTimestamp: missing; the API server always sets it")
    return make_plan(evaljob, catalogue, settings, created.astimezone(UTC).date())


async def freeze(api: Api, evaljob: EvalJob, made: Plan) -> Plan:
    """Write a plan that is not there yet; the one that counts.

    Raises:
        PredecessorError: while a ConfigMap of its name is on its way out.
        InvalidSpecError: when somebody else's ConfigMap has the name of the plan or of the summary.
    """
    meta = evaljob.metadata
    summary = await get(api, core_path(meta.namespace, "configmaps", summary_name(meta.name)))
    # A predecessor's summary will be gone long before there is one of ours to write.
    if summary is not None and ownership(summary, meta) is Ownership.FOREIGN:
        raise _collision(summary)
    try:
        body = plan_config_map(evaljob, made)
        found = await api.request("POST", core_path(meta.namespace, "configmaps"), body=body)
    except AlreadyExistsError:
        # Ours after a crash or beside a second operator: the one that is there counts.
        if (frozen := await read(api, evaljob)) is not None:
            return frozen
        raise PredecessorError(f"ConfigMap {plan_name(meta.name, meta.uid)}") from None
    return from_data(found["data"])


def _require_ours(obj: Json, meta: Metadata) -> None:
    match ownership(obj, meta):
        case Ownership.GOING:
            raise PredecessorError(f"ConfigMap {obj['metadata']['name']}")
        case Ownership.FOREIGN:
            raise _collision(obj)


def _collision(obj: Json) -> InvalidSpecError:
    return InvalidSpecError(
        f"metadata.name: ConfigMap {obj['metadata']['name']} exists and is not ours: "
        "rename the EvalJob, or remove the ConfigMap and create the EvalJob again",
        Reason.NAME_COLLISION,
    )
