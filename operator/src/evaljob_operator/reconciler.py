"""One unfinished EvalJob: observe, decide, apply, when something changes and at most once a second."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime

from evaljob.decide import Decision, decide, refused
from evaljob.names import Condition
from evaljob.observe import Observed, failure_on, observe
from evaljob.plan import Plan
from evaljob.policies import expires_at, is_over, jobs_expire_at, retry_asked
from evaljob.spec import EvalJob, InvalidSpecError, parse_evaljob
from evaljob.status import PartitionCounts
from evaljob_operator.acceptance import rehearsed
from evaljob_operator.api import (
    ApiError,
    ConflictError,
    ForbiddenError,
    Json,
    TooManyRequestsError,
    evaljob_path,
    version_of,
)
from evaljob_operator.backoff import Backoff
from evaljob_operator.freeze import PredecessorError, UnreadablePlanError, freeze, get, make, read, read_run
from evaljob_operator.logs import concerning
from evaljob_operator.pods import PodLists
from evaljob_operator.publisher import NEVER, Publisher
from evaljob_operator.refusals import Refusals, refusal
from evaljob_operator.resumptions import Resumptions
from evaljob_operator.statuses import known, told
from evaljob_operator.workloads import Workloads
from evaljob_operator.world import World
from evaljob_operator.writer import Writer

log = logging.getLogger(__name__)
RECORDS_AT_ONCE = 20
"""Records that are decoded before others get their turn."""


class ForgottenError(Exception):
    """The EvalJob is gone, going, or another one by now."""


class Reconciler:
    """The task of one EvalJob.

    Args:
        world: what all share.
        body: the EvalJob as last seen.
    """

    def __init__(self, world: World, body: Json) -> None:
        meta = body["metadata"]
        self.namespace: str = meta["namespace"]
        self.name: str = meta["name"]
        self.uid: str = meta["uid"]
        self._world = world
        self._informers = world.informers[self.namespace]
        self._writer = Writer(world.api, self.namespace, self._informers, world.metrics)
        self._publisher = Publisher(world, self._writer)
        self._pods = PodLists(world, self.namespace, self.name)
        self._workloads = Workloads(world, self.namespace)
        # A record never changes once written, and each pass sees all of them.
        self._why = functools.cache(failure_on)
        self._backoff = Backoff(world.random, *world.timing.backoff)
        self._awake = asyncio.Event()
        self._body = body
        self._plan: Plan | None = None
        self._plan_is_there = False
        self._refusals = Refusals()
        self._resumptions = Resumptions()
        self._synced_at = NEVER
        self._were_there: set[str] = set()
        """Names of the Jobs that were seen or made."""
        self._trouble = ""
        self.counts = PartitionCounts()
        """Where its partitions are, as of the last pass; nowhere once it is finished."""

    def __str__(self) -> str:
        """As logs name it."""
        return f"{self.namespace}/{self.name}"

    @property
    def version(self) -> int:
        """The resourceVersion of the EvalJob as last seen."""
        return version_of(self._body)

    def update(self, body: Json) -> None:
        """The EvalJob as a watch shows it, which may be older than the answer to our last write."""
        if self._take(body):
            self.wake()

    def _take(self, body: Json) -> bool:
        """Keep what was answered or shown, unless something newer has come meanwhile; whether it was kept."""
        if newer := version_of(body) >= self.version:
            self._body = body
        return newer

    @property
    def behind(self) -> bool:
        """Whether something has changed that no pass has looked at yet."""
        return self._awake.is_set()

    def wake(self) -> None:
        """Something of this EvalJob has changed."""
        self._awake.set()

    async def run(self) -> None:
        """Pass after pass until nothing is left to do for this EvalJob."""
        concerning(str(self))
        while True:
            self._awake.clear()
            started = self._world.monotonic()
            try:
                delay = await self._pass()
                self._world.metrics.passed(self._world.monotonic() - started)
            except ForgottenError:
                return
            except PredecessorError as error:
                self._complain(f"{error} is not gone yet")
                await asyncio.sleep(self._world.timing.retry)
            except UnreadablePlanError as error:
                self._complain(str(error))
                await asyncio.sleep(self._backoff.after_failure())
            except ApiError as error:
                await asyncio.sleep(await self._after_error(error))
            except Exception as error:
                # The outermost boundary: one bad object never stops or delays the others.
                if self._is_new(repr(error)):
                    log.exception("%s: unexpected", self)
                await asyncio.sleep(self._backoff.after_failure())
            else:
                if delay is None:
                    return
                self._recover()
                await self._rest(started, delay)

    async def _rest(self, started: float, delay: float) -> None:
        """Sleep until woken or `delay` seconds are over, and then until the next pass is allowed."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._awake.wait(), delay)
        earliest = started + self._world.timing.between_passes
        await asyncio.sleep(max(earliest - self._world.monotonic(), 0))

    def _complain(self, text: str) -> None:
        if self._is_new(text):
            log.warning("%s: %s", self, text)

    def _is_new(self, trouble: str) -> bool:
        """Whether this is not what was wrong at the last pass: each trouble is logged once."""
        before, self._trouble = self._trouble, trouble
        return trouble != before

    def _recover(self) -> None:
        self._backoff.reset()
        if self._trouble:
            log.info("%s: recovered", self)
        self._trouble = ""

    async def _after_error(self, error: ApiError) -> float:
        """Say what is wrong; how many seconds to leave it alone."""
        if isinstance(error, ForbiddenError) and error.namespace_going:
            return self._world.timing.backoff[1]
        self._complain(str(error))
        if refusal(error):
            await self._tell(error)
        delay = self._backoff.after_failure()
        return max(delay, error.retry_after) if isinstance(error, TooManyRequestsError) else delay

    async def _tell(self, error: ApiError) -> None:
        evaljob = known(self._body)
        if is_over(evaljob):
            # What cannot be deleted afterwards is no news about a run; it stands in the log.
            return
        try:
            await self._conclude(evaljob, Decision(status=evaljob.status), self._now(), error)
        except ApiError as second:
            log.warning("%s: status: %s", self, second)

    async def _pass(self) -> float | None:
        """One look at everything; seconds until the next one, None when there is nothing left to do."""
        now = self._now()
        evaljob = known(self._body)
        if retry_asked(evaljob):
            self._refusals = Refusals()
        elif evaljob.spec.suspend:
            self._refusals.forget_waits()
            self._resumptions.forget()
        if is_over(evaljob):
            return await self._after_the_end(now)
        await self._resync()
        evaljob = known(self._body)
        try:
            plan = await self._frozen_plan(evaljob)
        except InvalidSpecError as error:
            return await self._conclude(evaljob, refused(evaljob, error.reason, str(error), now), now)
        return await self._step(evaljob, plan, now)

    async def _frozen_plan(self, evaljob: EvalJob) -> Plan:
        """The plan; made of the spec once, and written again should somebody have deleted its ConfigMap."""
        if self._plan is None or not self._plan_is_there:
            world = self._world
            frozen = await read(world.api, evaljob)
            if frozen is None:
                if self._plan is None:
                    made = make(parse_evaljob(self._body), world.catalogue, world.settings)
                    self._plan = await rehearsed(world.api, evaljob, made)
                frozen = await freeze(world.api, evaljob, self._plan)
            self._plan, self._plan_is_there = frozen, True
        return self._plan

    def _now(self) -> datetime:
        return self._world.now().replace(microsecond=0)

    async def _resync(self) -> None:
        """Once in a while, and before the first write, ask whether the EvalJob is still there.

        Raises:
            ForgottenError: it is not.
        """
        if self._world.monotonic() - self._synced_at < self._world.timing.resync:
            return
        await self._ask()
        # Pods that start need it.
        self._plan_is_there = False
        self._synced_at = self._world.monotonic()

    async def _ask(self) -> None:
        """Ask whether the EvalJob is still there.

        Raises:
            ForgottenError: it is not.
        """
        body = await get(self._world.api, evaljob_path(self.namespace, self.name))
        if body is None or body["metadata"]["uid"] != self.uid or "deletionTimestamp" in body["metadata"]:
            raise ForgottenError
        self._take(body)

    async def _after_the_end(self, now: datetime) -> float | None:
        """Wait for the time of the Jobs, and of the EvalJob itself, to be up, then delete them."""
        evaljob = known(self._body)
        expires = expires_at(evaljob)
        if expires and now >= expires:
            return await self._expire(now)
        left = await self._clean_up(evaljob, now)
        return min((t for t in (left, expires and (expires - now).total_seconds()) if t), default=None)

    async def _expire(self, now: datetime) -> float | None:
        """Delete the EvalJob, unless a last look shows a change of its time, or that it is to go on."""
        self._synced_at = NEVER
        await self._resync()
        expires = expires_at(evaljob := known(self._body))
        if expires and now >= expires and is_over(evaljob):
            await self._writer.expire(evaljob)
        return self._world.timing.retry

    async def _clean_up(self, evaljob: EvalJob, now: datetime) -> float | None:
        """Delete the Jobs when their time is up; seconds until then. Nobody looks at them again."""
        if not any(job.owner == self.uid for job in self._informers.jobs.of(self.name).values()):
            return None
        try:
            run = self._plan.run if self._plan else await read_run(self._world.api, evaljob)
        except (InvalidSpecError, UnreadablePlanError):
            run = None
        until = jobs_expire_at(evaljob, run.job_ttl_seconds) if run else None
        if until is None:
            return None
        if until > now:
            return (until - now).total_seconds()
        self._synced_at = NEVER
        await self._resync()
        if not is_over(known(self._body)):
            return self._world.timing.retry
        await self._writer.clean_up(evaljob)
        return None

    def _observe(self, plan: Plan) -> Observed:
        jobs, terminal = self._informers.jobs.of(self.name), self._informers.pods.of(self.name)
        # Once an outcome is on record, what its pods say is never read again, and it takes as much room.
        recorded = {job.uid for job in jobs.values() if job.record is not None}
        self._informers.pods.forget(self.name, lambda pod: pod.job_uid in recorded)
        pods = self._pods.with_terminal(terminal.values())
        listed, warnings = self._pods.listed, {**self._pods.warnings, **self._workloads.words}
        seen = observe(plan, self.uid, jobs, pods, listed, warnings, self._why)
        return self._resumptions.overlay(self._refusals.overlay(seen))

    async def _read_records(self, plan: Plan) -> None:
        """Those that no pass has seen yet, with room for others in between: 10,000 take seconds."""
        jobs, read = self._informers.jobs.of(self.name), self._why.cache_info().misses
        for name, partition in plan.named:
            job = jobs.get(name)
            if job is None or job.record is None:
                continue
            self._why(partition, job.record)
            if self._why.cache_info().misses > read + RECORDS_AT_ONCE:
                read = self._why.cache_info().misses
                await asyncio.sleep(0)

    async def _step(self, evaljob: EvalJob, plan: Plan, now: datetime) -> float:
        await self._read_records(plan)
        jobs = self._informers.jobs
        self._were_there.update(jobs.of(self.name))
        next_list = await self._pods.refresh(jobs.of(self.name).values(), now)
        next_workloads = await self._workloads.refresh(jobs.of(self.name).values())
        decision = decide(evaljob, plan, self._observe(plan), now)
        suspensions, next_resumption = self._resumptions.due(decision.suspensions, now)
        error = await first_error(
            lambda: self._create(evaljob, plan, decision, now),
            lambda: self._writer.record(plan, decision.records),
            lambda: self._writer.suspend(suspensions),
            lambda: self._writer.delete(decision.deletions),
            lambda: self._pods.look_up(decision.lookups, jobs.of(self.name)),
        )
        if decision.lookups:
            self.wake()
        if error is None and all_recorded(decision):
            # The last outcomes have just been put on record: the end needs no pass of its own, a second later.
            decision = decide(evaljob, plan, self._observe(plan), now)
        next_write = await self._conclude(evaljob, decision, now, error or self._informers.refused)
        if error is not None:
            raise error
        resync = self._synced_at + self._world.timing.resync - self._world.monotonic()
        times = (decision.again_after, next_resumption, next_list, next_workloads, next_write, resync)
        return min(t for t in times if t is not None)

    async def _create(self, evaljob: EvalJob, plan: Plan, decision: Decision, now: datetime) -> None:
        if not self._were_there.isdisjoint(map(plan.job_name, decision.create)):
            # The garbage collector takes Jobs whose EvalJob is gone, and no watch need have told of that.
            await self._ask()
        answers = await self._writer.create(evaljob, plan, decision.create)
        self._were_there.update(map(plan.job_name, answers))
        self._refusals.take(answers, now)
        if any(answers.values()) or len(answers) < len(decision.create):
            self.wake()

    async def _conclude(
        self, evaljob: EvalJob, decision: Decision, now: datetime, error: ApiError | None = None
    ) -> float | None:
        """Write summary, status and Events as far as they are due; seconds until the rest is."""
        if error is not None:
            decision = told(evaljob, decision, error, now)
        over = decision.status.is_true(Condition.FINISHED)
        self.counts = PartitionCounts() if over else decision.status.partitions
        try:
            body, left = await self._publisher.publish(evaljob, decision, now)
        except ConflictError:
            # Changed, or another EvalJob by now: the next pass asks.
            self._synced_at = NEVER
            raise
        if body:
            self._take(body)
        return 0.0 if over else left


def all_recorded(decision: Decision) -> bool:
    """Whether the decision's own records are the last that were missing."""
    counts = decision.status.partitions
    ended = counts.succeeded + counts.failed
    return bool(decision.records) and ended + len(decision.records) >= counts.total


async def first_error(*steps: Callable[[], Awaitable[None]]) -> ApiError | None:
    """Take all steps in order, whatever becomes of the others; the first error."""
    first = None
    for step in steps:
        try:
            await step()
        except ApiError as error:
            first = first or error
    return first
