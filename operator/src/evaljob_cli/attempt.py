"""One attempt of a partition: a fresh process, watched until its end, and what it came to.

The counterpart of a pod: the plan's files in a folder, an own process group, a deadline, a report in a file.
"""

import asyncio
import math
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from evaljob import result
from evaljob.jobs import ATTEMPT_FILE, EXIT_NEVER_AGAIN
from evaljob.names import Reason
from evaljob.observe import Outcome, read_record
from evaljob.plan import RUN_KEY, Partition, Plan, dataset_key, model_key
from evaljob.result import Failure, InvalidResultError
from evaljob.spec import Model
from evaljob_cli.inputs import InputError
from evaljob_cli.places import Places, arguments

REPORT = "report"
LOG = "runner.log"
_LINE_MAX = 1024 * 1024
"""Bytes of a line on standard output; a longer one is no progress line."""
_LOG_TAIL = 2000


@dataclass(frozen=True)
class Launch:
    """How runners are started on this machine."""

    places: Places
    command: tuple[str, ...]
    """The runner's program, before its arguments."""
    environment: Mapping[str, str]
    backoff_seconds: float = 1.0
    """Before the first retry; doubles with each."""


class Progress(BaseModel):
    """A runner's progress line."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, allow_inf_nan=False)

    done: int
    total: int
    rate: float | None = None
    """Samples per second."""
    seconds_left: float | None = None


@dataclass(frozen=True)
class Ended:
    """What an attempt came to."""

    outcome: Outcome
    again: bool
    """Whether another attempt may end better."""


def folder_of(plan: Plan, partition: Partition, places: Places, attempt: str) -> Path:
    """Where an attempt's plan files, report and log are."""
    return places.out / "attempts" / f"{plan.job_name(partition)}-{attempt[:8]}"


def _write_plan(plan: Plan, partition: Partition, attempt: str, folder: Path) -> None:
    """The files that a pod finds mounted: three keys of the plan, and which attempt it is."""
    folder.mkdir(parents=True)
    files = {
        RUN_KEY: plan.run.to_json(),
        model_key(partition.model): plan.model(partition.model).to_json(),
        dataset_key(partition.dataset): plan.dataset(partition.dataset).to_json(),
        ATTEMPT_FILE: attempt,
    }
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")


def threads(model: Model) -> int:
    """OpenMP threads of a model's runner: its CPU limit, else its request, rounded up.

    Raises:
        InputError: for a quantity that is no number of CPUs.
    """
    resources = model.runner.resources
    text = str(resources.limits.get("cpu", resources.requests.get("cpu", 1)))
    try:
        cpus = Decimal(text.removesuffix("m")) / (1000 if text.endswith("m") else 1)
        return max(1, math.ceil(cpus))
    except (InvalidOperation, OverflowError, ValueError) as error:
        where = f"spec.models[{model.name}].runner.resources: cpu {text!r}"
        raise InputError(f"{where}: write a number of CPUs, for example 2 or 500m") from error


def environment(base: Mapping[str, str], model: Model) -> dict[str, str]:
    """A runner's environment: this program's, threads as the pod would have them, the model's own variables."""
    # Waiting threads that spin take the cores from the other runners.
    own = {"OMP_NUM_THREADS": str(threads(model)), "OMP_WAIT_POLICY": "passive"}
    return {**base, **own, **{e.name: e.value for e in model.runner.env}}


async def run_attempt(
    plan: Plan, partition: Partition, launch: Launch, attempt: str, on_progress: Callable[[Progress], None]
) -> Ended:
    """Run one attempt to its end. Cancelling ends the process as a pod's deletion would.

    Raises:
        OSError: when the folder cannot be written or the process cannot be started.
    """
    folder = folder_of(plan, partition, launch.places, attempt)
    _write_plan(plan, partition, attempt, folder)
    report = folder / REPORT
    args = [*arguments(plan, partition, launch.places, folder), "--result", str(report)]
    grace = plan.run.grace_period_seconds
    with (folder / LOG).open("ab", buffering=0) as log:
        process = await asyncio.create_subprocess_exec(
            *launch.command,
            *args,
            env=environment(launch.environment, plan.model(partition.model)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            # A group of its own: Ctrl-C reaches it through us only, and its end takes its children along.
            start_new_session=True,
        )
        reader = asyncio.create_task(_follow(process, log, on_progress))
        late = False
        try:
            async with asyncio.timeout(plan.run.partition_deadline_seconds + grace):
                await process.wait()
        except TimeoutError:
            late = True
        finally:
            await _end(process, grace)
            await reader
    return judge(partition, attempt, process.returncode or 0, folder, late=late)


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
    process: asyncio.subprocess.Process, log: BinaryIO, on_progress: Callable[[Progress], None]
) -> None:
    """Hand on the progress lines of standard output; everything else belongs to the log."""
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    async for line in _lines(process.stdout):
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


def judge(partition: Partition, attempt: str, code: int, folder: Path, *, late: bool) -> Ended:
    """What an attempt came to, by the rules that the operator and the Job's podFailurePolicy apply."""
    report = folder / REPORT
    text = report.read_text("utf-8", "replace") if report.exists() else ""
    if late:
        said = result.failure(Reason.DEADLINE_EXCEEDED, f"reached its deadline, see {folder / LOG}", attempt)
        return Ended(said, again=True)
    if code == 0:
        return Ended(_success(partition, attempt, text), again=False)
    return Ended(_failure(attempt, code, text, folder / LOG), again=code != EXIT_NEVER_AGAIN)


def _success(partition: Partition, attempt: str, text: str) -> Outcome:
    """The result of a process that ended well, or why that is none."""
    outcome = read_record(partition, text)
    if isinstance(outcome, Failure):
        return outcome.model_copy(update={"attempt": attempt})
    if outcome.attempt != attempt:
        return result.failure(Reason.INVALID_RESULT, f"a result of attempt {outcome.attempt[:40]!r}", attempt)
    return outcome


def _failure(attempt: str, code: int, text: str, log: Path) -> Failure:
    """The runner's own words, else its exit code and the last line of its log."""
    try:
        said = result.decode(text)
    except InvalidResultError:
        said = None
    if isinstance(said, Failure):
        return said.model_copy(update={"attempt": attempt})
    how = f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
    tail = log.read_bytes()[-_LOG_TAIL:].decode("utf-8", "replace").strip().splitlines()
    last = f": {tail[-1]}" if tail else ""
    return result.failure(Reason.RUNNER_FAILED, f"{how}{last} (see {log})", attempt)
