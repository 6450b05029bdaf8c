"""The frozen plan: made once, then read from its ConfigMap for ever."""

from collections.abc import Mapping
from datetime import UTC
from enum import Enum

from pydantic import ValidationError

from evaljob import __version__, plan
from evaljob.jobs import plan_config_map
from evaljob.names import KIND, LABEL_MANAGED_BY, LABEL_NAME, MANAGED_BY, Reason, plan_name, summary_name
from evaljob.plan import Plan, Settings
from evaljob.spec import EvalJob, InvalidSpecError, Metadata
from evaljob.task import Task
from evaljob_operator.api import JOB_LABEL, AlreadyExistsError, Api, Json, NotFoundError, core_path


class PredecessorError(Exception):
    """An object of our name belongs to a deleted EvalJob and has not gone yet: try again soon."""


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
        PredecessorError: while a predecessor's plan is still there.
        InvalidSpecError: when somebody else's ConfigMap has the name.
        UnreadablePlanError: when another version made it.
    """
    meta = evaljob.metadata
    found = await get(api, core_path(meta.namespace, "configmaps", plan_name(meta.name)))
    if found is None:
        return None
    _require_ours(found, meta)
    try:
        return plan.from_data(found["data"])
    except (KeyError, ValidationError) as error:
        raise UnreadablePlanError(
            f"ConfigMap {found['metadata']['name']} is no plan that evaljob {__version__} can read; "
            "go back to the version that made it, or create the EvalJob again"
        ) from error


async def freeze(api: Api, evaljob: EvalJob, catalogue: Mapping[str, Task], settings: Settings) -> Plan:
    """The frozen plan of an EvalJob; made if there is none yet.

    Raises:
        PredecessorError: while a predecessor's plan, summary or pods are still there.
        InvalidSpecError: for a spec that can never run, or a name that somebody else's ConfigMap has.
    """
    if (frozen := await read(api, evaljob)) is not None:
        return frozen
    meta = evaljob.metadata
    created = meta.creation_timestamp
    if created is None:
        raise InvalidSpecError("metadata.creationTimestamp: missing; the API server always sets it")
    made = plan.make_plan(evaljob, catalogue, settings, created.astimezone(UTC).date())
    await _require_no_old_pods(api, evaljob, made)
    summary = await get(api, core_path(meta.namespace, "configmaps", summary_name(meta.name)))
    if summary is not None:
        _require_ours(summary, meta)
    return await _create(api, evaljob, made)


async def _require_no_old_pods(api: Api, evaljob: EvalJob, made: Plan) -> None:
    """Wait for the predecessor's pods.

    A kubelet never looks again at an immutable ConfigMap that one of its pods uses. A pod of ours on that node
    would be given the predecessor's plan: seen as `references non-existent config key`, and with the same names
    of models and datasets it would have run the old plan without a word.
    """
    meta = evaljob.metadata
    query = {"labelSelector": f"{LABEL_NAME}={meta.name},{LABEL_MANAGED_BY}={MANAGED_BY}", "limit": "500"}
    pods = await api.request("GET", core_path(meta.namespace, "pods"), query=query)
    ours = {made.job_name(partition) for partition in made.partitions}
    if any(pod["metadata"]["labels"].get(JOB_LABEL) not in ours for pod in pods["items"]):
        raise PredecessorError("a pod")


async def _create(api: Api, evaljob: EvalJob, made: Plan) -> Plan:
    namespace = evaljob.metadata.namespace
    try:
        body = plan_config_map(evaljob, made)
        found = await api.request("POST", core_path(namespace, "configmaps"), body=body)
    except AlreadyExistsError:
        # Ours after a crash or beside a second operator: the one that is there counts.
        if (frozen := await read(api, evaljob)) is not None:
            return frozen
        raise PredecessorError(f"ConfigMap {plan_name(evaljob.metadata.name)}") from None
    return plan.from_data(found["data"])


def _require_ours(obj: Json, meta: Metadata) -> None:
    name = obj["metadata"]["name"]
    match ownership(obj, meta):
        case Ownership.GOING:
            raise PredecessorError(f"ConfigMap {name}")
        case Ownership.FOREIGN:
            raise InvalidSpecError(
                f"metadata.name: ConfigMap {name} exists and is not ours: "
                "rename the EvalJob, or remove the ConfigMap and create the EvalJob again",
                Reason.NAME_COLLISION,
            )
