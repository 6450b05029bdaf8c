"""Rows -> samples: splits, subsets, ids, limit, and this shard's part.

The whole source is read once to count and to check. Then only an index of it is kept, and the rows of this shard are
read as they are asked for.
"""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise, tee
from pathlib import Path
from typing import NamedTuple

from evaljob.names import Reason
from evaljob.plan import Partition
from evaljob.spec import Dataset
from evaljob.task import Pool, Sampler, Task
from evaljob_runner import templates
from evaljob_runner.assignment import Places
from evaljob_runner.columns import Labels, Names, Texts
from evaljob_runner.errors import Fatal
from evaljob_runner.sources import uris
from evaljob_runner.sources.rows import Line, Row, Rows
from evaljob_runner.sources.uris import Source

KEPT = 1024
"""Documents that are kept in memory."""
AT_ONCE = 8192
"""Documents that are read together where subsets are mixed, so that a file is not read once for each."""


@dataclass(frozen=True)
class Sample:
    """One document to ask about."""

    id: str
    subset: str
    cluster: str | None
    """Samples of one cluster are not independent; None where each stands alone."""
    columns: Row
    """The document, with derived columns and `subset`."""
    digest: str
    """SHA-256 of the document as it stands in the source."""
    where: str
    """Its place in the source, for messages."""


class Count(NamedTuple):
    """The samples of a subset: in the whole source, and in this shard after `limit`."""

    size: int
    expected: int


class Entry(NamedTuple):
    """A row of the index."""

    row: int
    file: int
    at: int
    number: int
    id: str
    subset: str
    cluster: str | None


class _Index:
    """Entries in columns: 28 bytes for each, and the ids where a task makes them."""

    def __init__(self, task: Task) -> None:
        self._with_subset = task.subsets is not None
        self._places = array("I"), array("I"), array("Q"), array("I")
        self._ids = Texts() if task.id else None
        self.subsets = Labels[str]()
        self.clusters = Labels[str | None]()

    def append(self, line: Line, own_id: str, subset: str, cluster: str | None) -> None:
        """One more row; its id only where a task makes them."""
        for column, value in zip(self._places, line[:4], strict=True):
            column.append(value)
        if self._ids:
            self._ids.append(own_id)
        self.subsets.append(subset)
        self.clusters.append(cluster)

    def __len__(self) -> int:
        return len(self._places[0])

    def __getitem__(self, i: int) -> Entry:
        row, file, at, number = (column[i] for column in self._places)
        subset = self.subsets[i]
        default = f"{subset}/{row}" if self._with_subset else str(row)
        return Entry(row, file, at, number, self._ids[i] if self._ids else default, subset, self.clusters[i])


class Samples:
    """The documents of some rows, in an order of their own; few are kept, many are read as they are asked for."""

    def __init__(self, reader: "_Reader", rows: Rows, index: _Index, order: Sequence[int]) -> None:
        self._reader, self._rows, self._index, self._order = reader, rows, index, order
        self._stamps = rows.stamps()
        self._few: tuple[Sample, ...] | None = None
        if len(order) <= KEPT:
            self._few = tuple(self._read(self.entries()))

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Sample]:
        return self.of(lambda _: True)

    def entries(self) -> Iterator[Entry]:
        """What is known without reading a row."""
        return map(self._index.__getitem__, self._order)

    def first(self, count: int) -> tuple[Sample, ...]:
        """The first ones."""
        return tuple(islice(self, count))

    def of(self, wanted: Callable[[str], bool]) -> Iterator[Sample]:
        """The documents with certain ids.

        Raises:
            Fatal: BadData, when the files have changed since the index was made.
        """
        if self._few is not None:
            yield from (sample for sample in self._few if wanted(sample.id))
            return
        yield from self._read(entry for entry in self.entries() if wanted(entry.id))
        if self._rows.stamps() != self._stamps:
            raise Fatal(Reason.BAD_DATA, f"{self._rows.name}: the data changed while it was read")

    def _read(self, entries: Iterator[Entry]) -> Iterator[Sample]:
        """In one pass where the order is the source's; in another, as of mixed subsets, some thousand at a time."""
        if all(a < b for a, b in pairwise(self._order)):
            yield from self._reader.samples(self._rows, entries)
            return
        while some := list(islice(entries, AT_ONCE)):
            ordered = sorted(some, key=lambda e: e.row)
            found = zip(
                (e.row for e in ordered), self._reader.samples(self._rows, iter(ordered)), strict=True
            )
            by_row = dict(found)
            yield from (by_row[e.row] for e in some)


@dataclass(frozen=True)
class Selection:
    """What one shard works on."""

    samples: Samples
    counts: Mapping[str, Count]
    """All subsets of the source, in its order."""
    pools: Mapping[str, tuple[Sample, ...]]
    """Few-shot candidates in order, by subset; under "" where all share one pool."""
    limited: bool
    """Whether `limit` left samples out."""
    digest: str
    """SHA-256 over the files that were read."""
    commit: str | None
    """Of the hub's repository that they come from."""


def select(dataset: Dataset, task: Task, partition: Partition, places: Places, scratch: Path) -> Selection:
    """Index a dataset and cut out a shard.

    Args:
        dataset: what to read.
        task: how rows become samples.
        partition: which shard.
        places: where claims and ConfigMaps are mounted.
        scratch: a folder that stays as long as samples are read, for copies of a bucket's objects.

    Raises:
        Fatal: BadData, EmptyDataset or BadConfiguration; more where a hub or a bucket is asked.
        Retry: when it does not answer.
    """
    inline = dataset.inline.jsonl if dataset.inline else None
    source = uris.open_source(dataset.source, inline, places, scratch)
    reader = _Reader(task)
    rows = _rows(source, task, task.splits.eval if task.splits else None)
    index = reader.index(rows)
    if not len(index):
        raise Fatal(Reason.EMPTY_DATASET, f"{rows.name}: no samples{_of_split(task)}")
    if task.id:
        _refuse_duplicates(index, rows)
    by_subset = index.subsets.rows()
    chosen = {name: found[: dataset.limit] for name, found in by_subset.items()}
    mine = _shard(chosen, index, task, partition)
    expected = Counter(map(index.subsets.__getitem__, mine))
    shots = _shot_rows(source, task)
    return Selection(
        samples=Samples(reader, rows, index, mine),
        counts={name: Count(len(found), expected[name]) for name, found in by_subset.items()},
        pools=_pools(reader, shots, task) if shots else {},
        limited=any(len(chosen[name]) < len(found) for name, found in by_subset.items()),
        digest=_digest(rows, shots),
        commit=source.commit,
    )


def _digest(rows: Rows, shots: Rows | None) -> str:
    """SHA-256 of the rows' files; with examples from other files, over both digests."""
    if shots is None or shots.name == rows.name:
        return rows.digest()
    return hashlib.sha256(f"{rows.digest()} {shots.digest()}".encode()).hexdigest()


def _rows(source: Source, task: Task, split: str | None) -> Rows:
    """The rows that hold a split: its files, or the one table that has them all."""
    if task.splits is None or split is None or task.splits.column is not None:
        return source.table()
    if source.files:
        raise Fatal(
            Reason.BAD_DATA,
            f"{source.name}: one file, but the task has splits: name the column that holds the split "
            f"(splits.column), or use a folder with {split}.jsonl",
        )
    return source.split(split, task.subsets.column if task.subsets else None)


def _shot_rows(source: Source, task: Task) -> Rows | None:
    """The rows that few-shot examples come from; None without examples."""
    if not task.few_shot or not task.few_shot.wanted:
        return None
    splits = task.splits
    return _rows(source, task, (splits.few_shot or splits.eval) if splits else None)


def _of_split(task: Task) -> str:
    splits = task.splits
    return f" with {splits.column} = {splits.eval!r}" if splits and splits.column else ""


class _Reader:
    """Rows -> index entries and samples, by a task's templates."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._fields = [templates.text(f"fields.{name}", t) for name, t in task.fields.items()]
        self._id = templates.text("id", task.id) if task.id else None
        self._cluster = templates.text("cluster", task.cluster) if task.cluster else None

    def index(self, rows: Rows, split: str | None = None) -> _Index:
        """Every row of a split (default: the one to evaluate)."""
        splits = self._task.splits
        wanted = split or (splits.eval if splits else None)
        column = splits.column if splits else None
        index = _Index(self._task)
        for line in rows:
            where = rows.where(line.file, line.number)
            if column is None or _column(line.data, column, where) == wanted:
                self._enter(line, index, where)
        return index

    def _enter(self, line: Line, index: _Index, where: str) -> None:
        subset = _column(line.data, self._task.subsets.column, where) if self._task.subsets else ""
        columns = self._columns(line.data, subset, where) if self._id or self._cluster else {}
        own_id = self._id.render(columns, where) if self._id else ""
        index.append(line, own_id, subset, self._cluster.render(columns, where) if self._cluster else None)

    def _columns(self, row: Row, subset: str, where: str) -> Row:
        columns = row | ({"subset": subset} if self._task.subsets else {})
        for name, template in zip(self._task.fields, self._fields, strict=True):
            columns = columns | {name: template.render(columns, where)}
        return columns

    def samples(self, rows: Rows, entries: Iterator[Entry]) -> Iterator[Sample]:
        """The documents of some index entries, in their order, which is best the one of the source."""
        mine, places = tee(entries)
        documents = rows.read((e.file, e.at, e.number) for e in places)
        for entry, row in zip(mine, documents, strict=True):
            where = rows.where(entry.file, entry.number)
            yield Sample(
                id=entry.id,
                subset=entry.subset,
                cluster=entry.cluster,
                columns=self._columns(row, entry.subset, where),
                digest=hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest(),
                where=where,
            )


def _column(row: Row, column: str, where: str) -> str:
    """The text in a column that names a split or a subset."""
    if not isinstance(row.get(column), str | int):
        raise Fatal(
            Reason.BAD_DATA,
            f"{where}: column {column!r} must hold a text; the columns are: {', '.join(sorted(row))}",
        )
    return str(row[column])


def _refuse_duplicates(index: _Index, rows: Rows) -> None:
    seen = Names()
    for i in range(len(index)):
        first = seen.add(index[i].id)
        if first != i:
            places = " and ".join(rows.where(e.file, e.number) for e in (index[first], index[i]))
            raise Fatal(Reason.BAD_DATA, f"{places} have the same id {index[i].id[:80]!r}")


def _shard(
    by_subset: Mapping[str, Sequence[int]], index: _Index, task: Task, partition: Partition
) -> Sequence[int]:
    """The contiguous part k of n, subset by subset, cut between clusters; parts differ by one cluster at most."""
    k, n = partition.shard, partition.shards
    if task.cluster is None:
        rows = array("I", chain.from_iterable(by_subset.values()))
        return rows[len(rows) * k // n : len(rows) * (k + 1) // n]
    clusters = [cluster for rows in by_subset.values() for cluster in _clusters(rows, index)]
    mine = clusters[len(clusters) * k // n : len(clusters) * (k + 1) // n]
    return array("I", chain.from_iterable(mine))


def _clusters(rows: Sequence[int], index: _Index) -> Iterable[Sequence[int]]:
    """The clusters of one subset, in the order of their first rows."""
    found: dict[str | None, array[int]] = {}
    for row in rows:
        found.setdefault(index.clusters[row], array("I")).append(row)
    return found.values()


def _pools(reader: _Reader, rows: Rows, task: Task) -> Mapping[str, tuple[Sample, ...]]:
    """The different documents of each pool; of a pool that gives its first ones no more than can be needed."""
    if task.few_shot is None:
        return {}
    index = reader.index(rows, task.splits.few_shot if task.splits else None)
    one_pool = task.few_shot.pool is Pool.ALL
    groups = {"": range(len(index))} if one_pool else index.subsets.rows()
    # One more than is wanted, as the test item itself is left out.
    most = task.few_shot.wanted + 1 if task.few_shot.sampler is Sampler.FIRST else len(index)
    pools: dict[str, tuple[Sample, ...]] = {}
    for key, group in groups.items():
        different: dict[str, Sample] = {}
        for sample in reader.samples(rows, map(index.__getitem__, group)):
            different.setdefault(sample.digest, sample)
            if len(different) >= most:
                break
        pools[key] = tuple(different.values())
    return pools
