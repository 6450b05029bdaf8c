"""Many small things in little memory: a shard may have a million samples, and an object takes 50 to 500 bytes."""

from array import array
from collections.abc import Hashable, Mapping, Sequence
from hashlib import blake2b
from typing import Generic, TypeVar

_DIGEST = 16
_T = TypeVar("_T", bound=Hashable)


class Names:
    """Numbers different names, 0, 1, 2 ... as they come: 22 to 32 bytes for each, however long they are.

    A table with open addressing over 16 bytes of BLAKE2b. A dict of names takes 200 bytes for each.
    """

    def __init__(self) -> None:
        self._digests = bytearray()
        self._slots = array("I", bytes(4 * 8))
        """A number + 1; 0 is free. A power of two of them, at least a third is free."""

    def __len__(self) -> int:
        return len(self._digests) // _DIGEST

    def number(self, name: str) -> int | None:
        """The number of a name; None if it has none."""
        found = self._slots[self._slot(_digest(name))]
        return found - 1 if found else None

    def add(self, name: str) -> int:
        """The number of a name; a new one gets the next."""
        digest = _digest(name)
        slot = self._slot(digest)
        if self._slots[slot]:
            return self._slots[slot] - 1
        self._digests += digest
        self._slots[slot] = len(self)
        if 3 * len(self) > 2 * len(self._slots):
            self._grow()
        return len(self) - 1

    def _slot(self, digest: bytes) -> int:
        """Where a digest stands or, as it is new, belongs."""
        slots, digests = self._slots, self._digests
        last = len(slots) - 1
        slot = int.from_bytes(digest[:8]) & last
        while (number := slots[slot]) and digests[(number - 1) * _DIGEST : number * _DIGEST] != digest:
            slot = (slot + 1) & last
        return slot

    def _grow(self) -> None:
        self._slots = array("I", bytes(2 * len(self._slots) * self._slots.itemsize))
        for number in range(len(self)):
            digest = bytes(self._digests[number * _DIGEST : (number + 1) * _DIGEST])
            self._slots[self._slot(digest)] = number + 1


def _digest(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=_DIGEST).digest()


class Texts:
    """A column of texts that are all different: their UTF-8 and 8 bytes."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._ends = array("Q")

    def append(self, text: str) -> None:
        """One more."""
        self._data += text.encode()
        self._ends.append(len(self._data))

    def __getitem__(self, row: int) -> str:
        return self._data[self._ends[row - 1] if row else 0 : self._ends[row]].decode()


class Labels(Generic[_T]):
    """A column of few different values: 4 bytes."""

    def __init__(self) -> None:
        self._numbers: dict[_T, int] = {}
        self._labels: list[_T] = []
        self._rows = array("I")

    def append(self, label: _T) -> None:
        """One more."""
        number = self._numbers.setdefault(label, len(self._labels))
        if number == len(self._labels):
            self._labels.append(label)
        self._rows.append(number)

    def __getitem__(self, row: int) -> _T:
        return self._labels[self._rows[row]]

    def rows(self) -> Mapping[_T, Sequence[int]]:
        """The rows of each value, both in the order of their coming."""
        found = {label: array("I") for label in self._labels}
        by_number = list(found.values())
        for row, number in enumerate(self._rows):
            by_number[number].append(row)
        return found
