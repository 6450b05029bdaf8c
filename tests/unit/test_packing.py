"""What fits a ConfigMap, and what is done about the rest."""

import base64
import random

import pytest

from evaljob import packing
from evaljob.packing import Packed, SummaryTooLargeError, unpack
from evaljob.spool import Text

FILES = {"summary.json": '{"name": "nightly"}', "summary.csv": "model", "summary.md": "# nightly"}


def pack(files: dict[str, str]) -> Packed:
    return packing.pack({name: Text.of(text) for name, text in files.items()})


def large(text: str) -> dict[str, str]:
    return {**FILES, "summary.json": text}


def test_what_fits_is_there_as_files() -> None:
    assert pack(FILES) == ({**FILES, "format": "Files"}, {})


def test_what_does_not_is_compressed_and_alone() -> None:
    text = "é" * packing.BYTES_MAX
    packed = pack(large(text))
    assert packed.data == {"format": "Gzip"}
    ((name, content),) = packed.binary.items()
    assert name == "summary.json.gz"
    assert unpack(base64.b64decode(content)).decode() == text


def test_the_limit_is_in_bytes_and_over_all_files() -> None:
    rest = sum(map(len, FILES.values())) - len(FILES["summary.json"])
    exact = "x" * (packing.BYTES_MAX - rest)
    assert pack(large(exact)).data["format"] == "Files"
    assert pack(large(f"{exact}x")).data["format"] == "Gzip"
    assert pack(large(exact[:-1] + "é")).data["format"] == "Gzip"


def test_the_same_summary_has_the_same_bytes() -> None:
    """Otherwise each look at it would be a write."""
    files = large("x" * packing.BYTES_MAX)
    assert pack(files) == pack(files)


def test_what_does_not_even_fit_compressed_is_refused_with_the_way_out() -> None:
    noise = random.Random(0).randbytes(packing.BYTES_MAX).hex() * 2  # noqa: S311 - noise
    with pytest.raises(SummaryTooLargeError, match=r"even compressed .* split the EvalJob"):
        pack(large(noise))


def test_plain_bytes_are_taken_as_they_are() -> None:
    assert unpack(b"{}") == b"{}"
