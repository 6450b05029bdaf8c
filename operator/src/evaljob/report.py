"""What has ended so far -> the summary's ConfigMap, one dataset after the other.

10,000 outcomes as objects take 40 MiB, their cells 60, and these as text 20; as records and compressed they take 15.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping

from evaljob import merge, packing, tables
from evaljob.names import Reason, State
from evaljob.observe import Observation, Outcome, read_record
from evaljob.packing import Packed
from evaljob.plan import Partition, Plan
from evaljob.result import Failure
from evaljob.spool import Text
from evaljob.summary import Cell


class Ended(Mapping[Partition, Outcome]):
    """Outcomes by partition; the record of one that succeeded is decoded each time it is asked for."""

    def __init__(self, seen: Iterable[Observation]) -> None:
        self._seen = {o.partition: o for o in seen if o.recorded}

    @property
    def failed(self) -> int:
        """How many have failed."""
        return sum(isinstance(o.outcome, Failure) for o in self._seen.values())

    def __getitem__(self, partition: Partition) -> Outcome:
        """What became of a partition."""
        seen = self._seen[partition]
        return seen.outcome or read_record(partition, (seen.job and seen.job.record) or "")

    def __contains__(self, partition: object) -> bool:
        """Whether a partition has ended."""
        return partition in self._seen

    def __iter__(self) -> Iterator[Partition]:
        """Those that have ended."""
        return iter(self._seen)

    def __len__(self) -> int:
        """How many have ended."""
        return len(self._seen)


class Report:
    """What a summary is made of. Made once, when it is asked for: 10,000 cells take seconds.

    Args:
        plan: all partitions.
        outcomes: of those that have ended.
        state: of the EvalJob.
    """

    def __init__(self, plan: Plan, outcomes: Ended, state: State) -> None:
        self.plan = plan
        self.outcomes = outcomes
        self.state = state
        self._lines = merge.lines(plan, outcomes)
        self._files = tables.Files()
        self._disagreement: Cell | None = None

    def steps(self) -> Iterator[None]:
        """Make it, a dataset at a time, so that there is room for other things in between.

        Raises:
            SummaryTooLargeError: at the first dataset that does not fit.
        """
        packing.require_room(self._files.compressed)
        for line in self._lines:
            self._files.add(line)
            disagreeing = (c for c in line.cells if c.reason == Reason.SHARDS_DISAGREE)
            self._disagreement = self._disagreement or next(disagreeing, None)
            packing.require_room(self._files.compressed)
            yield

    @property
    def disagreement(self) -> Cell | None:
        """The first cell whose shards did not compute the same."""
        self._make()
        return self._disagreement

    @functools.cached_property
    def files(self) -> dict[str, Text]:
        """The summary as it stands, by file name."""
        self._make()
        ended, failed = len(self.outcomes), self.outcomes.failed
        head = merge.headed(
            self.plan,
            state=self.state,
            succeeded=ended - failed,
            failed=failed,
            disagreed=self._disagreement is not None,
        )
        return self._files.texts(head)

    @functools.cached_property
    def packed(self) -> Packed:
        """The data of its ConfigMap.

        Raises:
            SummaryTooLargeError: it does not fit.
        """
        return packing.pack(self.files)

    def _make(self) -> None:
        for _ in self.steps():
            pass
