"""The sample log: append-only JSON lines, one file per attempt.

Readers take the union of all files of a folder: no locks, and a retried partition recomputes no finished sample.
"""

import errno
import hashlib
import io
import logging
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO

from pydantic import Field, TypeAdapter, ValidationError

from evaljob.names import Reason
from evaljob_runner.columns import Names
from evaljob_runner.errors import Retry
from evaljob_runner.samples import AnswerKey, InferenceLine, Judgement, ScoreLine

_log = logging.getLogger(__name__)
_FILE = 2**40
"""A place is the number of a file times this, and an offset."""
_NOWHERE = 2**64 - 1
_Line = TypeAdapter[InferenceLine | ScoreLine](
    Annotated[InferenceLine | ScoreLine, Field(discriminator="kind")]
)


class SampleLog:
    """The log of one attempt, with what earlier attempts left.

    Of an answer only the place is kept in memory, some 50 bytes: a shard may have a million.

    Args:
        folder: of this (model, dataset); all its shards and attempts write there.
        attempt: names the file.
        digest: lines of another inference digest are left alone and never used.

    Raises:
        Retry: when the folder cannot be read or written.
    """

    def __init__(self, folder: Path, attempt: str, digest: str) -> None:
        self.folder, self._digest = folder, digest
        self._names = Names()
        """Of answers with a line of either kind."""
        self._places = array("Q")
        """Of final answers, by number: file and offset."""
        self._scores = array("Q")
        """Digest of an answer's scores, by number."""
        self._more_scores: set[int] = set()
        """Other digests of scores, where a metric has changed."""
        self.judgements: dict[str, Judgement] = {}
        """What judges said to earlier attempts, by digest, without their requests."""
        self.written = 0
        """Final answers that this attempt added."""
        self.judged = 0
        """Answers that it added a judge's words about."""
        own = folder / f"{attempt}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            own.touch()
            others = sorted(path for path in folder.glob("*.jsonl") if path != own)
            self._paths = [*others, own]
            for number in range(len(self._paths)):
                self._read(number)
            self._reader = _Reader(self._paths)
            self._file = own.open("a+b", buffering=0)
            _end_torn_line(self._file)
            self._begin = self._end = len(others) * _FILE + self._file.tell()
        except OSError as error:
            raise _unusable(folder, error) from error

    def _read(self, number: int) -> None:
        path = self._paths[number]
        with path.open("rb") as file:
            for offset, line, text in _lines(file, path.name):
                if line.inference_digest == self._digest:
                    self._note(line, number * _FILE + offset, text)
                    if isinstance(line, ScoreLine):
                        self.judgements |= {
                            j.digest: j.model_copy(update={"request": ""}) for j in line.judgements
                        }

    def _note(self, line: InferenceLine | ScoreLine, place: int, text: bytes) -> None:
        """Keep what is needed to find a line again. The first answer to a question counts."""
        if isinstance(line, InferenceLine) and not line.outcome.final:
            return
        number = self._names.add(_name((line.id, line.repeat)))
        if number == len(self._places):
            self._places.append(_NOWHERE)
            self._scores.append(0)
        if isinstance(line, ScoreLine):
            if before := self._scores[number]:
                self._more_scores.add(before)
            self._scores[number] = _digest(text)
        elif self._places[number] == _NOWHERE:
            self._places[number] = place

    def _place(self, key: AnswerKey) -> int:
        number = self._names.number(_name(key))
        return _NOWHERE if number is None else self._places[number]

    def has(self, key: AnswerKey) -> bool:
        """Whether there is a final answer."""
        return self._place(key) != _NOWHERE

    def inherited(self, key: AnswerKey) -> bool:
        """Whether it is an earlier attempt's."""
        return self._place(key) < self._begin

    def answer(self, key: AnswerKey) -> InferenceLine:
        """A final answer, read back.

        Raises:
            Retry: when somebody has changed the log meanwhile.
        """
        try:
            line = _Line.validate_json(self._reader.line(self._place(key)))
        except (OSError, ValidationError) as error:
            raise self._changed(f"{key[0]}: {error}") from error
        if not isinstance(line, InferenceLine) or (line.id, line.repeat) != key:
            raise self._changed(key[0])
        return line

    def _changed(self, what: str) -> Retry:
        folder = self.folder.name
        return Retry(
            Reason.DEPENDENCY_UNAVAILABLE, f"the sample log in {folder}/ was changed meanwhile: {what[:200]}"
        )

    def holds(self, scores: ScoreLine) -> bool:
        """Whether this very score is in the log, from this attempt or another."""
        number = self._names.number(_name((scores.id, scores.repeat)))
        digest = _digest(f"{scores.to_json()}\n".encode())
        return number is not None and (self._scores[number] == digest or digest in self._more_scores)

    def append(self, *lines: InferenceLine | ScoreLine) -> None:
        """Write the lines of one answer at once; a kill may tear them, and then the reader drops them.

        Raises:
            Retry: when they cannot be written, for example because the disk is full.
        """
        written = [f"{line.to_json()}\n".encode() for line in lines]
        data = b"".join(written)
        try:
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise _unusable(self.folder, error) from error
        for line, text in zip(lines, written, strict=True):
            self._note(line, self._end, text)
            self._end += len(text)
            self.written += isinstance(line, InferenceLine) and line.outcome.final
            self.judged += isinstance(line, ScoreLine) and next(line.judgements, None) is not None

    def close(self) -> None:
        """Close the files; everything is written already.

        Raises:
            Retry: when a disk says only now that it had no room for it, as NFS does.
        """
        try:
            self._file.close()
            self._reader.close()
        except OSError as error:
            raise _unusable(self.folder, error) from error


class _Reader:
    """Single lines of some files. One file is open at a time, as answers mostly follow each other."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._number = -1
        self._file: BinaryIO = io.BytesIO()

    def line(self, place: int) -> bytes:
        """The line at a place.

        Raises:
            OSError: when the file is gone.
        """
        number, offset = divmod(place, _FILE)
        if number != self._number:
            self.close()
            self._file, self._number = self._paths[number].open("rb"), number
        self._file.seek(offset)
        return self._file.readline()

    def close(self) -> None:
        """Close the file that is open."""
        self._file.close()
        self._number = -1


def _name(key: AnswerKey) -> str:
    return f"{key[1]} {key[0]}"


def _digest(score_line: bytes) -> int:
    """Never 0."""
    return int.from_bytes(hashlib.blake2b(score_line, digest_size=8).digest()) or 1


def _lines(file: BinaryIO, name: str) -> Iterator[tuple[int, InferenceLine | ScoreLine, bytes]]:
    """The intact lines of a log, each with its offset and its text. A killed attempt leaves a torn one."""
    offset = 0
    for number, raw in enumerate(file, start=1):
        try:
            yield offset, _Line.validate_json(raw), raw
        except ValidationError:
            _log.warning("sample log %s line %d is torn or of another version: dropped", name, number)
        offset += len(raw)


def _end_torn_line(file: io.FileIO) -> None:
    """An attempt that runs again under its name must not glue its first line to a torn one."""
    if file.seek(0, os.SEEK_END):
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def _unusable(folder: Path, error: OSError) -> Retry:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Retry(
        Reason.OUTPUT_FULL if full else Reason.DEPENDENCY_UNAVAILABLE,
        f"the sample log in {folder.name}/ cannot be used: {error.strerror}"
        + ("; free or enlarge the volume of spec.output, whole samples stay" if full else ""),
    )
