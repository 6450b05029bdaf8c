"""What the API server says to an EvalJob's Jobs before the first of them is made."""

import asyncio
from collections.abc import Iterable

from evaljob import jobs
from evaljob.names import Reason
from evaljob.plan import Partition, Plan
from evaljob.spec import EvalJob, InvalidSpecError
from evaljob_operator.api import AlreadyExistsError, Api, ApiError, job_path
from evaljob_operator.refusals import refusal

WARNINGS_MAX = 5
WARNING_LENGTH = 300
NO_DRY_RUN = "does not support dry run"
"""An admission webhook with side effects refuses every dry run; it may well take the Job itself."""


async def rehearsed(api: Api, evaljob: EvalJob, plan: Plan) -> Plan:
    """The plan with the warnings that a dry run of one Job per model brought about.

    It shows errors of the pod template, admission policies and Job quota of all models at once, in the API server's
    words, and not hours later. GPU quota and Pod Security act on pods and are not part of it.

    Raises:
        InvalidSpecError: when a model's Jobs can never be created.
        ApiError: when the API server could not be asked.
    """
    first = {p.model: p for p in reversed(plan.partitions)}
    tried = (_rehearsed(api, evaljob, plan, first[m.name]) for m in plan.models if m.name in first)
    said = dict.fromkeys(warning for warnings in await asyncio.gather(*tried) for warning in warnings)
    shown = tuple(warning[:WARNING_LENGTH] for warning in list(said)[:WARNINGS_MAX])
    return plan.model_copy(update={"warnings": shown})


async def _rehearsed(api: Api, evaljob: EvalJob, plan: Plan, partition: Partition) -> Iterable[str]:
    try:
        answer = await api.dry_run(job_path(evaljob.metadata.namespace), jobs.job(evaljob, plan, partition))
    except AlreadyExistsError:
        return ()
    except ApiError as error:
        if NO_DRY_RUN in error.message:
            return ()
        reason = refusal(error)
        if reason is Reason.INVALID_SPEC:
            words = f"spec.models[{partition.model}]: the API server refuses its Job: {error.message}"
            raise InvalidSpecError(words) from error
        if reason in (None, Reason.PERMISSION_DENIED):
            raise
        return (f"{reason}: {error.message}",)
    ttl = answer.body["spec"].get("ttlSecondsAfterFinished")
    if ttl is None:
        return answer.warnings
    lost = f"a policy of the cluster deletes Jobs {ttl} s after their end, and results with them: exempt ours"
    return (*answer.warnings, lost)
