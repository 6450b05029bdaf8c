"""What a task of lm-eval is read from: files of the user's, and rows of the dataset's source, split by split."""

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from evaljob.fields import S3_SCHEME
from evaljob.names import Reason
from evaljob_runner.assignment import Assignment
from evaljob_runner.errors import Fatal
from evaljob_runner.sources import uris
from evaljob_runner.sources.layouts import SUFFIXES
from evaljob_runner.sources.rows import Row
from evaljob_runner.sources.uris import Source

FOLDER_COLUMN = "evaljob_folder"
"""Of rows from a folder for each `dataset_name`."""


@dataclass(frozen=True)
class Documents:
    """The splits of a source, for one dataset of lm-eval or for several that are folders of it."""

    source: Source

    def splits(self, names: Iterable[str], folder: str | None) -> Mapping[str, list[Row]]:
        """The rows of some splits.

        Args:
            names: of splits.
            folder: `dataset_name`: the folder that has the splits, where the source has no splits itself.

        Raises:
            Fatal: BadData, where a split is not there or has no rows, or one file should be several.
        """
        wanted = list(dict.fromkeys(names))
        if self.source.files and len(wanted) > 1:
            raise Fatal(
                Reason.BAD_DATA,
                f"{self.source.name}: one file, but the task has the splits {', '.join(wanted)}: use a folder with "
                f"{wanted[0]}.jsonl and the others",
            )
        return {name: self._split(name, folder) for name in wanted}

    def _split(self, name: str, folder: str | None) -> list[Row]:
        rows = self.source.table() if self.source.files else self.source.split(name, FOLDER_COLUMN)
        found = [line.data for line in rows]
        if any(FOLDER_COLUMN in row for row in found):
            found = [dict(row) for row in found if row[FOLDER_COLUMN] == folder]
            for row in found:
                del row[FOLDER_COLUMN]
        if not found:
            raise Fatal(Reason.BAD_DATA, f"{rows.name}: no rows for dataset_name {folder!r}")
        return found


def columns(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Every column that any row has, None where one lacks it: as a table that is read from JSON lines has them."""
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(chain.from_iterable(rows))}


def copy_tasks(work: Assignment, to: Path) -> Path | None:
    """A copy of the user's tasks, or None without any. A file stands for its whole folder, as lm-eval takes folders.

    Left out is what begins with two points: a mounted ConfigMap holds each file three times; and what Python leaves
    behind where it was run.

    Raises:
        Fatal: BadData, when nothing is there or a file cannot be read.
    """
    own = work.planned.dataset.lm_eval
    if own is None or own.include_path is None:
        return None
    path = uris.resolve(own.include_path, work.places)
    folder = path.parent if path.is_file() else path
    try:
        return Path(shutil.copytree(folder, to, ignore=shutil.ignore_patterns("..*", "__pycache__")))
    except OSError as error:
        raise Fatal(
            Reason.BAD_DATA, f"lmEval.includePath: {own.include_path}: cannot be copied: {error}"
        ) from error


def identity(work: Assignment, source: Source | None, tasks: Path | None) -> str:
    """Which documents and tasks these are, without reading rows: a hash of files, a commit, or this EvalJob's uid.

    Documents that a task fetches from a hub itself, and objects of a bucket, may change: results are then never
    shared between EvalJobs.

    Args:
        work: whose uid.
        source: of the documents; None where the task fetches them.
        tasks: the copy that lm-eval reads. Any file there may be one that a task includes.
    """
    parts = [_folder(tasks) if tasks else "", _rows(work, source)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _folder(path: Path) -> str:
    files = [(file.relative_to(path), file) for file in sorted(path.rglob("*")) if file.is_file()]
    return _hash((str(name), _sha256(file)) for name, file in files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rows(work: Assignment, source: Source | None) -> str:
    if source is None or source.name.startswith(S3_SCHEME):
        return work.run.uid
    if source.commit:
        return f"{source.name} {source.commit}"
    names = source.files or [name for name in source.names if name.endswith(SUFFIXES)]
    return _hash((name, file.digest()) for name, file in zip(names, source.fetch(names), strict=True))


def _hash(digests: Iterable[tuple[str, str]]) -> str:
    """SHA-256 over files by name and digest."""
    text = "".join(f"{name}\0{digest}\0" for name, digest in digests)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
