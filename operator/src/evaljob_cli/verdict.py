"""What an ended attempt came to, by the rules that the operator and the Job's podFailurePolicy apply."""

import signal
from dataclasses import dataclass
from pathlib import Path

from evaljob import framing, result
from evaljob.framing import InvalidResultError
from evaljob.jobs import EXIT_NEVER_AGAIN
from evaljob.names import Reason
from evaljob.observe import Outcome, read_record
from evaljob.plan import Partition
from evaljob.result import Failure
from evaljob_cli.launch import LOG, REPORT

_LOG_TAIL = 2000
"""Bytes of the log's end in which its last line is looked for."""


@dataclass(frozen=True)
class Ended:
    """What an attempt came to."""

    outcome: Outcome
    again: bool
    """Whether another attempt may end better."""


def judge(partition: Partition, attempt: str, code: int, folder: Path, *, late: bool) -> Ended:
    """What an attempt came to, by the rules that the operator and the Job's podFailurePolicy apply."""
    if late:
        said = result.failure(Reason.DEADLINE_EXCEEDED, f"reached its deadline ({_see(folder)})", attempt)
        return Ended(said, again=True)
    if code == 0:
        return Ended(_success(partition, attempt, _read(folder / REPORT)), again=False)
    return Ended(_failure(attempt, code, folder), again=code != EXIT_NEVER_AGAIN)


def why(report: Path) -> Failure | None:
    """A runner's own words about its failure, if it left any."""
    try:
        said = framing.decode(_read(report))
    except InvalidResultError:
        return None
    return said if isinstance(said, Failure) else None


def _read(report: Path) -> str:
    return report.read_text("utf-8", "replace") if report.exists() else ""


def _success(partition: Partition, attempt: str, text: str) -> Outcome:
    """The result of a process that ended well, or why that is none."""
    outcome = read_record(partition, text)
    if isinstance(outcome, Failure):
        return outcome.model_copy(update={"attempt": attempt})
    if outcome.attempt != attempt:
        return result.failure(Reason.INVALID_RESULT, f"a result of attempt {outcome.attempt[:40]!r}", attempt)
    return outcome


def _failure(attempt: str, code: int, folder: Path) -> Failure:
    """The runner's own words, else its exit code and the last line of its log."""
    if said := why(folder / REPORT):
        return said.model_copy(update={"attempt": attempt})
    how = f"exit code {code}" if code > 0 else f"ended by {signal.Signals(-code).name}"
    tail = (folder / LOG).read_bytes()[-_LOG_TAIL:].decode("utf-8", "replace").strip().splitlines()
    last = f": {tail[-1]}" if tail else ""
    return result.failure(Reason.RUNNER_FAILED, f"{how}{last} ({_see(folder)})", attempt)


def _see(folder: Path) -> str:
    """Where the whole story is, from the output folder on: a summary should not hold paths of a machine."""
    return f"see {folder.parent.name}/{folder.name}/{LOG}"
