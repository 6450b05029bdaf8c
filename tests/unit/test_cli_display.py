"""What a run shows while it lasts."""

import dataclasses
import io

import pytest
from rich.console import Console

from evaljob.plan import Partition
from evaljob.result import Failure, MetricInfo, Outcomes, PartitionResult
from evaljob_cli.attempt import Progress
from evaljob_cli.display import display, line
from evaljob_cli.local import Event, Finished, Progressed, Retrying, Started

A = Partition(model="m", dataset="a", shard=1, shards=2)
B = Partition(model="m", dataset="b", shard=0, shards=1)
RESULT = PartitionResult(
    **dataclasses.asdict(A),
    attempt="1",
    inference_digest="i",
    prompt_digest="p",
    outcomes=Outcomes(expected=9, completed=9, answered=9, from_log=4),
    metrics=(MetricInfo(key="acc", primary=True),),
    subsets=(),
    device="cpu",
)
EVENTS: list[tuple[Event, str]] = [
    (Started(A, 0), "start   m/a 1/2"),
    (Started(B, 0), "start   m/b"),
    (Progressed(A, Progress(done=3, total=9)), "        m/a 1/2: 3/9"),
    (
        Progressed(A, Progress.model_validate({"done": 6, "total": 9, "rate": 12.34, "secondsLeft": 3.2})),
        "        m/a 1/2: 6/9, 12.3 samples/s, 3 s left",
    ),
    (Retrying(B, Failure(reason="SamplesLeft"), 0.5), "retry   m/b: SamplesLeft; again in 0.5 s"),
    (Started(B, 1), "start   m/b, retry 1"),
    (Finished(A, RESULT), "done    m/a 1/2: 9 samples, 4 of them from an earlier attempt"),
    (Finished(B, Failure(reason="BadData", message="[red]")), "failed  m/b: BadData: [red]"),
]


@pytest.mark.parametrize(("event", "text"), EVENTS)
def test_an_event_is_one_line(event: Event, text: str) -> None:
    assert line(event) == text


def shown(console: Console) -> str:
    with display(console, total=2) as show:
        for event, _ in EVENTS:
            show(event)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_pipe_gets_every_event_as_a_plain_line() -> None:
    text = shown(Console(file=io.StringIO(), width=20))
    assert text.splitlines() == [text for _, text in EVENTS]


def test_a_terminal_keeps_the_lines_of_what_ended_and_bars_of_what_runs() -> None:
    """What only tells how far something is leaves no trace."""
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    text = shown(console)
    kept = [text for event, text in EVENTS if isinstance(event, Retrying | Finished)]
    positions = [text.index(line) for line in kept]
    assert positions == sorted(positions)
    assert "partitions" in text
    assert "start   " not in text
    assert "samples/s" not in text
