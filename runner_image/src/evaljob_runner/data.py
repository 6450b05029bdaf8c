"""Rows -> samples: splits, subsets, ids, limit, and this shard's part.

The whole source is read once to count and to check, then only the rows that this shard needs are kept.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from evaljob.names import Reason
from evaljob.plan import Partition
from evaljob.spec import Dataset
from evaljob.task import Pool, Sampler, Task
from evaljob_runner import templates
from evaljob_runner.assignment import Places
from evaljob_runner.errors import Fatal
from evaljob_runner.sources import uris
from evaljob_runner.sources.rows import Line, Row, Rows
from evaljob_runner.sources.uris import Source


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


@dataclass(frozen=True)
class Selection:
    """What one shard works on."""

    samples: tuple[Sample, ...]
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


class _Entry(NamedTuple):
    """A row of the index: small, because the index covers the whole source."""

    row: int
    file: int
    at: int
    number: int
    id: str
    subset: str
    cluster: str | None


def select(dataset: Dataset, task: Task, partition: Partition, places: Places) -> Selection:
    """Read a dataset and cut out a shard.

    Raises:
        Fatal: BadData, EmptyDataset or BadConfiguration; more where a hub or a bucket is asked.
        Retry: when it does not answer.
    """
    inline = dataset.inline.jsonl if dataset.inline else None
    with TemporaryDirectory() as scratch:
        source = uris.open_source(dataset.source, inline, places, Path(scratch))
        return _select(source, dataset, task, partition)


def _select(source: Source, dataset: Dataset, task: Task, partition: Partition) -> Selection:
    reader = _Reader(task)
    rows = _rows(source, task, task.splits.eval if task.splits else None)
    index = reader.index(rows)
    if not index:
        raise Fatal(Reason.EMPTY_DATASET, f"{rows.name}: no samples{_of_split(task)}")
    _refuse_duplicates(index, rows)
    by_subset = _by_subset(index)
    chosen = {name: entries[: dataset.limit] for name, entries in by_subset.items()}
    mine = _shard(_clusters(chosen), partition.shard, partition.shards)
    expected = Counter(e.subset for e in mine)
    shots = _shot_rows(source, task)
    return Selection(
        samples=_samples(reader, rows, mine),
        counts={name: Count(len(entries), expected[name]) for name, entries in by_subset.items()},
        pools=_pools(reader, shots, task) if shots else {},
        limited=any(len(chosen[name]) < len(entries) for name, entries in by_subset.items()),
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


def _samples(reader: "_Reader", rows: Rows, entries: list[_Entry]) -> tuple[Sample, ...]:
    """The documents of some entries, in their order; read in the order of the source, as subsets may be mixed."""
    ordered = sorted(entries, key=lambda e: e.row)
    found = dict(zip((e.row for e in ordered), reader.samples(rows, ordered), strict=True))
    return tuple(found[e.row] for e in entries)


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

    def index(self, rows: Rows, split: str | None = None) -> list[_Entry]:
        """Every row of a split (default: the one to evaluate)."""
        splits = self._task.splits
        wanted = split or (splits.eval if splits else None)
        column = splits.column if splits else None
        return [
            self._entry(line, rows)
            for line in rows
            if column is None or _column(line.data, column, rows.where(line.file, line.number)) == wanted
        ]

    def _entry(self, line: Line, rows: Rows) -> _Entry:
        where = rows.where(line.file, line.number)
        subset = _column(line.data, self._task.subsets.column, where) if self._task.subsets else ""
        columns: Row = {}
        if self._id or self._cluster:
            columns = self._columns(line.data, subset, where)
        default = f"{subset}/{line.row}" if self._task.subsets else str(line.row)
        return _Entry(
            row=line.row,
            file=line.file,
            at=line.at,
            number=line.number,
            subset=subset,
            id=self._id.render(columns, where) if self._id else default,
            cluster=self._cluster.render(columns, where) if self._cluster else None,
        )

    def _columns(self, row: Row, subset: str, where: str) -> Row:
        columns = row | ({"subset": subset} if self._task.subsets else {})
        for name, template in zip(self._task.fields, self._fields, strict=True):
            columns = columns | {name: template.render(columns, where)}
        return columns

    def samples(self, rows: Rows, entries: list[_Entry]) -> Iterable[Sample]:
        """The documents of some index entries, in their order."""
        documents = rows.read((e.file, e.at, e.number) for e in entries)
        for entry, row in zip(entries, documents, strict=True):
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


def _refuse_duplicates(index: list[_Entry], rows: Rows) -> None:
    seen: dict[str, _Entry] = {}
    for entry in index:
        first = seen.setdefault(entry.id, entry)
        if first is not entry:
            places = " and ".join(rows.where(e.file, e.number) for e in (first, entry))
            raise Fatal(Reason.BAD_DATA, f"{places} have the same id {entry.id[:80]!r}")


def _by_subset(index: list[_Entry]) -> dict[str, list[_Entry]]:
    """Subsets in the order of their first rows, rows in the order of the source."""
    found: dict[str, list[_Entry]] = {}
    for entry in index:
        found.setdefault(entry.subset, []).append(entry)
    return found


def _clusters(by_subset: Mapping[str, list[_Entry]]) -> list[list[_Entry]]:
    """All clusters, subset by subset; a sample without one is its own."""
    found: list[list[_Entry]] = []
    for entries in by_subset.values():
        clusters: dict[str | int, list[_Entry]] = {}
        for entry in entries:
            clusters.setdefault(entry.row if entry.cluster is None else entry.cluster, []).append(entry)
        found += clusters.values()
    return found


def _shard(clusters: list[list[_Entry]], shard: int, shards: int) -> list[_Entry]:
    """The contiguous part k of n; parts differ by one cluster at most."""
    start, end = (len(clusters) * k // shards for k in (shard, shard + 1))
    return [entry for cluster in clusters[start:end] for entry in cluster]


def _pools(reader: _Reader, rows: Rows, task: Task) -> Mapping[str, tuple[Sample, ...]]:
    """The different documents of each pool; of a pool that gives its first ones no more than can be needed."""
    if task.few_shot is None:
        return {}
    entries = reader.index(rows, task.splits.few_shot if task.splits else None)
    one_pool = task.few_shot.pool is Pool.ALL
    if not one_pool:
        entries = [e for group in _by_subset(entries).values() for e in group]
    # One more than is wanted, as the test item itself is left out.
    most = task.few_shot.wanted + 1 if task.few_shot.sampler is Sampler.FIRST else len(entries)
    pools: dict[str, tuple[Sample, ...]] = {}
    for key, group in groupby(entries, key=lambda e: "" if one_pool else e.subset):
        different: dict[str, Sample] = {}
        for sample in reader.samples(rows, list(group)):
            different.setdefault(sample.digest, sample)
            if len(different) >= most:
                break
        pools[key] = tuple(different.values())
    return pools
