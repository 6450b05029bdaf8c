"""The summary as text: a table for terminals and Markdown, and CSV for programs."""

import csv
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

from evaljob.spool import Spool, Text
from evaljob.summary import Cell, CellState, Line, Part, Summary

SUMMARY_JSON = "summary.json"
LIMITED_MARK, SUSPECT_MARK = "~", "!"


class Table(NamedTuple):
    """The summary as text: a header, rows of equal length, and a last line."""

    header: list[str]
    rows: list[list[str]]
    footer: str


def table(summary: Summary) -> Table:
    """One row per dataset and group, one column per model, the primary metric in the cells."""
    rows = [row for line in summary.lines for row in _rows(line)]
    return Table(_header(summary), rows, _footer(summary))


def _header(summary: Summary) -> list[str]:
    return ["dataset (metric)", *(m.display_name for m in summary.models)]


def _footer(summary: Summary) -> str:
    footer = f"{summary.state}: {summary.succeeded} of {summary.total} partitions succeeded"
    return footer + (f", {summary.failed} failed" if summary.failed else "")


def _rows(line: Line) -> Iterator[list[str]]:
    """A dataset, and the groups that any of its cells has."""
    dataset, cells = line
    yield [f"{dataset.display_name} ({dataset.primary})", *(_cell_text(c) for c in cells)]
    groups = {(p.name, p.depth): None for c in cells for p in c.parts if p.kind == "group"}
    for name, depth in groups:
        yield ["  " * depth + name, *(_part_text(c, _find(c, name)) for c in cells)]


def _find(cell: Cell, group: str) -> Part | None:
    return next((p for p in cell.parts if p.kind == "group" and p.name == group), None)


def _cell_text(cell: Cell) -> str:
    if cell.state is CellState.EXCLUDED:
        return "excluded"
    if cell.state is CellState.COMPLETE:
        return _part_text(cell, cell.parts[0])
    why = f" ({cell.reason})" if cell.reason else ""
    if cell.state is CellState.PARTIAL:
        return f"partial {cell.shards_done}/{cell.shards}{why}"
    return f"missing{why}" if cell.reason else "pending"


def _part_text(cell: Cell, part: Part | None) -> str:
    if part is None:
        return ""
    score = next(s for s in part.scores if s.primary)
    if score.value is None:
        return f"partial, {part.present} of {part.members}"
    spread = "" if score.low is None or score.high is None else f" ±{(score.high - score.low) / 2:.2f}"
    marks = (LIMITED_MARK if cell.limited else "") + (SUSPECT_MARK if cell.lint else "")
    return f"{score.value:.2f}{spread} ({score.n}/{score.expected}){' ' if marks else ''}{marks}"


def files(summary: Summary) -> dict[str, str]:
    """The summary for programs, for spreadsheets and for people, by file name."""
    made = Files()
    for line in summary.lines:
        made.add(line)
    texts = made.texts(summary.model_copy(update={"cells": ()}))
    return {name: str(text) for name, text in texts.items()}


class Files:
    """The same of a summary that is never there as a whole: as objects, 10,000 cells take 60 MiB."""

    def __init__(self) -> None:
        self._json, self._csv, self._table = Spool(), Spool(), Spool()
        self._writer = csv.DictWriter(self._csv, _CSV_FIELDS, lineterminator="\n")
        self._writer.writeheader()
        self._why = Spool()
        self._marks = Marks()

    def add(self, line: Line) -> None:
        """The next dataset."""
        for cell in line.cells:
            self._json.write(("," if self._json.size else "") + cell.to_json())
            self._writer.writerows(_csv_rows(cell))
            if cell.reason:
                words = f"{cell.reason}: {_markdown(cell.message or '')}"
                self._why.write(f"- {cell.model} / {cell.dataset}: {words}\n")
        for row in _rows(line):
            self._table.write(_markdown_row(row) + "\n")
        self._marks.see(line.cells)

    @property
    def compressed(self) -> int:
        """Bytes that `summary.json` takes at least, compressed."""
        return self._json.compressed

    def texts(self, head: Summary) -> dict[str, Text]:
        """The files, by name.

        Args:
            head: everything but the cells.
        """
        # `cells` is the last field.
        opened = head.to_json().removesuffix("]}")
        return {
            SUMMARY_JSON: Text.of(opened, self._json, "]}"),
            "summary.csv": Text.of(self._csv),
            "summary.md": self._markdown(head),
        }

    def _markdown(self, head: Summary) -> Text:
        """The table, with the marks explained where they occur and every failure's message."""
        header = _header(head)
        opened = f"# {head.name}\n\n{_markdown_row(header)}\n|{' --- |' * len(header)}\n"
        legend = "".join(f"{note}\n" for note in self._marks.legend())
        gap = "\n" if self._why.size or legend else ""
        return Text.of(opened, self._table, f"\n{_footer(head)}\n{gap}", self._why, legend)


_CSV_FIELDS = (
    "model", "dataset", "kind", "name", "metric", "primary", "value", "stderr", "low", "high",
    "n", "expected", "state", "reason", "limited", "lint",
)  # fmt: skip


def _csv_rows(cell: Cell) -> Iterator[dict[str, object]]:
    """One line per model, dataset, part and metric; cells without numbers have one line each.

    Names of subsets come from data and stand as they are: a spreadsheet may take `=...` for a formula.
    """
    if cell.state is CellState.EXCLUDED:
        return
    common = {
        "model": cell.model, "dataset": cell.dataset, "state": cell.state.value, "reason": cell.reason,
        "limited": cell.limited, "lint": " ".join(x.code for x in cell.lint),
    }  # fmt: skip
    if not cell.parts:
        yield {**common, "kind": "dataset", "name": cell.dataset}
    for part in cell.parts:
        for score in part.scores:
            numbers = score.model_dump(exclude={"higher_is_better"})
            # Python's writer leaves a carriage return unquoted, and readers would see two lines.
            name = part.name.replace("\r", " ")
            yield {**common, "kind": part.kind, "name": name, **numbers}


def _markdown_row(texts: Iterable[str]) -> str:
    # Leading blanks would be lost, and a display name may hold anything.
    return "| " + " | ".join(_markdown(t) for t in texts) + " |"


def _markdown(text: str) -> str:
    indent = len(text) - len(text.lstrip())
    flat = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    # "](" begins the address of a link or an image; brackets alone are common in names of models.
    return "&nbsp;" * indent + flat.replace("](", "]\\(")


class Marks:
    """Which marks occur in some cells."""

    def __init__(self) -> None:
        self._limited = False
        self._codes: set[str] = set()

    def see(self, cells: Iterable[Cell]) -> Self:
        """Look at more of them."""
        for cell in cells:
            self._limited |= cell.limited and bool(cell.parts)
            self._codes |= {x.code for x in cell.lint}
        return self

    def legend(self) -> list[str]:
        """What they mean."""
        notes = []
        if self._limited:
            notes.append(f"{LIMITED_MARK} limited: only the first samples of each subset were used")
        if self._codes:
            codes = ", ".join(sorted(self._codes))
            notes.append(f"{SUSPECT_MARK} suspect: {codes}; look at the samples before using the number")
        return notes
