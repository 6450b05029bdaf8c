"""A plan run in front of a user: shown while it lasts, ended by Ctrl-C, resumed by the same command."""

import asyncio
import datetime as dt
import signal
import uuid
from pathlib import Path

from rich.console import Console

from evaljob.observe import Outcome
from evaljob.plan import Partition, Plan
from evaljob.summary import Summary
from evaljob.tables import files
from evaljob_cli.display import display
from evaljob_cli.inputs import InputError
from evaljob_cli.launch import Launch
from evaljob_cli.local import run_plan
from evaljob_cli.places import SAMPLES

DATE = "date"
"""In the output folder: what chat templates were told the last time."""


class InterruptedRunError(Exception):
    """The user ended the run; no runner is left. The message says how to resume."""


def execute(plan: Plan, launch: Launch, parallelism: int, console: Console) -> dict[Partition, Outcome]:
    """Run a plan to its end, shown on this console.

    Ctrl-C, SIGTERM and a hang-up give the runners the grace period to close their logs; a second of the first two
    ends them at once. An ignored hang-up (nohup) stays ignored.

    Raises:
        InterruptedRunError: after any of them.
    """
    places, total = launch.places, len(plan.partitions)
    console.print(
        f"{plan.run.name}: {total} partitions, {parallelism} at once, output in {places.out}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip

    async def main() -> dict[Partition, Outcome]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            loop.add_signal_handler(signal.SIGHUP, _hang_up)
        with display(console, total) as report:
            outcomes = await run_plan(
                plan, launch, parallelism=parallelism, new_attempt=lambda: str(uuid.uuid4()), report=report
            )
        console.print()
        return outcomes

    # A shell's background jobs inherit an ignored SIGINT, and SIGTERM would be ignored with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return asyncio.run(main())
    except KeyboardInterrupt:
        kept = f"what {places.out / SAMPLES} holds is not computed again"
        raise InterruptedRunError(f"interrupted; run the same command to resume: {kept}") from None


def _hang_up() -> None:
    """A shell and the kernel may each say that the terminal is gone: once is enough."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.raise_signal(signal.SIGINT)


def kept_date(out: Path) -> dt.date | None:
    """The date of earlier runs in this folder; None where there was none.

    Raises:
        InputError: when the file holds something else.
    """
    file = out / DATE
    try:
        return dt.date.fromisoformat(file.read_text("utf-8").strip())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise InputError(f"{file}: not a date: write YYYY-MM-DD, or remove the file") from error


def keep_date(date: dt.date, out: Path) -> None:
    """Leave the date for the next run in this folder."""
    (out / DATE).write_text(f"{date}\n", "utf-8")


def write(summary: Summary, out: Path) -> None:
    """Write the summary's files, of any size."""
    for name, text in files(summary).items():
        (out / name).write_text(text, "utf-8")
