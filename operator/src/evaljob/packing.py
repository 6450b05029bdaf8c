"""The summary's files -> the data of its ConfigMap, and back.

A ConfigMap holds 1 MiB. Beyond that `summary.json` travels compressed and alone: it is what the other two files are
made of, and 10,000 partitions take about a tenth of their size.
"""

import base64
import gzip
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

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


def pack(files: Mapping[str, str]) -> Packed:
    """The data of the summary's ConfigMap.

    Raises:
        SummaryTooLargeError: beyond 900 KiB even compressed.
    """
    size = sum(len(text.encode()) for text in files.values())
    if size <= BYTES_MAX:
        return Packed({**files, FORMAT_KEY: Format.FILES}, {})
    # Without a time, so that the same summary has the same bytes and is not written again.
    small = gzip.compress(files[SUMMARY_JSON].encode(), mtime=0)
    if len(small) > BYTES_MAX:
        raise SummaryTooLargeError(
            f"the summary has {size} bytes, compressed {len(small)}, a ConfigMap holds {BYTES_MAX}: "
            "split the EvalJob; its Jobs keep their results"
        )
    return Packed({FORMAT_KEY: Format.GZIP}, {GZIP_KEY: base64.b64encode(small).decode()})


def unpack(content: bytes) -> bytes:
    """A summary.json from the bytes of `summary.json` or of `summary.json.gz`.

    Raises:
        OSError, EOFError, zlib.error: for a damaged archive.
    """
    return gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content
