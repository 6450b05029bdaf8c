"""What became of each field of a task."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Fate(StrEnum):
    """What became of a field."""

    CARRIED = "carried"
    DROPPED = "dropped"
    """Without it every score is the same."""
    LOST = "dropped, changes scores"
    ADAPTER = "needs the adapter"
    """Nothing in our language does it: there is no task without lm-eval itself."""


class Row(NamedTuple):
    """One line of the report."""

    field: str
    fate: Fate
    why: str = ""


class Unfit(Exception):  # noqa: N818 - no error: how a conversion says that it has no equal
    """Something of lm-eval that has no equal here; the message says what."""


@dataclass
class Notes:
    """The report while it is written."""

    rows: list[Row] = field(default_factory=list)

    def carried(self, name: str, why: str = "") -> None:
        """It is in our task, and means the same."""
        self.rows.append(Row(name, Fate.CARRIED, why))

    def dropped(self, names: Iterable[str], why: str) -> None:
        """It is not in our task, and changes no score."""
        self.rows += [Row(name, Fate.DROPPED, why) for name in names]

    def lost(self, name: str, why: str) -> None:
        """It is not in our task, or not equally, and changes scores."""
        self.rows.append(Row(name, Fate.LOST, why))

    def adapter(self, name: str, why: str) -> None:
        """It prevents a task of ours."""
        self.rows.append(Row(name, Fate.ADAPTER, why))
