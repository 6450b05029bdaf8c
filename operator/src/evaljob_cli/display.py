"""What a run shows while it lasts: a live line per running partition, or plain lines when not on a terminal."""

import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from evaljob.plan import Partition
from evaljob.result import Failure, Outcomes
from evaljob_cli import attempt
from evaljob_cli.local import Event, Finished, Progressed, Retrying, Started

_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str, keep: str = "") -> str:
    """The text with control characters escaped: names, prompts and messages must not drive a terminal."""
    return "".join(
        ascii(c)[1:-1] if c not in keep and (unicodedata.category(c) == "Cc" or c in _BIDI_CONTROLS) else c
        for c in text
    )


def block(text: str) -> str:
    """A text of several lines as it is, but for other control characters."""
    return printable(text, keep="\n\t")


def line(event: Event) -> str:
    """An event as one line of text."""
    match event:
        case Started(partition, retry):
            return f"start   {partition}" + (f", retry {retry}" if retry else "")
        case Progressed(partition, progress):
            return f"        {partition}: {_progress(progress)}"
        case Retrying(partition, failure, seconds):
            return f"retry   {partition}: {_failure(failure)}; again in {seconds:g} s"
        case Finished(partition, outcome):
            if isinstance(outcome, Failure):
                return f"failed  {partition}: {_failure(outcome)}"
            return f"done    {partition}: {_samples(outcome.outcomes)}"


def _progress(p: attempt.Progress) -> str:
    rate = f", {p.rate:.3g} samples/s" if p.rate is not None else ""
    left = f", {p.seconds_left:.0f} s left" if p.seconds_left is not None else ""
    return f"{p.done}/{p.total}{rate}{left}"


def _failure(failure: Failure) -> str:
    return printable(f"{failure.reason}: {failure.message}" if failure.message else failure.reason)


def _samples(outcomes: Outcomes) -> str:
    known = f", {outcomes.from_log} of them from an earlier attempt" if outcomes.from_log else ""
    return f"{outcomes.completed} samples{known}"


@contextmanager
def display(console: Console, total: int) -> Iterator[Callable[[Event], None]]:
    """A function that shows events of a run of `total` partitions on this console."""
    if not console.is_terminal:
        yield lambda event: _print(console, line(event))
        return
    with _bars(console) as bars:
        yield _Live(bars, total).show


def _print(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


class _Live:
    """A bar for all partitions, and one for each that runs; what ended scrolls away above them."""

    def __init__(self, bars: Progress, total: int) -> None:
        self._bars = bars
        self._all = bars.add_task("partitions", total=total, note="")
        self._running: dict[Partition, TaskID] = {}

    def show(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Started(partition):
                self._drop(partition)
                self._running[partition] = self._bars.add_task(str(partition), total=None, note="starting")
            case Progressed(partition, p):
                note = f"{p.seconds_left:.0f} s left" if p.seconds_left is not None else ""
                self._bars.update(self._running[partition], completed=p.done, total=p.total, note=note)
            case Retrying(partition):
                self._bars.update(self._running[partition], total=None, note="waiting to try again")
                _print(self._bars.console, line(event))
            case Finished(partition):
                self._drop(partition)
                self._bars.advance(self._all)
                _print(self._bars.console, line(event))

    def _drop(self, partition: Partition) -> None:
        task = self._running.pop(partition, None)
        if task is not None:
            self._bars.remove_task(task)
