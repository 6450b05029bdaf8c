"""The summary of an EvalJob: what a team reads. `merge` makes it, `tables` prints it.

What is missing says why; nothing partial looks whole.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Literal, NamedTuple

from evaljob.model import Frozen
from evaljob.result import Lint, Outcomes, Seconds, Tokens

SUMMARY_VERSION = 1


class CellState(StrEnum):
    """Whether a cell's numbers cover all its samples."""

    COMPLETE = "Complete"
    PARTIAL = "Partial"
    MISSING = "Missing"
    EXCLUDED = "Excluded"


class Score(Frozen):
    """One metric over one part of a dataset. `value` is None where the part is incomplete."""

    metric: str
    primary: bool = False
    higher_is_better: bool = True
    value: float | None = None
    stderr: float | None = None
    low: float | None = None
    high: float | None = None
    """95 % interval."""
    n: int = 0
    expected: int = 0


class Part(Frozen):
    """The whole dataset, a group or a subset, with its scores."""

    kind: Literal["dataset", "group", "subset"]
    name: str
    depth: int = 0
    """How far its row is indented: 1 for a group, 2 for a group inside a group."""
    size: int = 0
    """Samples before `limit`."""
    present: int = 1
    members: int = 1
    """A group has a value only when all its members are present."""
    scores: tuple[Score, ...]


class Cell(Frozen):
    """One model on one dataset, all shards."""

    model: str
    dataset: str
    state: CellState
    reason: str | None = None
    message: str | None = None
    shards: int
    shards_done: int
    limited: bool = False
    lint: tuple[Lint, ...] = ()
    outcomes: Outcomes | None = None
    inference_digest: str | None = None
    parts: tuple[Part, ...] = ()
    tokens: Tokens | None = None
    seconds: Seconds | None = None
    """Summed over the shards' last attempts."""
    device: str | None = None
    provenance: dict[str, str] | None = None


class Column(Frozen):
    """A model of the table."""

    name: str
    display_name: str


class Row(Frozen):
    """A dataset of the table."""

    name: str
    display_name: str
    task: str
    task_version: int | None = None
    """None for a task of lm-eval."""
    primary: str


class Line(NamedTuple):
    """One dataset on all models."""

    dataset: Row
    cells: tuple[Cell, ...]


class Summary(Frozen):
    """All cells of an EvalJob, dataset by dataset, in the order of its models."""

    v: int = SUMMARY_VERSION
    name: str
    uid: str
    state: str
    succeeded: int
    failed: int
    total: int
    models: tuple[Column, ...]
    datasets: tuple[Row, ...]
    cells: tuple[Cell, ...]

    @property
    def lines(self) -> Iterator[Line]:
        """The cells by dataset."""
        width = len(self.models)
        for i, dataset in enumerate(self.datasets):
            yield Line(dataset, self.cells[i * width : (i + 1) * width])
