"""Files -> rows, one row at a time: JSON lines here, Parquet in `parquet`."""

import errno
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

from evaljob.names import Reason
from evaljob_runner.errors import Fatal, Retry, Stop
from evaljob_runner.surrogates import half, replaced

Row = dict[str, Any]
Stamp = tuple[int, int]
"""Size and time of the last change."""
_MAY_HOLD_HALVES = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
"""Escaped, or as the bytes that CESU-8 has for them, which json reads too."""


_FOR_GOOD = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
    }
)
"""Errors that another attempt meets too."""


class Found(NamedTuple):
    """A row of one file and how to find it again."""

    at: int
    """For `read`: a byte offset in JSON lines, a row in Parquet."""
    number: int
    """For people: the line of JSON lines, from 1; the row of Parquet, from 0."""
    data: Row


class RowFile(Protocol):
    """A file of rows."""

    @property
    def name(self) -> str:
        """In messages and nowhere else."""

    def where(self, number: int) -> str:
        """How messages name a row."""

    def rows(self) -> Iterator[Found]:
        """All rows in order.

        Raises:
            Fatal: BadData, naming the first row that cannot be read.
            Retry: DependencyUnavailable, when the file system fails.
        """

    def read(self, found: Iterable[tuple[int, int]]) -> Iterator[Row]:
        """The rows at some (at, number), in that order; ascending order reads the file once."""

    def digest(self) -> str:
        """SHA-256 of its bytes, in hexadecimal."""

    def stamp(self) -> Stamp:
        """Changes when somebody writes to the file."""


@dataclass(frozen=True)
class JsonLines:
    """A file of JSON lines, or such lines from the EvalJob itself. Empty lines are skipped."""

    name: str
    path: Path | None = None
    inline: str = ""

    def where(self, number: int) -> str:
        """How messages name a line."""
        return f"{self.name} line {number}"

    def digest(self) -> str:
        """SHA-256 of its bytes, in hexadecimal."""
        with self._open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def stamp(self) -> Stamp:
        """Changes when somebody writes to the file."""
        return file_stamp(self.path, self.name) if self.path else (0, 0)

    def rows(self) -> Iterator[Found]:
        """All rows in order.

        Raises:
            Fatal: BadData, with the number of the first line that is not a JSON object.
        """
        with self._open() as file:
            offset = 0
            for number, raw in enumerate(file, start=1):
                if raw.strip():
                    yield Found(offset, number, _decode(raw, self.where(number)))
                offset += len(raw)

    def read(self, found: Iterable[tuple[int, int]]) -> Iterator[Row]:
        """The rows at some (offset, line number), in that order."""
        with self._open() as file:
            for offset, number in found:
                file.seek(offset)
                yield _decode(file.readline(), self.where(number))

    def _open(self) -> AbstractContextManager[io.BufferedIOBase]:
        if self.path is None:
            return io.BytesIO(self.inline.encode())
        return open_file(self.path, self.name)


@dataclass(frozen=True)
class Labelled:
    """A file whose rows lack a column for which the name of its folder stands."""

    file: RowFile
    column: str
    label: str

    @property
    def name(self) -> str:
        """In messages and nowhere else."""
        return self.file.name

    def where(self, number: int) -> str:
        """How messages name a row."""
        return self.file.where(number)

    def digest(self) -> str:
        """SHA-256 over the file and what is added to it."""
        return hashlib.sha256(f"{self.file.digest()} {self.column} {self.label}".encode()).hexdigest()

    def stamp(self) -> Stamp:
        """As the file's."""
        return self.file.stamp()

    def rows(self) -> Iterator[Found]:
        """All rows in order.

        Raises:
            Fatal: BadData, when the rows have the column: then they need no folders, and one folder may hold all.
        """
        for found in self.file.rows():
            if self.column in found.data:
                raise Fatal(
                    Reason.BAD_DATA,
                    f"{self.where(found.number)}: has a column {self.column!r} already, so folders are no subsets: "
                    "name one folder as source",
                )
            yield found._replace(data={**found.data, self.column: self.label})

    def read(self, found: Iterable[tuple[int, int]]) -> Iterator[Row]:
        """As the file's, with the column."""
        return ({**row, self.column: self.label} for row in self.file.read(found))


@contextmanager
def open_file(path: Path, name: str) -> Iterator[io.BufferedReader]:
    """A file's bytes; raises as `unreadable` says, when it is opened and when it is read."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise unreadable(name, error) from error


def file_stamp(path: Path, name: str) -> Stamp:
    """A file's size and the time of its last change, in nanoseconds; raises as `unreadable` says."""
    try:
        found = path.stat()
    except OSError as error:
        raise unreadable(name, error) from error
    return found.st_size, found.st_mtime_ns


def unreadable(name: str, error: OSError) -> Stop:
    """BadData where the file is at fault; other errors pass, for example those of a file server that starts again."""
    said = f"{name}: {(error.strerror or str(error))[:200]}"
    if error.errno is None or error.errno in _FOR_GOOD:
        return Fatal(Reason.BAD_DATA, said)
    return Retry(Reason.DEPENDENCY_UNAVAILABLE, said)


def _decode(raw: bytes, where: str) -> Row:
    try:
        data = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Fatal(Reason.BAD_DATA, f"{where}: not JSON: {str(error)[:200]}") from error
    if not isinstance(data, dict):
        raise Fatal(Reason.BAD_DATA, f"{where}: must be a JSON object, got {type(data).__name__}")
    if _MAY_HOLD_HALVES.search(raw):
        _refuse_halves(data, where)
    return data


def _refuse_halves(data: Row, where: str) -> None:
    for column, value in data.items():
        if found := half(json.dumps([column, value], ensure_ascii=False)):
            raise Fatal(
                Reason.BAD_DATA,
                f"{where}: column {replaced(column)!r} holds {found}, half of a surrogate pair and no character: "
                "write the whole pair, or leave it out",
            )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


class Line(NamedTuple):
    """A row of a split and how to find it again."""

    row: int
    """From 0, over all files of the split; empty lines are not counted."""
    file: int
    at: int
    number: int
    data: Row


@dataclass(frozen=True)
class Rows:
    """The rows of one split, in one file or in several that follow each other."""

    name: str
    """In messages and nowhere else."""
    files: tuple[RowFile, ...]
    identity: str | None = None
    """Says which bytes these are, where that is known without reading them."""

    def __iter__(self) -> Iterator[Line]:
        """All rows in order; raises as `RowFile.rows`."""
        row = 0
        for number, file in enumerate(self.files):
            for found in file.rows():
                yield Line(row, number, *found)
                row += 1

    def read(self, places: Iterable[tuple[int, int, int]]) -> Iterator[Row]:
        """The rows at some (file, at, number), in that order; ascending order reads each file once."""
        for file, group in groupby(places, key=lambda place: place[0]):
            yield from self.files[file].read((at, number) for _, at, number in group)

    def digest(self) -> str:
        """SHA-256 of the file's bytes; of several, over their digests in order; or of the identity."""
        if self.identity:
            return hashlib.sha256(self.identity.encode()).hexdigest()
        parts = [file.digest() for file in self.files]
        return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()

    def stamps(self) -> list[Stamp]:
        """Other ones when somebody has written to a file."""
        return [file.stamp() for file in self.files]

    def where(self, file: int, number: int) -> str:
        """How messages name a row."""
        return self.files[file].where(number)
