"""Halves of characters: JSON may spell them, UTF-8 has none, so what holds one can be neither logged nor sent."""

import re

_HALF = re.compile("[\ud800-\udfff]")


def half(text: str) -> str | None:
    """The first half of a surrogate pair that stands alone, as JSON spells it."""
    found = _HALF.search(text)
    return f"\\u{ord(found[0]):04x}" if found else None


def replaced(text: str) -> str:
    """The text with U+FFFD in place of each half, as a decoder of bytes would give it."""
    return _HALF.sub("\ufffd", text)
