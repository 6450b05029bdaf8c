"""The summary's files -> the data of its ConfigMap, and back.

A ConfigMap holds 1 MiB. Beyond that `summary.json` travels compressed and alone: it is what the other two files are
made of, and 10,000 partitions take about a tenth of their size.
"""

import base64
import gzip
import io
from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from evaljob.tables import SUMMARY_JSON

BYTES_MAX = 900 * 1024
"""The rest of a ConfigMap's 1 MiB is for its metadata."""
FORMAT_KEY = "format"
GZIP_KEY = f"{SUMMARY_JSON}.gz"
_PIECE = 1 << 16
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
    size = sum(map(_size, files.values()))
    if size <= BYTES_MAX:
        return Packed({**files, FORMAT_KEY: Format.FILES}, {})
    small = _compressed(files[SUMMARY_JSON])
    if len(small) > BYTES_MAX:
        raise SummaryTooLargeError(
            f"the summary has {size} bytes, compressed {len(small)}, a ConfigMap holds {BYTES_MAX}: "
            "split the EvalJob; its Jobs keep their results"
        )
    return Packed({FORMAT_KEY: Format.GZIP}, {GZIP_KEY: base64.b64encode(small).decode()})


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _compressed(text: str) -> bytes:
    """By pieces: encoded as a whole it would be there twice.

    Without a time, so that the same summary has the same bytes and is not written again.
    """
    out = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=out, mode="wb", mtime=0) as archive:
        for start in range(0, len(text), _PIECE):
            archive.write(text[start : start + _PIECE].encode())
    return out.getvalue()


def unpack(content: bytes) -> bytes:
    """A summary.json from the bytes of `summary.json` or of `summary.json.gz`.

    Raises:
        OSError, EOFError, zlib.error: for a damaged archive.
    """
    return gzip.decompress(content) if content.startswith(_GZIP_MAGIC) else content
