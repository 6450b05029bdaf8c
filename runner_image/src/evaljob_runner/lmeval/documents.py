"""Where a task's documents come from when the dataset names a source: our rows, split by split."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from evaljob.fields import HUB_SCHEME
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


def identity(work: Assignment, source: Source | None) -> str:
    """Which documents and tasks these are, without reading rows: a hash of files, a commit, or this EvalJob's uid.

    Documents that a task fetches from a hub itself, and objects of a bucket, may change: results are then never
    shared between EvalJobs.
    """
    own = work.planned.dataset.lm_eval
    include = own.include_path if own else None
    parts = [_files(include, work) if include else ""]
    uri = work.planned.dataset.source
    if source is None or uri is None:
        parts.append(work.run.uid)
    elif uri.startswith(HUB_SCHEME):
        parts.append(f"{uri} {source.commit}")
    else:
        parts.append(_files(uri, work) if "s3://" not in uri else work.run.uid)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _files(uri: str, work: Assignment) -> str:
    """SHA-256 over the files that a URI names, tasks or data."""
    path = uris.resolve(uri, work.places)
    found = hashlib.sha256()
    for file in files(path):
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        found.update(f"{file.relative_to(path.parent)}\0{digest}\0".encode())
    return found.hexdigest()


def files(path: Path) -> list[Path]:
    """A file, or the tasks and data of a folder; not the hidden copies that a mounted ConfigMap has."""
    if path.is_file():
        return [path]
    wanted = (*SUFFIXES, ".yaml", ".yml", ".py", ".json")
    inner = sorted(path.rglob("*"))
    return [f for f in inner if f.is_file() and f.suffix in wanted and not _hidden(f.relative_to(path))]


def _hidden(path: Path) -> bool:
    return any(part.startswith("..") for part in path.parts)
