"""Jobs that somebody else suspends: they are resumed again, but ever less often, and told of."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from evaljob.decide import Suspension
from evaljob.names import LABEL_QUEUE, Reason
from evaljob.observe import Observation, Observed, Phase
from evaljob.waiting import Waiting

LONGEST = timedelta(minutes=5)
"""Between two of the same Job; the first ones are a second apart, then two, four and so on."""
IN_VAIN = 3
"""So many of the same Job tell that somebody holds on to it."""
_WORDS = (
    "suspended again whenever it is resumed: is it a Kueue that manages Jobs without a queue? "
    f"Then create the EvalJob with the label {LABEL_QUEUE}"
)


@dataclass(frozen=True, slots=True)
class _Tries:
    count: int
    since: datetime
    due: datetime


class Resumptions:
    """The resumptions of one EvalJob's Jobs since it was last suspended. Forgotten with the process."""

    def __init__(self) -> None:
        self._tries: dict[str, _Tries] = {}

    def forget(self) -> None:
        """We suspend the Jobs ourselves: the next resumption is the first one."""
        self._tries.clear()

    def due(self, wanted: Iterable[Suspension], now: datetime) -> tuple[list[Suspension], float | None]:
        """What to write now of what is wanted, and seconds until more is due, None if nothing is held back."""
        write: list[Suspension] = []
        later: list[float] = []
        for change in wanted:
            tries = self._tries.get(change.uid, _Tries(0, now, now))
            if change.suspend:
                write.append(change)
            elif tries.due > now:
                later.append((tries.due - now).total_seconds())
            else:
                write.append(change)
                # No timedelta holds two to the power of fifty.
                pause = min(timedelta(seconds=2 ** min(tries.count, 20)), LONGEST)
                self._tries[change.uid] = _Tries(tries.count + 1, tries.since, now + pause)
        return write, min(later, default=None)

    def overlay(self, observed: Observed) -> Observed:
        """The observations with what holds up Jobs that were resumed in vain."""
        if all(tries.count < IN_VAIN for tries in self._tries.values()):
            return observed
        return Observed(tuple(map(self._overlaid, observed.observations)))

    def _overlaid(self, seen: Observation) -> Observation:
        if seen.job is None or not seen.job.suspended or seen.phase is not Phase.PENDING:
            return seen
        tries = self._tries.get(seen.job.uid)
        if tries is None or tries.count < IN_VAIN:
            return seen
        return replace(seen, waiting=Waiting(Reason.SUSPENDED_BY_OTHERS, _WORDS, tries.since))
