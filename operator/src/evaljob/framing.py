"""A report as text, in at most 4,096 bytes: what the runner writes to the termination message.

The operator copies it, byte for byte, into one annotation of the Job. Framing: `evaljob/1 <kind> <length> <crc32>
<payload>`. The kubelet keeps only the last 4,096 bytes of a message and users can edit annotations: a cut loses the
head, an edit breaks the CRC, both say so.
"""

import base64
import json
import re
import zlib
from typing import NamedTuple

from pydantic import ValidationError

from evaljob import soundness
from evaljob.model import Frozen
from evaljob.result import Failure, PartitionResult

ENCODED_MAX = 4096
"""Bytes of a container's termination message (kubelet)."""
PLAIN_MAX = 1500
"""Up to here the payload stays plain JSON, so that `kubectl describe` can be read."""
DECODED_MAX = 64 * 1024
"""Bytes of a payload, decompressed, that readers take."""
_FRAME = re.compile(
    r"evaljob/1 (?P<kind>[jzf]) (?P<length>\d{1,6}) (?P<crc>[0-9a-f]{8}) (?P<payload>.*)", re.DOTALL
)


class InvalidResultError(Exception):
    """A text that is not an intact, valid report. The message holds its escaped head."""


class TooLargeError(Exception):
    """A report that does not fit its channel, or that no reader takes."""


class Size(NamedTuple):
    """Bytes of a result."""

    framed: int
    """As text for the channel."""
    plain: int
    """As JSON."""

    @property
    def problem(self) -> str | None:
        """Which limit it exceeds, by how much; None where it fits."""
        if self.framed > ENCODED_MAX:
            return f"{self.framed} bytes, its channel holds {ENCODED_MAX}"
        # What repeats itself is small when compressed, and readers refuse it all the same.
        if self.plain > DECODED_MAX:
            return f"{self.plain} bytes as JSON, its readers take {DECODED_MAX}"
        return None


def encode(report: PartitionResult | Failure) -> str:
    """The text for the termination message.

    Raises:
        TooLargeError: above 4,096 bytes, or 64 KiB as JSON; for a Failure this cannot happen.
    """
    if isinstance(report, Failure):
        return _frame("f", _ascii_json(report))
    text = _ascii_json(report)
    if len(text) <= PLAIN_MAX:
        return _frame("j", text)
    framed = _compressed(text)
    if problem := Size(len(framed), len(text)).problem:
        raise TooLargeError(
            f"the result of {len(report.subsets)} subsets x {len(report.metrics)} metrics takes {problem}: "
            "use fewer subsets, metrics or labels per dataset"
        )
    return framed


def size(result: PartitionResult) -> Size:
    """How large a result is, framed as small as it can be."""
    text = _ascii_json(result)
    return Size(len(_compressed(text)), len(text))


def _compressed(text: str) -> str:
    return _frame("z", base64.b85encode(zlib.compress(text.encode(), 9)).decode())


def _ascii_json(report: Frozen) -> str:
    return json.dumps(
        report.model_dump(mode="json", by_alias=True, exclude_defaults=True), separators=(",", ":")
    )


def _frame(kind: str, payload: str) -> str:
    return f"evaljob/1 {kind} {len(payload)} {zlib.crc32(payload.encode()):08x} {payload}"


def decode(text: str) -> PartitionResult | Failure:
    """Read a report. Total: every other text raises InvalidResultError, whatever it holds."""
    found = _FRAME.fullmatch(text.strip())
    if not found:
        raise InvalidResultError(f"not a report, or its head was cut: {_head(text)}")
    payload = found["payload"]
    if len(payload) > DECODED_MAX:
        raise InvalidResultError(f"more than {DECODED_MAX} bytes: {_head(text)}")
    if (
        len(payload) != int(found["length"])
        or f"{zlib.crc32(payload.encode(errors='replace')):08x}" != found["crc"]
    ):
        raise InvalidResultError(f"length or checksum differ, the text was cut or edited: {_head(text)}")
    body = _inflate(payload) if found["kind"] == "z" else payload
    kind = Failure if found["kind"] == "f" else PartitionResult
    try:
        report = kind.model_validate_json(body)
    except (ValidationError, RecursionError) as error:
        raise InvalidResultError(f"not a valid {kind.__name__}: {_head(body)}") from error
    if isinstance(report, PartitionResult) and (why := soundness.problem(report)):
        raise InvalidResultError(why)
    return report


def _inflate(payload: str) -> bytes:
    """Decompress at most DECODED_MAX bytes: a bomb stops there."""
    try:
        engine = zlib.decompressobj()
        body = engine.decompress(base64.b85decode(payload), DECODED_MAX)
    except (ValueError, zlib.error) as error:
        raise InvalidResultError(f"not decompressible: {_head(payload)}") from error
    if not engine.eof:
        raise InvalidResultError(f"more than {DECODED_MAX} bytes: {_head(payload)}")
    return body


def _head(text: str | bytes) -> str:
    """The first 200 characters, escaped: shown in status, so nothing in it may act."""
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    return ascii(text[:200])
