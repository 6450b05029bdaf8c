"""A plan on this machine: real processes, a stand-in for the runner."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from evaljob.observe import Outcome
from evaljob.plan import Plan
from evaljob.result import Failure, PartitionResult
from evaljob_cli.launch import Launch
from evaljob_cli.local import Event, Finished, Progressed, Retrying, Started, run_plan
from evaljob_cli.places import Places
from tests.integration import cli_runner
from tests.local_plans import evaljob, model, plan_of

RUNNER = (sys.executable, "-S", cli_runner.__file__)


class Run:
    """One call of run_plan, and everything that it said."""

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan = plan
        self.folder = out / "samples" / plan.run.uid
        self.launch = Launch(Places(out, {"models": out}), RUNNER, {"MINE": "kept"}, backoff_seconds=0.01)
        self.events: list[Event] = []

    async def run(self, parallelism: int = 4) -> dict[str, Outcome]:
        numbers = count()
        outcomes = await run_plan(
            self.plan,
            self.launch,
            parallelism=parallelism,
            new_attempt=lambda: f"{next(numbers):08d}",
            report=self.events.append,
        )
        return {p.dataset: outcome for p, outcome in outcomes.items()}

    def all(self, kind: type[Event]) -> list[Any]:
        return [e for e in self.events if isinstance(e, kind)]

    def starts(self, dataset: str) -> list[dict[str, Any]]:
        """What each process of a partition left behind when it began."""
        found = sorted((self.folder / f"m-{dataset}-0").glob("start-*"))
        return [json.loads(path.read_text()) for path in found]

    def pids(self, dataset: str) -> list[int]:
        """The process and its child, of every attempt."""
        found = (self.folder / f"m-{dataset}-0").glob("pids-*")
        return [int(pid) for path in found for pid in path.read_text().split()]


def started(*datasets: str, out: Path, grace: int = 5, **spec: object) -> Run:
    return Run(plan_of(evaljob(*datasets, models=None, **spec), grace), out)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process still runs; one that nobody has waited for yet does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(") ")[2][0] != "Z"


def reason(outcome: Outcome) -> str:
    assert isinstance(outcome, Failure)
    return outcome.reason


async def test_every_partition_has_a_process_of_its_own_and_reports_what_it_did(tmp_path: Path) -> None:
    run = started("good-1", "good-2", "good-3", out=tmp_path)
    outcomes = await run.run()
    assert all(isinstance(o, PartitionResult) for o in outcomes.values())
    pids = {start["pid"] for d in outcomes for start in run.starts(d)}
    assert len(pids) == 3
    assert os.getpid() not in pids
    assert {e.progress.done for e in run.all(Progressed)} == {1, 2, 3, 4}


async def test_never_more_at_once_than_asked_for(tmp_path: Path) -> None:
    run = started(*(f"good-{i}" for i in range(6)), out=tmp_path)
    await run.run(parallelism=2)
    steps = [1 if isinstance(e, Started) else -1 for e in run.events if isinstance(e, Started | Finished)]
    running = [sum(steps[: i + 1]) for i in range(len(steps))]
    assert max(running) == 2


async def test_an_attempt_that_may_end_better_is_tried_again_after_a_growing_pause(tmp_path: Path) -> None:
    run = started("flaky-2", out=tmp_path)
    outcomes = await run.run()
    assert isinstance(outcomes["flaky-2"], PartitionResult)
    assert [e.retry for e in run.all(Started)] == [0, 1, 2]
    assert [(e.failure.reason, e.seconds) for e in run.all(Retrying)] == [
        ("DependencyUnavailable", 0.01),
        ("DependencyUnavailable", 0.02),
    ]


async def test_retries_end_at_the_backoff_limit_with_the_last_reason(tmp_path: Path) -> None:
    run = started("flaky-9", out=tmp_path, backoffLimit=1)
    outcomes = await run.run()
    assert reason(outcomes["flaky-9"]) == "DependencyUnavailable"
    assert len(run.starts("flaky-9")) == 2


async def test_exit_78_is_never_tried_again_and_the_others_finish(tmp_path: Path) -> None:
    run = started("never", "good", out=tmp_path)
    outcomes = await run.run()
    assert reason(outcomes["never"]) == "BadData"
    assert len(run.starts("never")) == 1
    assert isinstance(outcomes["good"], PartitionResult)


@pytest.mark.parametrize(
    ("dataset", "expected", "says", "attempts"),
    [
        ("crash", "RunnerFailed", "exit code 3: Traceback: it broke", 2),
        ("killed", "RunnerFailed", "ended by SIGKILL", 2),
        ("silent", "InvalidResult", "not a report", 1),
        ("foreign", "InvalidResult", "attempt 'another'", 1),
    ],
)
async def test_an_end_without_a_report_of_this_attempt_is_a_failure_that_says_so(
    tmp_path: Path, dataset: str, expected: str, says: str, attempts: int
) -> None:
    run = started(dataset, out=tmp_path, backoffLimit=1)
    outcome = (await run.run())[dataset]
    assert reason(outcome) == expected
    assert isinstance(outcome, Failure)
    assert says in outcome.message
    assert len(run.starts(dataset)) == attempts


async def test_at_the_deadline_runners_are_asked_to_end_then_killed_and_their_children_with_them(
    tmp_path: Path,
) -> None:
    """No deadline but the grace period of 1 s, so that the test is short; a spec asks for at least 1 s more."""
    run = started("slow", "deaf", out=tmp_path, grace=1, backoffLimit=0)
    now = run.plan.run.model_copy(update={"partition_deadline_seconds": 0})
    run.plan = run.plan.model_copy(update={"run": now})
    outcomes = await run.run()
    assert [reason(o) for o in outcomes.values()] == ["DeadlineExceeded", "DeadlineExceeded"]
    assert (run.folder / "m-slow-0" / "terminated").exists()
    assert len(run.pids("slow") + run.pids("deaf")) == 4
    await until(lambda: not any(alive(pid) for d in ("slow", "deaf") for pid in run.pids(d)))


async def test_a_grandchild_that_leaves_the_group_and_keeps_the_output_open_holds_nothing_up(
    tmp_path: Path,
) -> None:
    run = started("escapes", out=tmp_path)
    async with asyncio.timeout(10):
        outcome = (await run.run())["escapes"]
    assert isinstance(outcome, PartitionResult)
    (left,) = run.pids("escapes")
    assert alive(left)
    os.kill(left, signal.SIGKILL)


async def test_cancelling_ends_every_process_and_a_second_run_takes_over_its_samples(tmp_path: Path) -> None:
    run = started("slow", "deaf", out=tmp_path, grace=0)
    task = asyncio.create_task(run.run())
    await until(lambda: len(run.pids("slow")) == len(run.pids("deaf")) == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not any(alive(pid) for d in ("slow", "deaf") for pid in run.pids(d)))
    (run.folder / "m-slow-0").rename(run.folder / "m-good-0")
    again = started("good", out=tmp_path)
    again.plan = again.plan.model_copy(update={"run": run.plan.run})
    outcome = (await again.run())["good"]
    assert isinstance(outcome, PartitionResult)
    assert outcome.outcomes.from_log == 1


async def test_a_program_that_does_not_exist_fails_its_partition(tmp_path: Path) -> None:
    run = started("good", out=tmp_path, backoffLimit=0)
    run.launch = Launch(run.launch.places, (str(tmp_path / "nothing"),), {})
    outcome = (await run.run())["good"]
    assert reason(outcome) == "RunnerFailed"


async def test_a_runner_sees_this_environment_its_threads_and_its_models_variables(tmp_path: Path) -> None:
    pod = {"resources": {"limits": {"cpu": "1500m"}}, "env": [{"name": "HF_HOME", "value": "/x"}]}
    run = Run(plan_of(evaljob("good", models=[model(runner=pod)])), tmp_path)
    await run.run()
    seen = run.starts("good")[0]["env"]
    expected = {"MINE": "kept", "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive", "HF_HOME": "/x"}
    assert seen.items() >= expected.items()
