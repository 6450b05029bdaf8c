"""Text that waits compressed: the 20 MiB that a summary of 10,000 cells is made of take less than one."""

import io
import zlib
from collections.abc import Iterator
from typing import Self

_GZIP = 31
"""zlib's number for a gzip archive; its header has no time, so that equal texts are equal bytes."""
_PIECE = 1 << 16
"""Bytes that are there as text at a time."""


class Spool:
    """Texts, one after the other; a file to whoever writes to it."""

    def __init__(self) -> None:
        self._zip = zlib.compressobj(9, wbits=_GZIP)
        self._waiting = io.BytesIO()
        self.size = 0
        """Bytes of the text."""

    def write(self, text: str) -> int:
        """Append; the number of characters."""
        encoded = text.encode()
        self.size += len(encoded)
        self._waiting.write(self._zip.compress(encoded))
        return len(text)

    @property
    def compressed(self) -> int:
        """Bytes of the archive so far, which can only become more."""
        return self._waiting.tell()

    @property
    def archive(self) -> bytes:
        """The text so far as a gzip archive."""
        # A copy: more may be written afterwards.
        return self._waiting.getvalue() + self._zip.copy().flush()

    def pieces(self) -> Iterator[bytes]:
        """The text so far in UTF-8, a piece at a time; a piece may end within a character."""
        engine, rest = zlib.decompressobj(_GZIP), self.archive
        while not engine.eof:
            yield engine.decompress(rest, _PIECE)
            rest = engine.unconsumed_tail


class Text(tuple[Spool, ...]):
    """Several spools as one text; their archives, one after the other, are its archive."""

    __slots__ = ()

    @classmethod
    def of(cls, *parts: str | Spool) -> Self:
        """Of spools, and of texts between them."""
        return cls(map(_spooled, parts))

    @property
    def size(self) -> int:
        """Bytes of the text."""
        return sum(part.size for part in self)

    @property
    def archive(self) -> bytes:
        """It as a gzip archive."""
        return b"".join(part.archive for part in self)

    def __str__(self) -> str:
        """All of it."""
        return b"".join(piece for part in self for piece in part.pieces()).decode()


def _spooled(part: str | Spool) -> Spool:
    if isinstance(part, Spool):
        return part
    made = Spool()
    made.write(part)
    return made
