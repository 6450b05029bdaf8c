"""The summary as text: a table for terminals and Markdown, and CSV for programs."""

import csv
import io
from collections.abc import Iterable
from typing import NamedTuple

from evaljob.summary import Cell, CellState, Part, Summary

SUMMARY_JSON = "summary.json"
LIMITED_MARK, SUSPECT_MARK = "~", "!"


class Table(NamedTuple):
    """The summary as text: a header, rows of equal length, and a last line."""

    header: list[str]
    rows: list[list[str]]
    footer: str


def table(summary: Summary) -> Table:
    """One row per dataset and group, one column per model, the primary metric in the cells."""
    cells = {(c.dataset, c.model): c for c in summary.cells}
    rows = []
    for dataset in summary.datasets:
        line = [cells[dataset.name, m.name] for m in summary.models]
        rows.append([f"{dataset.display_name} ({dataset.primary})", *(_cell_text(c) for c in line)])
        groups = {(p.name, p.depth): None for c in line for p in c.parts if p.kind == "group"}
        rows += [
            ["  " * depth + name, *(_part_text(c, _find(c, name)) for c in line)] for name, depth in groups
        ]
    footer = f"{summary.state}: {summary.succeeded} of {summary.total} partitions succeeded"
    footer += f", {summary.failed} failed" if summary.failed else ""
    return Table(["dataset (metric)", *(m.display_name for m in summary.models)], rows, footer)


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
    return {
        SUMMARY_JSON: summary.model_dump_json(by_alias=True, exclude_none=True),
        "summary.csv": to_csv(summary),
        "summary.md": to_markdown(summary),
    }


_CSV_FIELDS = (
    "model", "dataset", "kind", "name", "metric", "primary", "value", "stderr", "low", "high",
    "n", "expected", "state", "reason", "limited", "lint",
)  # fmt: skip


def to_csv(summary: Summary) -> str:
    """One line per model, dataset, part and metric; cells without numbers have one line each.

    Names of subsets come from data and stand as they are: a spreadsheet may take `=...` for a formula.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, _CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for cell in summary.cells:
        if cell.state is CellState.EXCLUDED:
            continue
        common = {
            "model": cell.model, "dataset": cell.dataset, "state": cell.state.value, "reason": cell.reason,
            "limited": cell.limited, "lint": " ".join(x.code for x in cell.lint),
        }  # fmt: skip
        if not cell.parts:
            writer.writerow({**common, "kind": "dataset", "name": cell.dataset})
        for part in cell.parts:
            for score in part.scores:
                numbers = score.model_dump(exclude={"higher_is_better"})
                # Python's writer leaves a carriage return unquoted, and readers would see two lines.
                name = part.name.replace("\r", " ")
                writer.writerow({**common, "kind": part.kind, "name": name, **numbers})
    return out.getvalue()


def to_markdown(summary: Summary) -> str:
    """The table as Markdown, with the marks explained where they occur and every failure's message."""
    shown = table(summary)

    def line(texts: Iterable[str]) -> str:
        # Leading blanks would be lost, and a display name may hold anything.
        return "| " + " | ".join(_markdown(t) for t in texts) + " |"

    rule = "|" + " --- |" * len(shown.header)
    notes = legend(summary)
    body = [line(shown.header), rule, *(line(r) for r in shown.rows)]
    why = [
        f"- {c.model} / {c.dataset}: {c.reason}: {_markdown(c.message or '')}"
        for c in summary.cells
        if c.reason
    ]
    return "\n".join([f"# {summary.name}", "", *body, "", shown.footer, "", *why, *notes]).rstrip() + "\n"


def _markdown(text: str) -> str:
    indent = len(text) - len(text.lstrip())
    flat = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    # "](" begins the address of a link or an image; brackets alone are common in names of models.
    return "&nbsp;" * indent + flat.replace("](", "]\\(")


def legend(summary: Summary) -> list[str]:
    """What the marks that occur in the table mean."""
    notes = []
    if any(c.limited and c.parts for c in summary.cells):
        notes.append(f"{LIMITED_MARK} limited: only the first samples of each subset were used")
    codes = sorted({x.code for c in summary.cells for x in c.lint})
    if codes:
        notes.append(
            f"{SUSPECT_MARK} suspect: {', '.join(codes)}; look at the samples before using the number"
        )
    return notes
