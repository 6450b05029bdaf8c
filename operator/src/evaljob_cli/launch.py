"""How a runner is started on this machine: its folder, its files, its environment, its command line."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

from evaljob.mounts import ATTEMPT_FILE
from evaljob.plan import RUN_KEY, Partition, Plan, dataset_key, model_key
from evaljob.spec import Model
from evaljob_cli.inputs import InputError
from evaljob_cli.places import Places

REPORT = "report"
"""In an attempt's folder: what a pod's termination message is on a cluster."""
LOG = "runner.log"


@dataclass(frozen=True)
class Launch:
    """How runners are started on this machine."""

    places: Places
    command: tuple[str, ...]
    """The runner's program, before its arguments."""
    environment: Mapping[str, str]
    backoff_seconds: float = 1.0
    """Before the first retry; doubles with each."""


def folder_of(plan: Plan, partition: Partition, places: Places, attempt: str) -> Path:
    """Where an attempt's plan files, report and log are."""
    return places.out / "attempts" / f"{plan.job_name(partition)}-{attempt[:8]}"


def write_plan(plan: Plan, partition: Partition, attempt: str, folder: Path) -> None:
    """Write the files that a pod finds mounted: three keys of the plan, and which attempt it is."""
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


def environment(base: Mapping[str, str], model: Model, scratch: str) -> dict[str, str]:
    """A runner's environment: this program's, threads as the pod would have them, the model's own variables.

    Args:
        base: this program's.
        model: whose runner.
        scratch: its folder for temporary files, in place of a pod's /tmp: however the runner ends, it goes with it.
    """
    # Waiting threads that spin take the cores from the other runners.
    own = {"OMP_NUM_THREADS": str(threads(model)), "OMP_WAIT_POLICY": "passive", "TMPDIR": scratch}
    return {**base, **own, **{e.name: e.value for e in model.runner.env}}
