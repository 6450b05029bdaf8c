"""Every request of a run gets every fault, every watched kind gets every fault of a watch; all must end alike."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.cluster.shell import say
from tests.faults.case import NAME, Case, Lab, Outcome, evaljob
from tests.faults.proxy import Fault, RequestPlan, WatchFault, WatchPlan

DATASETS = ["one", "two", "bad"]
"""Two succeed, one fails for good."""
EVENTS = {"jobs": (1, 5, 9, 12), "pods": (1, 2, 3), "evaljobs": (1, 2)}
"""Which event of which watch is hit, in the full sweep."""
REQUESTS_MOST = 40
"""Namespaces are made before the reference run tells how many requests there are."""
_SCALED = 2
"""Seconds after which the proxy ends a watch, instead of 300: what the next list repairs is repaired then."""
Plans = Sequence[RequestPlan | WatchPlan]


def request_plans(requests: int, *, thin: bool) -> list[RequestPlan]:
    """Every request with every fault, or every request with one of them in turn; then the same with two operators.

    Two make about twice as many requests, in an order of their own: every third of these is hit.
    """
    numbers, of_two = range(1, requests + 1), range(1, 2 * requests, 3)
    if thin:
        alone = zip(itertools.cycle(Fault), numbers, strict=False)
        return [*(RequestPlan(*a) for a in alone), RequestPlan(Fault.KILL_AFTER, requests, 2)]
    plans = [RequestPlan(fault, n) for fault in Fault for n in numbers]
    return plans + [
        RequestPlan(fault, n, 2) for n, fault in zip(of_two, itertools.cycle(Fault), strict=False)
    ]


def watch_plans(*, thin: bool) -> list[WatchPlan]:
    """Every fault of a watch on every kind; thinned: on one kind in turn, without the minute of silence."""
    if thin:
        kinds = itertools.cycle(EVENTS)
        return [WatchPlan(f, next(kinds), 1) for f in WatchFault if f is not WatchFault.SILENCE]
    return [WatchPlan(f, kind, n) for f in WatchFault for kind, numbers in EVENTS.items() for n in numbers]


async def one(
    lab_: Lab, namespace: str, plan: RequestPlan | WatchPlan | None, reference: Outcome | None
) -> Outcome:
    """One case.

    The EvalJob of a request fault is there before the operator, that of a watch fault comes by the watch.
    """
    watched = isinstance(plan, WatchPlan)
    case = Case(lab_, namespace, plan, watch_seconds=_SCALED if watched else None)
    await case.plant_bystander()
    started = time.monotonic()
    async with case.running(replicas=plan.replicas if isinstance(plan, RequestPlan) else 1):
        if watched:
            await case.until(case.watching)
        await case.submit(evaljob(NAME, DATASETS))
        return await case.outcome(str(plan or "reference"), started, reference.end if reference else None)


@dataclass(frozen=True)
class Slots:
    """How much happens at once."""

    busy: asyncio.Semaphore
    patient: asyncio.Semaphore
    """Who waits for a time-out or a silence to end needs no processor."""

    @classmethod
    def of(cls, jobs: int) -> "Slots":
        """So many cases that compute, and twice as many that wait."""
        return cls(asyncio.Semaphore(jobs), asyncio.Semaphore(2 * jobs))


async def run(
    lab_: Lab, names: Sequence[str], plans: Plans, reference: Outcome, slots: Slots
) -> list[Outcome]:
    """All cases, as many at once as there are slots."""

    async def take(namespace: str, plan: RequestPlan | WatchPlan) -> Outcome:
        async with slots.patient if plan.lasts else slots.busy:
            outcome = await one(lab_, namespace, plan, reference)
        say(f"    {outcome.explain()}")
        return outcome

    return await asyncio.gather(*map(take, names, plans))


def namespaces(*, thin: bool) -> list[str]:
    """One for each case, and one for the reference."""
    most = len(request_plans(REQUESTS_MOST, thin=thin)) + len(watch_plans(thin=thin))
    return [f"case-{n}" for n in range(most + 1)]


async def sweep(lab_: Lab, names: Sequence[str], slots: Slots, *, thin: bool) -> list[Outcome]:
    """The reference run, then all cases."""
    reference = await one(lab_, names[0], None, None)
    say(f"    {reference.explain()}")
    plans: Plans = [*request_plans(reference.requests, thin=thin), *watch_plans(thin=thin)]
    return [reference, *await run(lab_, names[1:], plans, reference, slots)]
