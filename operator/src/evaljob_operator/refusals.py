"""Jobs that the API server would not take: for good, or for now."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from evaljob.causes import cause
from evaljob.names import Reason
from evaljob.observe import Observation, Observed, Phase
from evaljob.plan import Partition
from evaljob.result import Failure, failure
from evaljob.waiting import Waiting
from evaljob_operator.api import ApiError, ForbiddenError, NameTakenError

_UNEXPLAINED = {400: Reason.INVALID_SPEC, 403: Reason.ADMISSION_DENIED, 422: Reason.INVALID_SPEC, 500: None}
"""What it is when the words say nothing. 500: a webhook that cannot be reached, or no refusal at all."""
FOR_GOOD = (Reason.INVALID_SPEC, Reason.NAME_COLLISION)
"""What fails one Job; all else is waited for."""


def refusal(error: ApiError) -> Reason | None:
    """Why the API server does not take an object; None for an error that says nothing about the object."""
    if isinstance(error, NameTakenError):
        return Reason.NAME_COLLISION
    if error.status not in _UNEXPLAINED or (isinstance(error, ForbiddenError) and error.namespace_going):
        return None
    return cause(error.message) or _UNEXPLAINED[error.status]


class Refusals:
    """What the API server said to the Jobs of one EvalJob. Forgotten with the process, and then asked again."""

    def __init__(self) -> None:
        self._failed: dict[Partition, Failure] = {}
        self._held: dict[str, Waiting] = {}
        """By model: its partitions differ in name and data only, so one refusal stands for all."""

    def take(self, answers: Mapping[Partition, ApiError | None], now: datetime) -> None:
        """Note the answers to creations; None to one that was carried out."""
        refused = {partition: error for partition, error in answers.items() if error}
        for partition in answers.keys() - refused.keys():
            self._held.pop(partition.model, None)
        for partition, error in refused.items():
            reason = refusal(error)
            if reason in FOR_GOOD:
                self._failed[partition] = failure(reason, error.message)
            elif reason:
                held = self._held.get(partition.model)
                since = held.since if held else now
                self._held[partition.model] = Waiting(reason, error.message, since, tried_at=now)

    def forget_waits(self) -> None:
        """Nothing is tried while an EvalJob is suspended: the wait for room begins anew when it is resumed."""
        self._held.clear()

    def overlay(self, observed: Observed) -> Observed:
        """The observations with what nothing else tells: failures and waits of partitions that have no Job."""
        if not self._failed and not self._held:
            return observed
        return Observed(tuple(self._overlaid(o) for o in observed.observations))

    def _overlaid(self, seen: Observation) -> Observation:
        if seen.phase is not Phase.ABSENT:
            return seen
        if outcome := self._failed.get(seen.partition):
            return Observation(seen.partition, Phase.FAILED, None, outcome)
        return replace(seen, waiting=self._held.get(seen.partition.model))
