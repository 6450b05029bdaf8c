"""A summary as a table for people: on a terminal, in a narrow window, in a pipe."""

import os
import sys
from collections.abc import Iterator, Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaljob.summary import Summary
from evaljob.tables import Marks, table
from evaljob_cli.display import printable

LABEL_MAX, HEADER_MAX = 36, 22
"""Longest row label and column header, in terminal cells; longer ones are wrapped."""
PIPE_WIDTH = 100
"""Width of a table that goes to a pipe or a file."""
_GAP = 2


def output() -> Console:
    """Standard output: as wide as the terminal, as COLUMNS says, or fit for a page."""
    fixed = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(width=PIPE_WIDTH if fixed else None)


def show(summary: Summary, console: Console) -> None:
    """Print a summary: as many models side by side as fit, the others below; then failures and marks."""
    shown = table(summary)
    lines = [[printable(text) for text in line] for line in (shown.header, *shown.rows)]
    for columns in _blocks(lines, console.width):
        _print(console, _grid(lines, columns, plain=not console.is_terminal))
        _print(console, Text())
    _print(console, Text(shown.footer))
    for cell in summary.cells:
        if cell.reason:
            why = f"{cell.model} / {cell.dataset}: {cell.reason}: {cell.message or ''}"
            _print(console, Text(printable(why)))
    for note in Marks().see(summary.cells).legend():
        _print(console, Text(note))


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], console: Console) -> None:
    """Print short texts in columns, as kubectl does: lines are never broken, so that they can be copied."""
    lines = [header, *rows]
    widths = [max(cell_len(line[c]) for line in lines) for c in range(len(header))]
    for line in lines:
        padded = "  ".join(text + " " * (w - cell_len(text)) for text, w in zip(line, widths, strict=True))
        console.print(Text(padded.rstrip()), soft_wrap=True)


def _print(console: Console, what: Table | Text) -> None:
    """Print without markup; in a pipe without blanks at the ends of lines."""
    if console.is_terminal:
        console.print(what)
        return
    with console.capture() as capture:
        console.print(what, soft_wrap=isinstance(what, Text))
    for line in capture.get().splitlines():
        console.out(line.rstrip(), highlight=False)


def _width(lines: Sequence[Sequence[str]], column: int) -> int:
    """The width of a column: its widest cell, and as much of the header as is fair."""
    header, *cells = (cell_len(line[column]) for line in lines)
    widest = max(cells, default=0)
    return min(max(widest, header), LABEL_MAX) if column == 0 else max(widest, min(header, HEADER_MAX))


def _blocks(lines: Sequence[Sequence[str]], width: int) -> Iterator[list[int]]:
    """The columns of each partial table, at least one, so that the row labels and these fit the width."""
    label = _width(lines, 0)
    block: list[int] = []
    used = label
    for column in range(1, len(lines[0])):
        need = _width(lines, column) + _GAP
        if block and used + need > width:
            yield block
            block, used = [], label
        block.append(column)
        used += need
    yield block


def _grid(lines: Sequence[Sequence[str]], columns: Sequence[int], *, plain: bool) -> Table:
    header, *rows = lines
    gap = _GAP if plain else _GAP - 1  # the box adds one
    made = Table(
        box=None if plain else box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0)
    )
    for column in (0, *columns):
        made.add_column(
            Text(header[column], "bold"), width=_width(lines, column), vertical="bottom", overflow="fold"
        )
    for row in rows:
        made.add_row(*(Text(row[c], _style(row[c])) for c in (0, *columns)))
    return made


def _style(text: str) -> str:
    """What needs a look stands out."""
    if text.startswith("missing"):
        return "red"
    if text.startswith("partial") or text.endswith("!"):
        return "yellow"
    return "dim" if text in ("excluded", "pending") else ""
