"""Status, summary and Events of one EvalJob: news at once, counters and numbers once in a while."""

import asyncio
import contextlib
import logging
from dataclasses import replace
from datetime import datetime

from evaljob.decide import Decision
from evaljob.names import Condition
from evaljob.packing import Packed, SummaryTooLargeError
from evaljob.report import Report
from evaljob.spec import EvalJob
from evaljob_operator.api import ApiError, Json, NameTakenError
from evaljob_operator.backoff import rest
from evaljob_operator.refusals import refusal
from evaljob_operator.statuses import due_in, told
from evaljob_operator.world import World
from evaljob_operator.writer import Writer

log = logging.getLogger(__name__)
NEVER = float("-inf")


class Publisher:
    """Writes what a decision says about an EvalJob, as far as it is due."""

    def __init__(self, world: World, writer: Writer) -> None:
        self._world = world
        self._writer = writer
        self._status_at = self._next_summary = NEVER
        self._summarized: tuple[str, int] | None = None
        self._refused: ApiError | None = None
        """Why the API server did not take the last summary."""

    async def publish(
        self, evaljob: EvalJob, decision: Decision, now: datetime
    ) -> tuple[Json | None, float | None]:
        """Write.

        Returns:
            The EvalJob after a write, and seconds until the rest is due, if any.

        Raises:
            ConflictError: the EvalJob has changed, or is another one by now.
            ApiError: of any request. A summary that is refused in mid-run is told and raises nothing.
        """
        # The summary first: an EvalJob that is Finished has one.
        next_summary = await self._write_summary(evaljob, decision)
        if self._refused:
            decision = told(evaljob, decision, self._refused, now)
            if isinstance(self._refused, NameTakenError):
                decision = replace(decision, status=decision.status.model_copy(update={"summary": None}))
        body, next_status = await self._write_status(evaljob, decision, now)
        return body, min((t for t in (next_summary, next_status) if t is not None), default=None)

    async def _write_summary(self, evaljob: EvalJob, decision: Decision) -> float | None:
        report, over = decision.report, decision.status.is_true(Condition.FINISHED)
        if report is None:
            return None
        # Comparing the outcomes themselves would take as long as writing them; the last summary is always made.
        mark = (report.state, len(report.outcomes))
        if mark == self._summarized and not over:
            return None
        started = self._world.monotonic()
        if not over and (left := self._next_summary - started) > 0:
            return left
        await in_slices(report)
        self._refused = await self._put(evaljob, decision.summary, over=over)
        ended = self._world.monotonic()
        # That of 10,000 partitions takes seconds: then it is made less often.
        self._next_summary = ended + (pause := rest(self._world.timing.between_summaries, ended - started))
        self._summarized = None if self._refused else mark
        return pause if self._refused else None

    async def _put(self, evaljob: EvalJob, packed: Packed | None, *, over: bool) -> ApiError | None:
        """Write a summary; why it was refused. In mid-run that holds up nothing, without the last there is no end."""
        try:
            if packed is not None:
                await self._writer.summary(evaljob, packed, over=over)
        except ApiError as error:
            if over or refusal(error) is None:
                raise
            if str(error) != str(self._refused):
                log.warning("%s/%s: %s", evaljob.metadata.namespace, evaljob.metadata.name, error)
            return error
        return None

    async def _write_status(
        self, evaljob: EvalJob, decision: Decision, now: datetime
    ) -> tuple[Json | None, float | None]:
        since = self._world.monotonic() - self._status_at
        left = due_in(evaljob.status, decision.status, since, self._world.timing.between_statuses)
        if left != 0.0:
            return None, left
        body = await self._writer.status(evaljob, decision.status)
        self._status_at = self._world.monotonic()
        await self._writer.events(evaljob, decision.events, now)
        return body, None


async def in_slices(report: Report) -> None:
    """Make a summary, as far as it fits, between other things: small EvalJobs do not wait for a giant's."""
    with contextlib.suppress(SummaryTooLargeError):
        for _ in report.steps():
            await asyncio.sleep(0)
