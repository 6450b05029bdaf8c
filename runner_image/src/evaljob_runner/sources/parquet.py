"""Parquet files -> rows, batch by batch, so that memory does not grow with the file.

Values become what JSON can say, so that a task sees the same document whatever the file's format. Imported only
where such a file is read: pyarrow takes 60 ms and 60 MB.
"""

import base64
import datetime as dt
import hashlib
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from evaljob.names import Reason
from evaljob_runner.errors import Fatal
from evaljob_runner.sources.rows import Found, Row, Stamp, file_stamp, open_file, unreadable

BATCH_ROWS = 256
"""Rows decoded at a time."""
_BUFFER_BYTES = 1024 * 1024
"""Read per column at a time. By default pyarrow reads a row group's columns as a whole."""


@dataclass(frozen=True)
class Parquet:
    """A Parquet file."""

    name: str
    path: Path

    def where(self, number: int) -> str:
        """How messages name a row."""
        return f"{self.name} row {number}"

    def digest(self) -> str:
        """SHA-256 of its bytes, in hexadecimal."""
        with open_file(self.path, self.name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def stamp(self) -> Stamp:
        """Changes when somebody writes to the file."""
        return file_stamp(self.path, self.name)

    def rows(self) -> Iterator[Found]:
        """All rows in order.

        Raises:
            Fatal: BadData, when this is no Parquet file, or a damaged one.
            Retry: DependencyUnavailable, when the file system fails.
        """
        number = 0
        with self._opened() as file:
            for batch in _batches(file, range(file.num_row_groups)):
                for row in _rows(batch):
                    yield Found(number, number, row)
                    number += 1

    def read(self, found: Iterable[tuple[int, int]]) -> Iterator[Row]:
        """The rows at some (row, row), in that order; a step back reads the row's group again."""
        with self._opened() as file:
            cursor = _Cursor(file)
            for number, _ in found:
                yield cursor.row(number)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with parquet.ParquetFile(self.path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
                yield file
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise unreadable(self.name, error) from error
            # Without a number it is pyarrow's word on what the file holds.
            raise Fatal(
                Reason.BAD_DATA, f"{self.name}: not readable as Parquet: {str(error)[:200]}"
            ) from error


class _Cursor:
    """Single rows, cheap in ascending order."""

    def __init__(self, file: Any) -> None:  # noqa: ANN401 - pyarrow has no types
        self._file = file
        sizes = (file.metadata.row_group(i).num_rows for i in range(file.num_row_groups))
        self._starts = [0, *accumulate(sizes)]
        self._group = -1
        self._batches: Iterator[Any] = iter(())
        self._first = self._rows = 0
        self._batch: Any = None

    def row(self, number: int) -> Row:
        group = bisect_right(self._starts, number) - 1
        if group != self._group or number < self._first:
            self._group, self._batches = group, _batches(self._file, [group])
            self._first, self._rows = self._starts[group], 0
        while number >= self._first + self._rows:
            self._first += self._rows
            self._batch = next(self._batches)
            self._rows = self._batch.num_rows
        return _rows(self._batch.slice(number - self._first, 1))[0]


def _batches(file: Any, groups: Iterable[int]) -> Iterator[Any]:  # noqa: ANN401 - pyarrow has no types
    # One thread: pyarrow counts the node's processors, not those of the pod.
    batches: Iterator[Any] = file.iter_batches(BATCH_ROWS, row_groups=list(groups), use_threads=False)
    return batches


def _rows(batch: Any) -> list[Row]:  # noqa: ANN401 - pyarrow has no types
    return [plain(row) for row in batch.to_pylist(maps_as_pydicts="strict")]


def plain(value: Any) -> Any:  # noqa: ANN401 - any value of Arrow in, any of JSON out
    """A value as JSON can say it: bytes as base64, times in ISO 8601, NaN and infinities as null."""
    match value:
        case None | str() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case list():
            return [plain(item) for item in value]
        case bytes():
            return base64.b64encode(value).decode()
        case _:
            return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)
