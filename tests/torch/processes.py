"""Real runner processes: `python -m evaljob_runner` on a plan folder."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaljob.framing import decode
from evaljob.plan import PlannedDataset, RunPlan
from evaljob.result import Failure, PartitionResult
from evaljob.spec import Model
from tests.runner_plans import TINY, write_plan

MOUNTS = ("--mount", f"models={TINY}", "--mount", f"data={TINY / 'data'}")


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    report: PartitionResult | Failure
    said: str
    """Standard output."""
    logged: str
    """Standard error."""

    @property
    def result(self) -> PartitionResult:
        """The result; fails the test where there is none."""
        assert isinstance(self.report, PartitionResult), f"{self.report}\n{self.logged}"
        return self.report

    @property
    def failure(self) -> Failure:
        """The failure; fails the test where there is none."""
        assert isinstance(self.report, Failure), self.report
        return self.report


def start(
    folder: Path,
    model: Model,
    dataset: PlannedDataset,
    *options: str,
    attempt: str = "a-1",
    run: RunPlan | None = None,
    variables: Mapping[str, str] | None = None,
) -> "subprocess.Popen[str]":
    """Start a partition; its files stand in `folder`."""
    arguments = write_plan(folder / "plan", model, dataset, attempt=attempt, run=run)
    (folder / "result").write_text("")
    where = ["--out", str(folder / "out"), "--result", str(folder / "result")]
    return subprocess.Popen(
        [sys.executable, "-m", "evaljob_runner", *arguments, *where, *MOUNTS, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1", **(variables or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: "subprocess.Popen[str]", folder: Path, timeout: float = 120) -> Ended:
    """Wait for a process and read its report."""
    with process:
        try:
            said, logged = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    text = (folder / "result").read_text()
    assert text, f"no report, exit {process.returncode}: {logged}"
    return Ended(process.returncode, decode(text), said, logged)


def run(folder: Path, model: Model, dataset: PlannedDataset, *options: str, **more: Any) -> Ended:  # noqa: ANN401
    """A partition from start to end."""
    return end(start(folder, model, dataset, *options, **more), folder)


def lines(folder: Path) -> Sequence[str]:
    """All lines of all sample logs."""
    return [t for path in sorted((folder / "out").rglob("*.jsonl")) for t in path.read_text().splitlines()]
