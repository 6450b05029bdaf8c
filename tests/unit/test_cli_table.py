"""The table that people read: what it says, at any width, on a terminal and in a pipe."""

import dataclasses
import datetime as dt
import io
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from evaljob.merge import summarize
from evaljob.plan import Partition, Plan
from evaljob.planning import Settings, make_plan
from evaljob.result import Failure, Lint, MetricInfo, Outcomes, PartitionResult, SubsetResult
from evaljob.spec import parse_evaljob
from evaljob.stats import Stat
from evaljob.summary import Summary
from evaljob_cli import table
from evaljob_cli.display import printable

NAMES = {
    "qwen": "[basene][chat-128k] Qwen2-72B-Instruct",
    "zh": "通义千问二点五七十二亿参数指令微调版本四位量化",
    "emoji": "🦙🔥 llama-of-the-month 👩‍🔬",
    "plain": "smol",
}
TASK = {
    "requestType": "LogLikelihood",
    "subsets": {"column": "s"},
    "prompt": "{{ q }}",
    "choices": {"values": ["A", "B"]},
    "target": "{{ a }}",
    "metrics": [{"name": "acc", "primary": True}],
    "groups": [{"name": "inner", "members": ["a"]}, {"name": "all", "members": ["inner", "b"]}],
}


def plan() -> Plan:
    def model(name: str) -> dict[str, Any]:
        source = {"source": "pvc://m/x", "dtype": "float32"}
        return {"name": name, "displayName": NAMES[name], "promptFormat": "Text", "transformers": source}

    def dataset(name: str, shards: int, **more: object) -> dict[str, Any]:
        return {"name": name, "taskSpec": TASK, "inline": {"jsonl": "{}"}, "shards": shards, **more}

    spec = {
        "models": [model(name) for name in NAMES],
        "datasets": [dataset("sums", 1, displayName="算术题"), dataset("words", 2, limit=5)],
        "exclude": [{"model": "plain", "dataset": "words"}],
    }
    document = {
        "apiVersion": "evaljob.dev/v1alpha1",
        "kind": "EvalJob",
        "metadata": {"name": "t"},
        "spec": spec,
    }
    return make_plan(parse_evaljob(document), {}, Settings(), dt.date(2025, 1, 1))


def result(partition: Partition) -> PartitionResult:
    def subset(name: str, n: int, right: int) -> SubsetResult:
        return SubsetResult(name=name, size=40, expected=n, stats=(Stat(n, right, right),))

    return PartitionResult(
        **dataclasses.asdict(partition),
        attempt="1",
        inference_digest="i",
        prompt_digest="p",
        outcomes=Outcomes(expected=32, completed=32, answered=32),
        metrics=(MetricInfo(key="acc", primary=True),),
        subsets=(subset("a", 20, 15), subset("b", 12, 3)),
        lint=(Lint(code="EmptyAnswers", count=3),) if partition.model == "emoji" else (),
        limited=partition.dataset == "words",
        device="cpu",
    )


def summary() -> Summary:
    made = plan()
    outcomes = {p: result(p) for p in made.partitions}
    broken = {
        Partition(model="zh", dataset="sums", shard=0, shards=1): Failure(
            reason="OOMKilled", message="4Gi\x1b[31m"
        ),
        Partition(model="zh", dataset="words", shard=1, shards=2): Failure(
            reason="BadData", message="line 3"
        ),
    }
    return summarize(made, {**outcomes, **broken}, state="Failed")


def shown(width: int, *, terminal: bool = False) -> list[str]:
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=terminal, color_system="standard" if terminal else None
    )
    table.show(summary(), console)
    return out.getvalue().splitlines()


def test_a_row_per_dataset_and_group_a_column_per_model_and_the_state_at_the_end() -> None:
    lines = shown(200)
    assert [line.split("  ")[0] for line in lines if line.startswith(("算术题", "words"))] == [
        "算术题 (acc)",
        "words (acc)",
    ]
    assert any(line.startswith("  all  ") for line in lines)
    assert any(line.startswith("    inner  ") for line in lines)
    assert "Failed: 8 of 10 partitions succeeded, 2 failed" in lines


@pytest.mark.parametrize(
    "cell",
    [
        "0.56 ±0.16 (32/32)",
        "missing (OOMKilled)",
        "partial 1/2 (BadData)",
        "excluded",
        "(64/64) ~",
        "(32/32) !",
    ],
)
def test_each_kind_of_cell_reads_as_designed(cell: str) -> None:
    assert cell in "\n".join(shown(200))


def test_failures_and_marks_are_explained_below() -> None:
    text = "\n".join(shown(200))
    assert "zh / sums: OOMKilled: 4Gi" in text
    assert "zh / words: BadData: line 3" in text
    assert "~ limited" in text
    assert "! suspect: EmptyAnswers" in text


@pytest.mark.parametrize("width", [60, 80, 100, 120])
@pytest.mark.parametrize("terminal", [True, False])
def test_no_line_of_the_table_is_wider_than_the_window(width: int, terminal: bool) -> None:
    """Models that do not fit side by side follow below, with the row labels again."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None)
    table.show(summary(), console)
    rows = out.getvalue().split("Failed: ")[0].splitlines()
    assert max(cell_len(row) for row in rows) <= width
    assert sum(row.startswith("words (acc)") for row in rows) == {60: 3, 80: 2, 100: 2, 120: 1}[width]


@pytest.mark.parametrize("name", NAMES)
def test_a_long_display_name_is_wrapped_and_complete(name: str) -> None:
    """Brackets are no markup; characters that take two cells count as two, so the cells below stay in line."""
    one = summary()
    column = tuple(m for m in one.models if m.name == name)
    out = io.StringIO()
    table.show(one.model_copy(update={"models": column}), Console(file=out, width=60))
    lines = out.getvalue().splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if line.startswith("算术题"))]
    assert "".join("".join(header).replace("dataset (metric)", "").split()) == NAMES[name].replace(" ", "")


def test_in_a_pipe_there_are_no_colours_no_lines_and_no_blanks_at_the_end() -> None:
    text = "\n".join(shown(100))
    assert "\x1b" not in text
    assert not set("─━│┃┏┓|+") & set(text)
    assert all(line == line.rstrip() for line in text.splitlines())


def test_on_a_terminal_what_needs_a_look_is_coloured() -> None:
    text = "\n".join(shown(200, terminal=True))
    assert "\x1b[31mmissing (OOMKilled)" in text
    assert "\x1b[33mpartial 1/2 (BadData)" in text


@pytest.mark.parametrize(
    ("raw", "safe"),
    [("\x1b[2J", "\\x1b[2J"), ("a\rb", "a\\rb"), ("a\u202eb", "a\\u202eb"), ("👩‍🔬 中文", "👩‍🔬 中文")],
)
def test_texts_of_others_cannot_drive_the_terminal(raw: str, safe: str) -> None:
    assert printable(raw) == safe


def test_grid_lines_are_never_broken() -> None:
    out = io.StringIO()
    table.grid(["a", "b"], [["x" * 90, "中文"], ["y", "z"]], Console(file=out, width=40))
    assert out.getvalue().splitlines()[1] == "x" * 90 + "  中文"
