"""All partitions of an EvalJob in one process: `python -m tests.benchmarks.one_process FILE OUT CLAIM=DIR ...`.

What isolation is compared with: the runner's own code, backend and batches, one partition after the other, with each
model loaded once. What a process for each partition costs more is then the processes.
"""

import datetime as dt
import io
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from evaljob.merge import summarize
from evaljob.names import State
from evaljob.plan import Partition, Plan
from evaljob.planning import Settings
from evaljob.result import PartitionResult
from evaljob_cli.inputs import assignments, durable, identified, read_evaljob, resolve
from evaljob_runner.assignment import Assignment, Places
from evaljob_runner.backends.base import Backend
from evaljob_runner.checkpoints import Checkpoint
from evaljob_runner.ending import Ending
from evaljob_runner.evaluate import Shell, evaluate
from evaljob_runner.opening import open_backend
from evaljob_runner.progress import Progress, Stopwatch

Backends = dict[str, Backend]
"""Those that are loaded, by what was asked of them: models that differ in their prompt format only share one."""


def main(arguments: Sequence[str]) -> int:
    """Print the summary as JSON."""
    file, out, *mounts = arguments
    plan = resolve(durable(identified(read_evaljob(Path(file)))), Settings(), dt.datetime.now(dt.UTC).date())
    results = run(plan, assignments("CLAIM=DIR", mounts, folders=True), Path(out), {})
    print(summarize(plan, results, state=State.COMPLETE).to_json())
    return 0


def run(
    plan: Plan, claims: Mapping[str, Path], out: Path, loaded: Backends
) -> dict[Partition, PartitionResult]:
    """Evaluate the partitions in turn."""
    places = Places(claims=claims, config_maps={}, out=out)
    return {partition: _evaluated(plan, partition, places, loaded) for partition in plan.partitions}


def _evaluated(plan: Plan, partition: Partition, places: Places, loaded: Backends) -> PartitionResult:
    work = Assignment(
        run=plan.run,
        model=plan.model(partition.model),
        planned=plan.dataset(partition.dataset),
        partition=partition,
        attempt="one-process",
        places=places,
    )
    stopwatch = Stopwatch()
    shell = Shell(
        open_backend=partial(_once, loaded, stopwatch),
        progress=Progress(io.StringIO()),
        stopwatch=stopwatch,
        watch=lambda _: None,
    )
    return evaluate(work, shell)


def _once(loaded: Backends, stopwatch: Stopwatch, work: Assignment, checkpoint: Checkpoint | None) -> Backend:
    local = work.model.local
    if local is None:
        raise SystemExit(f"{work.model.name}: a served model has nothing to load")
    key = f"{work.model.backend} {local.to_json()}"
    if key not in loaded:
        loaded[key] = open_backend(work, checkpoint, stopwatch, leave=Ending(Path(os.devnull)).leave)
    return loaded[key]


if __name__ == "__main__":
    exit_code = main(sys.argv[1:])
    sys.stdout.flush()
    # As the runner ends.
    os._exit(exit_code)
