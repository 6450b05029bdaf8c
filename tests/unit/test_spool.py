"""Text that waits compressed is the same text."""

import gzip
import random

from hypothesis import given
from hypothesis import strategies as st

from evaljob.spool import Spool, Text


@given(st.lists(st.text()))
def test_it_is_what_was_written(texts: list[str]) -> None:
    spool = Spool()
    for text in texts:
        assert spool.write(text) == len(text)
    whole = "".join(texts)
    assert str(Text.of(spool)) == whole
    assert spool.size == len(whole.encode())


def test_more_may_be_written_after_a_look() -> None:
    spool = Spool()
    spool.write("one ")
    assert gzip.decompress(spool.archive) == b"one "
    spool.write("two")
    assert gzip.decompress(spool.archive) == b"one two"


def test_several_are_one_text_and_one_archive() -> None:
    text = Text.of("é" * 500_000, Spool(), "!")
    assert str(text) == "é" * 500_000 + "!"
    assert text.size == 1_000_001
    assert gzip.decompress(text.archive).decode() == str(text)
    assert text.archive == Text.of("é" * 500_000, Spool(), "!").archive


def test_it_comes_in_bounded_pieces() -> None:
    (spool,) = Text.of("ä" * 500_000)
    pieces = list(spool.pieces())
    assert max(map(len, pieces)) <= 1 << 16
    assert b"".join(pieces).decode() == "ä" * 500_000


def test_what_is_there_is_part_of_the_archive() -> None:
    """Whoever sees that this is too large need not go on."""
    spool = Spool()
    spool.write(random.Random(0).randbytes(200_000).hex())  # noqa: S311 - noise
    assert 100_000 < spool.compressed <= len(spool.archive)
