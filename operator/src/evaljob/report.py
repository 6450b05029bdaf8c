"""What has ended so far -> the summary's ConfigMap, one dataset after the other.

10,000 outcomes as objects take 40 MiB and their cells 60; as records and as text they take 15.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from evaljob import merge, packing, tables
from evaljob.names import Reason, State
from evaljob.observe import Observation, Outcome, read_record
from evaljob.packing import Packed
from evaljob.plan import Partition, Plan
from evaljob.result import Failure
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


@dataclass(frozen=True)
class Report:
    """What a summary is made of. Made once, when it is asked for: 10,000 cells take two seconds."""

    plan: Plan
    outcomes: Ended
    state: State

    @functools.cached_property
    def _written(self) -> tuple[dict[str, str], Cell | None]:
        files, disagreement = tables.Files(), None
        for line in merge.lines(self.plan, self.outcomes):
            files.add(line)
            disagreeing = (c for c in line.cells if c.reason == Reason.SHARDS_DISAGREE)
            disagreement = disagreement or next(disagreeing, None)
        ended, failed = len(self.outcomes), self.outcomes.failed
        head = merge.headed(
            self.plan,
            state=self.state,
            succeeded=ended - failed,
            failed=failed,
            disagreed=disagreement is not None,
        )
        return files.texts(head), disagreement

    @property
    def files(self) -> dict[str, str]:
        """The summary as it stands, by file name."""
        return self._written[0]

    @property
    def disagreement(self) -> Cell | None:
        """The first cell whose shards did not compute the same."""
        return self._written[1]

    @functools.cached_property
    def packed(self) -> Packed:
        """The data of its ConfigMap.

        Raises:
            SummaryTooLargeError: it does not fit.
        """
        return packing.pack(self.files)
