"""A plan on this machine: a fresh process per partition, so many at once, tried again as a Job would."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from evaljob import result
from evaljob.backends import Device
from evaljob.names import Reason
from evaljob.observe import Outcome
from evaljob.plan import Partition, Plan
from evaljob.podfields import wants_gpu
from evaljob.spec import Model
from evaljob_cli.attempt import Progress, run_attempt
from evaljob_cli.launch import Launch, threads
from evaljob_cli.verdict import Ended

BACKOFF_MAX = 30.0
"""Longest pause before a retry, in seconds."""


@dataclass(frozen=True)
class Started:
    """An attempt begins; 0 is the first."""

    partition: Partition
    retry: int


@dataclass(frozen=True)
class Progressed:
    """A runner says how far it is."""

    partition: Partition
    progress: Progress


@dataclass(frozen=True)
class Retrying:
    """An attempt failed and another one follows after `seconds`."""

    partition: Partition
    failure: result.Failure
    seconds: float


@dataclass(frozen=True)
class Finished:
    """A partition has come to its end, for good."""

    partition: Partition
    outcome: Outcome


Event = Started | Progressed | Retrying | Finished


def default_parallelism(plan: Plan, wanted: int, cpus: int) -> int:
    """How many partitions at once fit this machine: as a node would schedule their CPUs, one on a GPU.

    On a cluster the scheduler keeps pods apart; here nothing does, and two models on one GPU end each other.
    """
    if any(_wants_gpu(m) for m in plan.models):
        return 1
    return max(1, min(wanted, cpus // max(threads(m) for m in plan.models)))


def _wants_gpu(model: Model) -> bool:
    on_cpu = model.transformers is not None and model.transformers.device is Device.CPU
    return model.local is not None and not on_cpu and wants_gpu(model.runner.resources.limits)


async def run_plan(
    plan: Plan,
    launch: Launch,
    *,
    parallelism: int,
    new_attempt: Callable[[], str],
    report: Callable[[Event], None],
) -> dict[Partition, Outcome]:
    """Run every partition to its end, whatever becomes of the others. Cancelling ends all processes."""
    slots = asyncio.Semaphore(parallelism)

    async def one(partition: Partition) -> Outcome:
        async with slots:
            outcome = await _partition(plan, partition, launch, new_attempt, report)
        report(Finished(partition, outcome))
        return outcome

    async with asyncio.TaskGroup() as group:
        tasks = {p: group.create_task(one(p)) for p in plan.partitions}
    return {partition: task.result() for partition, task in tasks.items()}


async def _partition(
    plan: Plan,
    partition: Partition,
    launch: Launch,
    new_attempt: Callable[[], str],
    report: Callable[[Event], None],
) -> Outcome:
    """Attempts until one succeeds, one says never again, or the retries are used up."""
    for retry in range(plan.run.backoff_limit + 1):
        report(Started(partition, retry))
        ended = await _tried(plan, partition, launch, new_attempt(), report)
        last = retry == plan.run.backoff_limit
        if last or not ended.again or not isinstance(ended.outcome, result.Failure):
            break
        seconds = min(launch.backoff_seconds * 2**retry, BACKOFF_MAX)
        report(Retrying(partition, ended.outcome, seconds))
        await asyncio.sleep(seconds)
    return ended.outcome


async def _tried(
    plan: Plan, partition: Partition, launch: Launch, attempt: str, report: Callable[[Event], None]
) -> Ended:
    """One attempt; a process that cannot be started is one that failed."""
    try:
        return await run_attempt(plan, partition, launch, attempt, lambda p: report(Progressed(partition, p)))
    except OSError as error:
        return Ended(result.failure(Reason.RUNNER_FAILED, f"cannot start: {error}", attempt), again=True)
