"""A glance at samples in a runner's log: few, bounded, and readable by the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from evaljob.preview import LINES_MAX, SamplePreview
from evaljob_cli import previewed
from evaljob_runner.backends.base import Unavailable
from evaljob_runner.errors import Retry
from evaljob_runner.evaluate import GIVE_UP_AFTER
from tests.unit.test_runner_evaluate import Outside, answers, capitals

ROWS = [{"q": f"q{i}", "a": f"a{i}"} for i in range(40)]


def shown(outside: Outside) -> list[SamplePreview]:
    return list(previewed.samples(outside.said.getvalue().splitlines()))


def test_the_first_samples_and_then_wrong_ones_are_shown_while_a_partition_runs(tmp_path: Path) -> None:
    """Twenty of forty are wrong."""
    outside = Outside(answers(lambda q: q.replace("q", "a") if int(q[-1]) % 2 else "no"))
    outside.run(capitals(tmp_path, ROWS))
    found = shown(outside)
    assert [s.id for s in found if s.kind == "First"] == ["0", "1", "2", "3", "4"]
    assert [s.id for s in found if s.kind == "Wrong"] == [str(i) for i in range(6, 26, 2)]
    assert found[0] == SamplePreview(
        kind="First",
        id="0",
        outcome="Answered",
        prompt="q0",
        output="no",
        target="a0",
        scores={"contains": 0.0},
    )


def test_samples_without_an_answer_are_shown_with_their_error(tmp_path: Path) -> None:
    outside = Outside(answers(lambda q: Unavailable(f"{q[1:]}#0", "connection refused")))
    with pytest.raises(Retry):
        outside.run(capitals(tmp_path, ROWS))
    found = shown(outside)
    assert GIVE_UP_AFTER > LINES_MAX["Error"] == len(found)
    assert {(s.kind, s.outcome, s.error) for s in found} == {("Error", "InfraError", "connection refused")}


def test_a_finished_sample_of_an_earlier_attempt_is_not_shown_again(tmp_path: Path) -> None:
    Outside().run(capitals(tmp_path))
    again = Outside()
    again.run(capitals(tmp_path, attempt="a-2"))
    assert shown(again) == []


def test_long_texts_keep_their_beginning_and_their_end(tmp_path: Path) -> None:
    """In a bounded line, whatever a model says."""
    question = "begin " + "\0" * 5000 + " end"
    outside = Outside(answers(lambda _: "7"))
    outside.run(capitals(tmp_path, [{"q": question, "a": "7"}]))
    (line,) = (x for x in outside.said.getvalue().splitlines() if '"sample"' in x)
    assert len(line) < 6000
    (found,) = shown(outside)
    assert found.prompt is not None
    assert (found.prompt[:5], found.prompt[-3:]) == ("begin", "end")


def test_the_command_line_finds_samples_in_any_log() -> None:
    sample = SamplePreview(
        kind="First", id="a/1", outcome="Answered", prompt="Q?", output="x\x1b[31m", target="y"
    )
    log = [
        "INFO evaljob_runner: hello",
        '{"type": "progress", "done": 1}',
        f"[pod/x/runner] 2026-01-31T00:00:00Z {sample.to_json()}\n",
        '{"type":"sample","kind":"torn',
    ]
    (found,) = previewed.samples(log)
    assert found == sample
    assert list(previewed.text(found)) == ["--- a/1: Answered", "Q?", ">>> x\\x1b[31m", "target: y"]


def test_scores_and_errors_are_told() -> None:
    fields: dict[str, Any] = {"kind": "Error", "id": "1", "outcome": "InfraError"}
    sample = SamplePreview(**fields, scores={"acc": 0.5}, error="gone", target="y")
    assert list(previewed.text(sample)) == ["--- 1: InfraError, acc 0.5", "error: gone", "target: y"]
    assert json.loads(sample.to_json())["type"] == "sample"
