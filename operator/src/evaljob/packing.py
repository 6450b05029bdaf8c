"""The summary's files -> the data of its ConfigMap, and back.

A ConfigMap holds 1 MiB. Beyond that `summary.json` travels compressed and alone: it is what the other two files are
made of, and 10,000 partitions take about a tenth of their size.
"""

import base64
import gzip
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from evaljob.spool import Text
from evaljob.tables import SUMMARY_JSON

BYTES_MAX = 900 * 1024
"""The rest of a ConfigMap's 1 MiB is for its metadata."""
FORMAT_KEY = "format"
GZIP_KEY = f"{SUMMARY_JSON}.gz"
_GZIP_MAGIC = b"\x1f\x8b"


class Format(StrEnum):
    """What a summary's ConfigMap holds; its key `format` says which."""

    FILES = "Files"
    GZIP = "Gzip"


class SummaryTooLargeError(Exception):
    """Not even the compressed summary fits a ConfigMap."""


class Packed(NamedTuple):
    """`data` and `binaryData` of a ConfigMap, as the API takes them."""

    data: dict[str, str]
    binary: dict[str, str]


def pack(files: Mapping[str, Text]) -> Packed:
    """The data of the summary's ConfigMap.

    Raises:
        SummaryTooLargeError: beyond 900 KiB even compressed.
    """
    if sum(text.size for text in files.values()) <= BYTES_MAX:
        return Packed({**{name: str(text) for name, text in files.items()}, FORMAT_KEY: Format.FILES}, {})
    small = files[SUMMARY_JSON].archive
    require_room(len(small))
    return Packed({FORMAT_KEY: Format.GZIP}, {GZIP_KEY: base64.b64encode(small).decode()})


def require_room(compressed: int) -> None:
    """Look whether a compressed summary fits, or the part of it that is there so far.

    Raises:
        SummaryTooLargeError: it does not.
    """
    if compressed > BYTES_MAX:
        raise SummaryTooLargeError(
            f"even compressed the summary is larger than the {BYTES_MAX} bytes that a ConfigMap holds: "
            "split the EvalJob; its Jobs keep their results"
        )


def unpack(content: bytes) -> bytes:
    """A summary.json from the bytes of `summary.json` or of `summary.json.gz`.

    Raises:
        OSError, EOFError, zlib.error: for a damaged archive.
    """
    return gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content
