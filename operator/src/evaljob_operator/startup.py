"""What must be there before anything is watched."""

import asyncio
import logging
from collections.abc import Iterable

from evaljob.names import GROUP, PLURAL
from evaljob_operator.api import (
    Api,
    ApiError,
    ForbiddenError,
    core_path,
    discovery_path,
    evaljob_path,
    job_path,
)

log = logging.getLogger(__name__)
CRD_PATIENCE = 60
"""Seconds to wait for the CRD, which Helm creates moments before the operator."""


class StartError(Exception):
    """The operator cannot do anything here; the message says what is missing."""


async def wait_for_crd(api: Api, seconds: float = CRD_PATIENCE, interval: float = 1.0) -> None:
    """Wait until EvalJobs are served. kopf looks once, when it starts, and would idle for ever without them.

    Raises:
        StartError: the CRD does not come, or the API server does not answer.
    """
    problem = ""
    for _ in range(max(int(seconds / interval), 1)):
        try:
            served = await api.request("GET", discovery_path())
            if any(resource["name"] == PLURAL for resource in served["resources"]):
                return
            problem = f"{discovery_path()} does not serve {PLURAL}"
        except ApiError as error:
            problem = str(error)
        await asyncio.sleep(interval)
    raise StartError(f"the CRD {PLURAL}.{GROUP} is not there: {problem}")


async def permitted(api: Api, namespaces: Iterable[str]) -> list[str]:
    """The namespaces in which EvalJobs, Jobs and pods may be listed.

    A namespace that is deleted takes our Role with it. One watch of EvalJobs that is refused would end kopf for all,
    and for the first list of Jobs or pods all would wait.

    Raises:
        StartError: there is none.
    """
    found = []
    for namespace in namespaces:
        try:
            for path in (evaljob_path(namespace, ""), job_path(namespace), core_path(namespace, "pods")):
                await api.request("GET", path, query={"limit": "1"})
            found.append(namespace)
        except ForbiddenError as error:
            log.warning(
                "namespace %s is not watched until a restart finds it permitted: %s", namespace, error
            )
        except ApiError as error:
            raise StartError(str(error)) from error
    if not found:
        raise StartError("in none of the namespaces of the settings EvalJobs, Jobs and pods may be listed")
    return found
