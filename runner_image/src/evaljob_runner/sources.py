"""URIs -> files, and JSON lines -> rows, one line at a time."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from evaljob.names import Reason
from evaljob_runner.assignment import Places
from evaljob_runner.errors import Fatal

Row = dict[str, Any]


def resolve(uri: str, places: Places, missing: Reason = Reason.BAD_DATA) -> Path:
    """The existing file or folder that a URI names.

    Args:
        uri: `pvc://<claim>/<path>` or `configmap://<name>/<key>`.
        places: where they are mounted.
        missing: the reason to give when nothing is there.

    Raises:
        Fatal: when the mount is not given, the path leaves it, or nothing is there.
    """
    root, path = mount(uri, places)
    found = inside(root, root / path, uri)
    if not found.exists():
        raise Fatal(missing, f"{uri}: nothing is there")
    return found


def mount(uri: str, places: Places) -> tuple[Path, str]:
    """The folder where a URI's claim or ConfigMap is mounted, and the path in it.

    Raises:
        Fatal: BadConfiguration, when the command line does not say where.
    """
    scheme, _, rest = uri.partition("://")
    name, _, path = rest.partition("/")
    known, option = (places.claims, "--mount") if scheme == "pvc" else (places.config_maps, "--config-map")
    if name not in known:
        raise Fatal(Reason.BAD_CONFIGURATION, f"{uri}: give {option} {name}=DIR, it says where {name!r} is")
    return known[name], path


def inside(root: Path, path: Path, name: str) -> Path:
    """The path with symbolic links followed.

    Raises:
        Fatal: BadConfiguration, when it leads out of `root`: a claim must not read the node or the pod.
    """
    real = path.resolve()
    if not real.is_relative_to(root.resolve()):
        raise Fatal(Reason.BAD_CONFIGURATION, f"{name}: leads out of its volume")
    return real


@dataclass(frozen=True)
class File:
    """A file of JSON lines, or such lines from the EvalJob itself."""

    name: str
    """In messages and nowhere else."""
    path: Path | None = None
    inline: str = ""

    def open(self) -> io.BufferedIOBase:
        """Its bytes.

        Raises:
            Fatal: BadData, when it cannot be opened.
        """
        if self.path is None:
            return io.BytesIO(self.inline.encode())
        try:
            return self.path.open("rb")
        except OSError as error:
            raise Fatal(Reason.BAD_DATA, f"{self.name}: {error.strerror}") from error

    def digest(self) -> str:
        """SHA-256 of its bytes, in hexadecimal."""
        with self.open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def rows(self) -> Iterator["Line"]:
        """All rows in order; empty lines are skipped.

        Raises:
            Fatal: BadData, with the number of the first line that is not a JSON object.
        """
        with self.open() as file:
            offset, row = 0, 0
            for number, raw in enumerate(file, start=1):
                if raw.strip():
                    yield Line(row, number, offset, _decode(raw, f"{self.name} line {number}"))
                    row += 1
                offset += len(raw)

    def read(self, lines: list[tuple[int, int]]) -> Iterator[Row]:
        """The rows at some (offset, line number), in that order."""
        with self.open() as file:
            for offset, number in lines:
                file.seek(offset)
                yield _decode(file.readline(), f"{self.name} line {number}")


@dataclass(frozen=True)
class Line:
    """One row and where it stands."""

    row: int
    """From 0, empty lines not counted."""
    number: int
    """From 1, as editors count."""
    offset: int
    data: Row


def _decode(raw: bytes, where: str) -> Row:
    try:
        data = json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Fatal(Reason.BAD_DATA, f"{where}: not JSON: {str(error)[:200]}") from error
    if not isinstance(data, dict):
        raise Fatal(Reason.BAD_DATA, f"{where}: must be a JSON object, got {type(data).__name__}")
    return data


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def open_source(uri: str | None, inline: str | None, places: Places) -> File | Mapping[str, File]:
    """A dataset's source: one file, or the files of a folder by split.

    Raises:
        Fatal: as `resolve`.
    """
    if uri is None:
        return File("inline.jsonl", inline=inline or "")
    path = resolve(uri, places)
    if path.is_file():
        return File(uri, path)
    root, _ = mount(uri, places)
    found = sorted(path.glob("*.jsonl"))
    return {f.stem: File(f"{uri}/{f.name}", inside(root, f, f"{uri}/{f.name}")) for f in found}
