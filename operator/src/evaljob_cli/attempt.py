"""One attempt of a partition: a fresh process, watched until its end.

The counterpart of a pod: an own process group, a deadline, a report in a file, a log.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from tempfile import TemporaryDirectory
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from evaljob.plan import Partition, Plan, RunPlan
from evaljob_cli.launch import LOG, REPORT, Launch, environment, folder_of, write_plan
from evaljob_cli.places import arguments
from evaljob_cli.verdict import Ended, judge

_LINE_MAX = 1024 * 1024
"""Bytes of a line on standard output; a longer one is no progress line."""
_DRAIN_SECONDS = 0.5
"""How long the rest of an ended process's output is waited for."""


class Progress(BaseModel):
    """A runner's progress line."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, allow_inf_nan=False)

    done: int
    total: int
    rate: float | None = None
    """Samples per second."""
    seconds_left: float | None = None


async def run_attempt(
    plan: Plan, partition: Partition, launch: Launch, attempt: str, on_progress: Callable[[Progress], None]
) -> Ended:
    """Run one attempt to its end. Cancelling ends the process as a pod's deletion would.

    Raises:
        OSError: when the folder cannot be written or the process cannot be started.
    """
    folder = folder_of(plan, partition, launch.places, attempt)
    write_plan(plan, partition, attempt, folder)
    args = [*arguments(plan, partition, launch.places, folder), "--result", str(folder / REPORT)]
    with (folder / LOG).open("ab", buffering=0) as log, _scratch() as scratch:
        async with _pipe() as (stream, write_end):
            process = await asyncio.create_subprocess_exec(
                *launch.command,
                *args,
                env=environment(launch.environment, plan.model(partition.model), scratch),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=log,
                # A group of its own: Ctrl-C reaches it through us only, and its end takes its children along.
                start_new_session=True,
            )
            write_end.close()
            reader = asyncio.create_task(_follow(stream, log, on_progress))
            late = await _watch(process, reader, plan.run)
    return judge(partition, attempt, process.returncode or 0, folder, late=late)


async def _watch(process: asyncio.subprocess.Process, reader: asyncio.Task[None], run: RunPlan) -> bool:
    """Wait for the end, and bring it about at the deadline or when cancelled; whether it was late."""
    grace = run.grace_period_seconds
    try:
        # The runner's own, soft deadline comes a grace period earlier, as in a pod.
        async with asyncio.timeout(run.partition_deadline_seconds + grace):
            await process.wait()
    except TimeoutError:
        return True
    finally:
        await _end(process, grace)
        await asyncio.wait({reader}, timeout=_DRAIN_SECONDS)
        reader.cancel()
    return False


def _scratch() -> TemporaryDirectory[str]:
    """A process that is killed removes nothing; one that has left its group may still write there."""
    return TemporaryDirectory(prefix="evaljob-", ignore_cleanup_errors=True)


@asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, BinaryIO]]:
    """A stream and the file that feeds it.

    Not asyncio's own pipe: with that, waiting for a process also waits until everybody has closed its output,
    and a grandchild that left the group may keep it open for ever.
    """
    read_fd, write_fd = os.pipe()
    with os.fdopen(write_fd, "wb", buffering=0) as write_end:
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(read_fd, "rb", buffering=0)
        )
        try:
            yield stream, write_end
        finally:
            transport.close()


async def _end(process: asyncio.subprocess.Process, grace: float) -> None:
    """SIGTERM, the grace period, SIGKILL: to the whole group, also when the leader has ended by itself."""
    try:
        if process.returncode is None:
            _signal(process, signal.SIGTERM)
            async with asyncio.timeout(grace):
                await process.wait()
    except TimeoutError:
        pass
    finally:
        _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


async def _follow(
    stream: asyncio.StreamReader, log: BinaryIO, on_progress: Callable[[Progress], None]
) -> None:
    """Hand on the progress lines of standard output; everything else belongs to the log."""
    async for line in _lines(stream):
        progress = _progress(line)
        if progress:
            on_progress(progress)
        else:
            log.write(line + b"\n")


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length: an endless one is given in pieces, where readline would raise."""
    rest = b""
    while chunk := await stream.read(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > _LINE_MAX:
            yield rest
            rest = b""
    if rest:
        yield rest


def _progress(line: bytes) -> Progress | None:
    if not line.startswith(b"{") or b'"progress"' not in line:
        return None
    try:
        return Progress.model_validate_json(line)
    except ValidationError:
        return None
